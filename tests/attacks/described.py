"""The API by its description: served to generated calls, with objects that live, for the operator and for an agent."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import requests
import yaml

from remit.api import Peer, build, serve
from remit.broker import Holder
from tests.api.plane import Plane, _tcp, plane
from tests.broker.world import OPERATOR, TABLE

SPEC: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parents[2] / "docs/reference/openapi.yaml").read_text(encoding="utf-8")
)

T = TypeVar("T")


@dataclass
class Served:
    """A control plane in a thread of its own. ``operator`` and ``agent`` are URLs of listeners that stand for them."""

    plane: Plane
    loop: asyncio.AbstractEventLoop
    operator: str
    agent: str

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something where the plane lives."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    async def live(self) -> dict[str, str]:
        """Return the ids of a task, a grant and a lease that live, made anew."""
        opened = await self.plane.opened()
        asked = {"grant": opened["grant"], "detail": TABLE}
        made = await self.plane.control.post(f"/v1/tasks/{opened['task']}/leases", json=asked)
        return {"task": opened["task"], "grant": opened["grant"], "lease": made.json()["lease"]}


@contextmanager
def served(directory: Path) -> Iterator[Served]:
    """Serve a control plane until the block ends."""
    made: list[Served] = []
    ready, over = threading.Event(), threading.Event()

    async def main() -> None:
        async with plane(directory) as here:
            opened = await here.opened()
            agent = await _listen(here, Peer(Holder(opened["task"], opened["grant"])))
            made.append(Served(here, asyncio.get_running_loop(), await _listen(here, Peer(OPERATOR)), agent))
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    try:
        assert ready.wait(30)
        yield made[0]
    finally:
        over.set()
        thread.join(30)


async def _listen(here: Plane, peer: Peer) -> str:
    sock = _tcp()
    here.listeners.append(await serve(build(here.surface), sock, peer))
    return f"http://127.0.0.1:{sock.getsockname()[1]}"


def session() -> requests.Session:
    """Return a client that follows no redirect and takes nothing from the environment."""
    made = requests.Session()
    made.trust_env = False
    return made
