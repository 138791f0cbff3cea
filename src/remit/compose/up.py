"""Serving a state in the foreground, until it is told to stop."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from remit.compose import activation, planes
from remit.compose.status import addresses
from remit.config.settings import Settings, load
from remit.stores import private

PATIENCE = 8.0  # seconds: an embedded broker ends after five without a task
PAUSE = 0.1  # seconds between looks


def foreground(*, as_json: bool, edges: int) -> None:
    """Serve what the environment names in the foreground (``remit up``): say what listens, then who was reached."""
    settings = load(os.environ)
    passed = activation.passed(os.environ, settings)
    outwait(settings.places.lock, PATIENCE)
    tell = None if as_json else _line

    def ready() -> None:
        _say(settings, as_json=as_json)
        activation.tell("READY=1")

    planes.run(planes.Serving(settings, edges, tell=tell, passed=passed), ready, lambda: activation.tell("STOPPING=1"))


def _say(settings: Settings, *, as_json: bool) -> None:
    where, urls = settings.places, addresses(settings, tcp=True)
    if as_json:
        told = {"log": str(where.log), **urls}
        sys.stdout.write(json.dumps(told, ensure_ascii=False, separators=(",", ":"), sort_keys=True) + "\n")
        sys.stdout.flush()
        return
    sys.stderr.write(f"remit is up: control socket {where.control}\n")
    for name in ("api", "gateway"):
        if urls[name] is not None:
            _line(f"{name} on {urls[name]}")
    if urls["tls"] is not None:
        _line(f"api on {urls['tls']}, for other hosts")
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
