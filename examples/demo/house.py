"""A broker of one's own as a process: its own state, its own sockets, nothing of the person who runs it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from remit.errors import UnavailableError
from remit.kinds.postgres.inspect import setup_sql
from remit.ports import Resource
from remit.sdk import Client, Place
from tests.support.postgres_server import PostgresServer

START = 15.0  # seconds
CLONE = Path(__file__).parents[2]
CONFIG = """
[listen]
api = "{api}"
gateway = "{gateway}"

[audit]
witness = "{witness}"
"""


@dataclass(frozen=True, slots=True)
class House:
    """A running broker. ``environment`` is what reaches it, and what it was started with."""

    folder: Path
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes]

    @property
    def control(self) -> Path:
        """The operator's socket."""
        return self.folder / "state" / "run" / "control.sock"

    def client(self) -> Client:
        """Return a client of the operator."""
        return Client(Place(self.control))

    def command(self, *arguments: str) -> list[str]:
        """Return a command line of remit."""
        return [program(), *arguments]


def program() -> str:
    """Return the path of remit's own command."""
    return str(Path(sys.prefix, "bin", "remit"))


def environment(folder: Path) -> dict[str, str]:
    """Return an environment in which everything of remit's is under ``folder``."""
    own = {"HOME": "home", "REMIT_STATE_DIR": "state", "XDG_CONFIG_HOME": "config", "TMPDIR": "tmp"}
    made = {name: str(folder / part) for name, part in own.items()}
    return {**made, "PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"}


def brought(folder: Path) -> None:
    """Copy the demo to where its agents work: they see nothing of the clone."""
    demo = Path(__file__).parent
    shutil.copytree(demo, folder / "examples" / demo.name, ignore=shutil.ignore_patterns("__pycache__"))


@contextmanager
def broker(folder: Path, api: str = "off", gateway: str = "off", more: str = "") -> Iterator[House]:
    """Run a broker under ``folder`` until the block ends; ``more`` is further configuration (TOML)."""
    env = environment(folder)
    config = Path(env["XDG_CONFIG_HOME"], "remit", "config.toml")
    for made in (config.parent, Path(env["HOME"]), Path(env["TMPDIR"]), folder / "witness"):
        made.mkdir(parents=True, mode=0o700)
    config.write_text(CONFIG.format(api=api, gateway=gateway, witness=folder / "witness") + more)
    with (folder / "broker.log").open("wb") as log:
        process = subprocess.Popen([program(), "up"], env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    house = House(folder, env, process)
    try:
        _ready(house)
        yield house
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ready(house: House) -> None:
    end = time.monotonic() + START
    while not house.control.exists():
        if house.process.poll() is not None or time.monotonic() > end:
            said = (house.folder / "broker.log").read_text(errors="replace")[-2_000:]
            raise UnavailableError("the broker did not start", help=said)
        time.sleep(0.02)


async def prepare(server: PostgresServer, database: str, resource: Resource, password: str) -> None:
    """Make the broker's login as its documentation tells an administrator to, PUBLIC's powers closed."""
    connection = await asyncpg.connect(server.dsn(database), ssl=False)
    try:
        for line in setup_sql(resource).splitlines():
            if line.startswith("\\password"):
                continue
            await connection.execute(line.removeprefix("-- "))
        user = resource.destination.partition("://")[2].partition("@")[0]
        await connection.execute(f"alter role {user} password '{password}'")
    finally:
        await connection.close()


def body(resource: Resource, secret: str, bound: Sequence[Mapping[str, object]]) -> dict[str, Any]:
    """Return a resource with its secret as ``PUT /v1/resources/{name}`` takes it."""
    return {
        "kind": resource.kind,
        "destination": resource.destination,
        "settings": dict(resource.settings),
        "bound": list(bound),
        "secret": secret,
    }
