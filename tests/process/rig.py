"""A supervisor in a process of its own (``supervised.py``), told what to do by a test."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

_NUMBERS = count()
SECONDS = 30  # that anything may take


class Rig:
    """One supervision."""

    def __init__(
        self,
        walls: str = "none",
        readable: Sequence[Path] = (),
        covered: Sequence[Path] = (),
        *,
        stubborn: bool = False,
        uid: int | None = None,
    ) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(SECONDS)
        settings = {
            "walls": walls,
            "stubborn": stubborn,
            "uid": uid,
            "readable": [str(path) for path in (Path(__file__).parents[2], *readable)],
            "covered": [str(path) for path in covered],
        }
        with theirs:
            command = (sys.executable, "-m", "tests.process.supervised", str(theirs.fileno()), json.dumps(settings))
            self.mark = f"RIG_{next(_NUMBERS)}_OF_{os.getpid()}"  # in the environment of all its processes
            self.process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                cwd=Path(__file__).parents[2],
                env={**os.environ, self.mark: "1"},
            )
        self.happened: list[list[Any]] = []
        self._sock, self._lines = ours, ours.makefile("r")
        self.pids = {"authority": self.wait("authority")[1]}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End it, and see that nobody is left."""
        family = self.family()
        self.process.kill()
        self.process.wait(SECONDS)
        self._lines.close()
        self._sock.close()
        assert [process for process in family if lives_on(process)] == []

    def family(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def wait(self, *what: object) -> list[Any]:
        """Return the next thing that happens which begins as said."""

        def is_it(event: list[Any]) -> bool:
            return event[: len(what)] == list(what)

        return self.until(is_it)

    def until(self, is_it: Callable[[list[Any]], bool]) -> list[Any]:
        for at, event in enumerate(self.happened):
            if is_it(event):
                return self.happened.pop(at)
        while line := self._lines.readline():
            told: list[Any] = json.loads(line)
            if told[0] == "started":
                self.pids[told[1]] = told[2]
            if is_it(told):
                return told
            self.happened.append(told)
        raise AssertionError(("it never happened", self.happened))

    def say(self, *what: object) -> None:
        self._sock.sendall(json.dumps(what).encode() + b"\n")

    def ask(self, *what: object) -> Any:
        self.say(*what)
        return self.wait("done")[1]

    def start(self, role: str) -> str:
        """Start a worker; return its name."""
        self.say("start", role)
        name = self.wait("started")[1]
        assert self.wait("done")[1] == name
        return str(name)

    def run(self, name: str, code: str) -> Any:
        """Run code in a worker; return what it left in ``found``, or its error."""
        return self.ask("run", name, code)

    def state(self) -> dict[str, list[Any]]:
        return {line[0]: line[1:] for line in self.ask("state")["processes"]}


def lives_on(process: psutil.Process) -> bool:
    """Return whether a process has not ended after a while; whoever has to reap it here may never do that."""
    if not process.is_running():
        return False
    with suppress(ProcessLookupError), os.fdopen(os.pidfd_open(process.pid)) as ended:
        return not select.select([ended], [], [], SECONDS)[0]
    return False
