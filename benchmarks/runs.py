"""Runs of a broker, and what they ask through its gateway, seen from outside."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks import honest
from examples.demo.house import House
from remit.run.inside import NICE
from tests.support.postgres_server import free_port

START = 60.0  # seconds that a run has to be up; the machine may be busy
PROGRAM = "/usr/bin/python3"  # a run sees nothing of a virtual environment


class Asked(NamedTuple):
    """One request through the gateway; seconds of the monotonic clock."""

    begun: float
    ended: float
    status: int  # 0: no answer came


@dataclass(frozen=True, slots=True)
class Asker:
    """A run that asks for one thing after the other."""

    process: subprocess.Popen[bytes]
    lines: Path

    def asked(self, since: float = 0.0) -> list[Asked]:
        """Return what was asked for, and has ended, from a point in time on."""
        text = self.lines.read_text("ascii")
        found = (line.split() for line in text[: text.rfind("\n") + 1].splitlines())
        all_of = (Asked(float(begun), float(ended), int(status)) for begun, ended, status in found)
        return [each for each in all_of if each.begun >= since]

    def good(self, since: float) -> list[Asked]:
        """Return what was answered as it is meant to be."""
        return [each for each in self.asked(since) if each.status == 200]


@contextmanager
def run(house: House, code: str, grants: Sequence[str], *arguments: str) -> Iterator[Asker]:
    """Let a run execute a file of Python until the block ends; what it prints is kept."""
    with tempfile.TemporaryDirectory(prefix="remit-bench-") as home:
        folder = Path(home)  # the run is at home there
        shutil.copy(code, folder / "code.py")
        command = house.command("run", "--purpose", "measure", *grants, "--quiet", "--", PROGRAM, "code.py", *arguments)
        with (folder / "out").open("wb") as out:
            process = subprocess.Popen(
                command, cwd=folder, env=dict(house.environment), stdin=subprocess.DEVNULL, stdout=out
            )
        try:
            yield Asker(process, folder / "out")
        finally:
            ended(process)


@contextmanager
def asker(house: House, resource: str = "web") -> Iterator[Asker]:
    """Let a run ask for one thing after the other; it has had an answer when the block begins."""
    with run(house, honest.__file__, ("--resource", resource), "one", f"http://127.0.0.1:8471/{resource}/v1/x") as made:
        until(lambda: bool(made.good(0.0)), made.process)
        yield made


@contextmanager
def elsewhere(code: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Execute a file of Python until the block ends, as if on another machine: it stands back at cores as runs do."""
    command = [sys.executable, code, *arguments]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        os.setpriority(os.PRIO_PROCESS, process.pid, NICE)
        with suppress(OSError):  # the kernel does not divide cores by sessions
            Path(f"/proc/{process.pid}/autogroup").write_text(str(NICE), "ascii")
        yield process
    finally:
        ended(process)


@contextmanager
def honest_upstream() -> Iterator[int]:
    """Run an upstream as a process; yield its port."""
    port = free_port()
    process = subprocess.Popen([sys.executable, honest.__file__, "upstream", str(port)])
    try:
        until(lambda: listens(port), process)
        yield port
    finally:
        ended(process)


@contextmanager
def busy() -> Iterator[None]:
    """Have four programs compete for every core: stress-ng, else Python."""
    program = shutil.which("stress-ng")
    spin = [sys.executable, "-c", "while True: pass"]
    commands = [spin] * 4 if program is None else [[program, "--cpu", "4", "--quiet"]]
    with ExitStack() as stack:
        for command in commands:
            stack.callback(ended, subprocess.Popen(command))
        yield


def until(done: Callable[[], bool], process: subprocess.Popen[bytes], seconds: float = START) -> None:
    """Wait until something is so; RuntimeError when the process ends before, or it takes too long."""
    end = time.monotonic() + seconds
    while not done():
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"{process.args!r}: did not come up, status {process.poll()}")
        time.sleep(0.01)


def ended(process: subprocess.Popen[bytes]) -> None:
    """End a process of ours."""
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
