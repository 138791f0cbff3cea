"""A whole broker whose state is on a file system that fails, in a mount namespace of its own; prints what came of it.

Run as ``unshare -rm python -m tests.live.faulty_disk_driver DIRECTORY FAULT`` with a resource and a detail on standard
input. A broker opens two tasks, issues, has the fault happen, revokes, and all its processes are killed; another one
starts on what is left, while the fault lasts if it can.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg

from tests.live.fleet import SEARCH
from tests.live.terminal import Terminal, configure
from tests.support.postgres_server import free_port

PATIENCE = 20  # seconds for an answer
LIBRARY = "faulty.so"  # built of faulty_disk.c, beside DIRECTORY
UP = "from remit.compose.up import foreground; foreground(as_json=True, edges=1)"
LOCKING = """
import sqlite3, sys
held = sqlite3.connect(sys.argv[1], isolation_level=None)
held.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""

Answer = dict[str, Any]


@dataclass
class Place:
    """A small file system with a broker on it, and a second place on another one."""

    disk: Path
    up: subprocess.Popen[str] = field(init=False)
    holding: subprocess.Popen[bytes] | None = None

    @property
    def second(self) -> Path:
        return self.disk.parent / "second"

    def start(self) -> None:
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        told = {"HOME": str(self.disk), "XDG_CONFIG_HOME": str(self.disk / "config")}
        told |= {"REMIT_STATE_DIR": str(self.disk / "state"), "FAULTS": str(self.disk)}
        told |= {"LD_PRELOAD": str(self.disk.parent / LIBRARY)}
        command = [sys.executable, "-c", UP]
        self.up = subprocess.Popen(
            command, env=kept | told, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        assert self.up.stdout is not None
        assert self.up.stdout.readline(), self.up.wait(PATIENCE)

    def ask(self, method: str, path: str, **body: object) -> Answer:
        """Ask the operator's socket."""
        transport = httpx.HTTPTransport(uds=str(self.disk / "state" / "run" / "control.sock"))
        with httpx.Client(transport=transport, base_url="http://control", timeout=PATIENCE) as control:
            return dict(control.request(method, path, json=body or None).json())

    def kill(self, *names: str) -> None:
        """Kill processes of the broker by name, or all."""
        children = psutil.Process(self.up.pid).children()
        found = [child for child in children if not names or child.name().removeprefix("remit ") in names]
        if not names:
            self.up.kill()  # before it starts any of them anew
        for child in found:
            with suppress(psutil.NoSuchProcess):  # they die with each other
                child.send_signal(signal.SIGKILL)
        if not names:
            self.up.communicate(timeout=PATIENCE)
        psutil.wait_procs(found, PATIENCE)

    def until(self, is_so: Callable[[], bool]) -> bool:
        """Wait for something; return whether it came."""
        deadline = time.monotonic() + PATIENCE
        while not (said := is_so()) and time.monotonic() < deadline:
            with suppress(subprocess.TimeoutExpired):
                self.up.wait(0.1)
        return said

    def fail(self, fault: str) -> None:
        """Have something fail, until it is mended or the broker is killed."""
        if fault.startswith("full"):
            _fill(self.disk)
        elif fault == "no names":
            _crowd(self.disk)
        elif fault == "locked":
            command = [sys.executable, "-c", LOCKING, str(self.disk / "state" / "remit.db")]
            self.holding = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert self.holding.stdout is not None
            self.holding.stdout.readline()
        elif fault != "stalled":
            (self.disk / fault).touch()
        if "stalled" in fault:  # whoever looks there waits for ever, as on a share whose server has gone
            fcntl.flock(os.open(self.second, os.O_RDONLY), fcntl.LOCK_EX)

    def mend(self) -> None:
        """Take back what filled the disk."""
        for path in (self.disk / "hog", *self.disk.glob("name-*")):
            path.unlink(missing_ok=True)


def _fill(disk: Path) -> None:
    with (disk / "hog").open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4_096)):
            pass


def _crowd(disk: Path) -> None:
    with suppress(OSError):
        for number in range(100_000):
            (disk / f"name-{number}").touch()


def _written(place: Place, times: int) -> str | None:
    """Write so often; return why it was refused, if it was."""
    web = {"kind": "http", "destination": "http://127.0.0.1:1", "bound": [SEARCH], "settings": {}}
    for _ in range(times):
        answer = place.ask("PUT", "/v1/resources/search", **web, secret="k-0123456789abcdef")
        if "code" in answer:
            return str(answer["code"])
    return None


def _working(leases: list[Answer]) -> int:
    """Return how many of some credentials the database takes."""
    found = 0
    for lease in leases:
        with suppress(psycopg.Error), psycopg.connect(lease["credential"]["dsn"]):
            found += 1
    return found


def _ended(place: Place, task: str) -> bool:
    answer = place.ask("GET", f"/v1/tasks/{task}")
    assert "closed" in answer, answer
    return bool(answer["closed"])


def played(place: Place, fault: str, resource: Answer, detail: Answer) -> Answer:
    """Open, issue, have it fail, revoke, have it die, start once more; return what came of it."""
    place.start()
    put = place.ask("PUT", "/v1/resources/warehouse", **resource)
    assert "code" not in put, put
    here = Terminal(place.disk, "https://idp.test")
    root, other = (here.told("open", name, "-r", "warehouse", "--ttl", "1h", "--as-owner") for name in "ab")
    leases = [place.ask("POST", f"/v1/tasks/{root['task']}/leases", grant=root["grant"], detail=detail) for _ in "abc"]
    seen: Answer = {"before": _working(leases)}
    place.fail(fault)
    if fault.startswith("full"):
        seen["write"] = _written(place, 5_000)
        place.kill("targets")  # who comes in its place needs no disk
    started = time.monotonic()
    seen["report"] = place.ask("POST", f"/v1/tasks/{root['task']}/close")
    seen |= {"seconds": time.monotonic() - started, "ended": _ended(place, root["task"])}
    place.until(lambda: _working(leases) == 0)
    seen["gone"] = time.monotonic() - started
    seen.setdefault("write", _written(place, 1))
    place.kill()
    if place.holding is not None:
        place.holding.communicate()
    for lifted in ("read-only", "fsync"):  # a broker does not start on such a disk
        (place.disk / lifted).unlink(missing_ok=True)
    place.start()
    again: Answer = {"root": _ended(place, root["task"]), "other": _ended(place, other["task"])}
    place.mend()
    closing = f"/v1/tasks/{root['task']}/close"
    again["recorded"] = place.until(lambda: bool(place.ask("POST", closing).get("recorded", True)))
    place.up.terminate()
    again["status"] = place.up.wait(PATIENCE)
    return {**seen, "again": again}


def main(disk: Path, fault: str) -> None:
    """Mount, and play."""
    place, told = Place(disk), json.loads(sys.stdin.read())
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,nr_inodes=64", "tmpfs", str(disk)], check=True)
    place.second.mkdir()
    configure(
        disk,
        [
            "[listen]",
            f'api = "127.0.0.1:{free_port()}"',
            f'gateway = "127.0.0.1:{free_port()}"',
            "[audit]",
            f'witness = "{place.second}"',
        ],
    )
    try:
        print(json.dumps(played(place, fault, told["resource"], told["detail"])))  # noqa: T201 - read by the test
    finally:  # whoever is left holds what the test reads from
        place.up.kill()
        if place.holding is not None:
            place.holding.kill()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
