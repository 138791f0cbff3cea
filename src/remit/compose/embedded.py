"""A broker for whoever has none running: started on demand, alone on its state, gone when idle."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress

from remit.compose.environ import PASSED_ON
from remit.config.settings import Places
from remit.errors import UnavailableError

PATIENCE = 15.0  # seconds
PAUSE = 0.05  # seconds between looks for a broker that somebody else is starting


def ensure(where: Places, environ: Mapping[str, str]) -> None:
    """Return when a broker answers on the control socket, having started one if none did; the lock settles races."""
    deadline = time.monotonic() + PATIENCE
    said = "" if answers(where) else _start(environ)
    while not answers(where):
        if said or time.monotonic() > deadline:
            raise UnavailableError(said or "no broker answers", help="start one with `remit up` to see why")
        time.sleep(PAUSE)


def answers(where: Places) -> bool:
    with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
        probe.connect(str(where.control))
        return True
    return False


def _start(environ: Mapping[str, str]) -> str:
    """Start a broker; return what it says if it gives up, and nothing once it is ready or another one has the lock."""
    ready, theirs = os.pipe()
    try:
        subprocess.Popen(
            [sys.executable, "-I", "-m", "remit.compose", str(theirs)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={name: value for name, value in environ.items() if name in PASSED_ON},
            pass_fds=(theirs,),
            start_new_session=True,
        )
    finally:
        os.close(theirs)
    with os.fdopen(ready, encoding="utf-8") as answer:
        return answer.read().strip()
