"""A broker for whoever has none running: started on demand, alone on its state, gone when idle."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace

from remit.compose.environ import PASSED_ON
from remit.config.settings import Places, places
from remit.errors import UnavailableError
from remit.sdk import place

PATIENCE = 15.0  # seconds
PAUSE = 0.05  # seconds between looks for a broker that somebody else is starting


def ensure(environ: Mapping[str, str]) -> None:
    """Return when a broker answers on the control socket, having started one if none did; the lock settles races."""
    deadline = time.monotonic() + PATIENCE
    said = "" if answers(environ) else _start(environ)
    while not answers(environ):
        if said or time.monotonic() > deadline:
            raise UnavailableError(said or "no broker answers", help="start one with `remit up` to see why")
        time.sleep(PAUSE)


def answers(environ: Mapping[str, str]) -> bool:
    return place.answered(place.control(environ)) is not None


def reached(environ: Mapping[str, str]) -> Places:
    """Return the places of the broker that serves the state, which another environment may have started."""
    return replace(places(environ), runtime=place.control(environ).parent)


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
