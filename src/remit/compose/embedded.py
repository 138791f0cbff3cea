"""A broker for whoever has none running: started on demand, alone on its state, gone when idle."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from remit.compose.environ import PASSED_ON
from remit.config.settings import Places, places
from remit.errors import UnavailableError
from remit.process import owner
from remit.sdk import place
from remit.stores import private

PATIENCE = 15.0  # seconds
PAUSE = 0.05  # seconds between looks at a broker that starts or ends


def ensure(environ: Mapping[str, str]) -> None:
    """Return when a broker answers on the control socket, having started one if none did; the lock settles races.

    One that has the state and does not answer is about to: it starts, or it ends, and then it is ours to start one.
    """
    deadline, where, said = time.monotonic() + PATIENCE, places(environ), ""
    while not answers(environ):
        serving = owner.holder(where.database, private.holder(where.lock))
        if time.monotonic() > deadline or (said and serving is None):
            silent = "no broker answers" if serving is None else f"process {serving} has the state, and does not answer"
            detail, _, advice = said.partition("\0")
            raise UnavailableError(detail or silent, help=advice if said else "start one with `remit up` to see why")
        if serving is None:
            said = _start(environ)
        else:
            said = ""
            time.sleep(PAUSE)


def found(environ: Mapping[str, str]) -> Path:
    """Return the control socket of a broker that answers, which was started if there was none."""
    ensure(environ)
    return place.control(environ)


def answers(environ: Mapping[str, str]) -> bool:
    return place.answered(place.control(environ)) is not None


def reached(environ: Mapping[str, str]) -> Places:
    """Return the places of the broker that serves the state, which another environment may have started."""
    return replace(places(environ), runtime=place.control(environ).parent)


def _start(environ: Mapping[str, str]) -> str:
    """Start a broker; return nothing once it is ready, else what it says, with its advice after a zero."""
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
