"""Serving a state in the foreground, until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path

import uvloop

from remit.compose import probe
from remit.compose.authority import reloading, until_stopped
from remit.compose.listeners import harden, stopping
from remit.compose.serving import served
from remit.compose.wiring import Application
from remit.config.settings import Settings, load
from remit.stores import private

PATIENCE = 8.0  # seconds: an embedded broker ends after five without a task
PAUSE = 0.1  # seconds between looks
LOG_SIZE = 4 * 1024 * 1024  # bytes, twice


async def serve(
    settings: Settings,
    ready: Callable[[], None],
    *,
    idle: float | None = None,
    tcp: bool = True,
    tell: Callable[[str], None] | None = None,  # prints a line
) -> None:
    """Serve until stopped or idle; call ``ready`` when everything listens, then ``tell`` who was reached."""

    async def told(app: Application) -> None:
        """Say which issuers and trust domains are loaded: a broker starts, and serves, without them."""
        if tell is not None:
            for line in await probe.lines(settings, app.clock, app.targets):
                tell(line)

    harden()
    stop = stopping()
    async with served(settings, tcp=tcp) as edges:
        log_to(settings)
        gc.freeze()  # what was loaded to get here stays: no need to look through it again and again
        hup = reloading(edges.application)
        ready()
        telling = asyncio.create_task(told(edges.application))
        await until_stopped(edges.busy, stop, idle)
        hup.cancel()
        telling.cancel()


def foreground(*, as_json: bool) -> None:
    """Serve what the environment names in the foreground (``remit up``): say what listens, then who was reached."""
    settings = load(os.environ)
    outwait(settings.places.state / "lock", PATIENCE)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, lambda: _say(settings, as_json=as_json), tell=None if as_json else _line))


def _say(settings: Settings, *, as_json: bool) -> None:
    where, tls = settings.places, None if settings.tls is None else settings.tls.url
    urls = {"api": settings.api and settings.api.url, "gateway": settings.gateway and settings.gateway.url, "tls": tls}
    if as_json:
        told = {"control": str(where.control), "log": str(where.log), **urls}
        sys.stdout.write(json.dumps(told, ensure_ascii=False, separators=(",", ":"), sort_keys=True) + "\n")
        sys.stdout.flush()
        return
    sys.stderr.write(f"remit is up: control socket {where.control}\n")
    for name in ("api", "gateway"):
        if urls[name] is not None:
            _line(f"{name} on {urls[name]}")
    if tls is not None:
        _line(f"api on {tls}, for other hosts")
    _line(f"log in {where.log}")


def _line(text: str) -> None:
    sys.stderr.write(f"  {text}\n")
    sys.stderr.flush()


def outwait(lock: Path, patience: float) -> None:
    """Wait as many seconds for an embedded broker that is idle to end; one that is not idle has the lock afterwards."""
    deadline = time.monotonic() + patience
    while embedded(private.holder(lock)) and time.monotonic() < deadline:
        time.sleep(PAUSE)


def embedded(pid: int | None) -> bool:
    """Whether a process lives and is a broker that a run started for itself."""
    try:
        return pid is not None and b"remit.compose" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def log_to(settings: Settings) -> None:
    """Log to the state's own file: never a secret, and never a caller's words at a level that is on by default."""
    path = settings.places.log
    private.make_file(path)
    handler = RotatingFileHandler(path, maxBytes=LOG_SIZE, backupCount=1)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logger = logging.getLogger("remit")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = sys.stderr.isatty()
