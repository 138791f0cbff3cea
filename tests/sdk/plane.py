"""A broker with its control plane in a thread of its own, so that blocking clients and programs can be tested on it."""

from __future__ import annotations

import asyncio
import secrets
import socket
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric import ed25519

from remit.broker import Broker
from remit.broker.pending import PendingMemory
from remit.compose.app import build
from remit.compose.bound_grants import BoundGrants
from remit.core import audit
from remit.core.principal import Holder, IdToken, Operator
from remit.core.secret import Secret
from remit.jose.proof import Nonces
from remit.keys.signers import FileSigner
from remit.ports import Resource
from remit.sdk import Place
from remit.web.authentication import SocketAuth, TokenAuth
from remit.web.listen import Listener, serve
from remit.web.routes import AppDeps
from remit.web.verifier import Keys, Verifier
from tests.broker.world import OPERATOR, SEARCH, TABLE, World, details
from tests.support.link import edge_of
from tests.support.signing import Ring

T = TypeVar("T")

ORIGIN = "remit.test/audit"
UNBOUNDED = {name: value for name, value in SEARCH.items() if name != "uses"}


@dataclass
class Served:
    """What a test may look at: the world behind the broker, and where its listeners are."""

    directory: Path
    world: World = field(default_factory=lambda: World(now=datetime.now(UTC)))
    listeners: list[Listener] = field(default_factory=list)
    notes: FileSigner = field(default_factory=lambda: FileSigner(ed25519.Ed25519PrivateKey.generate()))
    broker: Broker = field(init=False)
    deps: AppDeps = field(init=False)
    base: str = field(init=False, default="")
    loop: asyncio.AbstractEventLoop = field(init=False, default_factory=asyncio.new_event_loop)

    @property
    def control(self) -> Path:
        """The operator's socket."""
        return self.directory / "control.sock"

    @property
    def place(self) -> Place:
        """Where an operator's client finds this broker."""
        return Place(self.control)

    @property
    def vkey(self) -> str:
        """The key that verifies checkpoints."""
        return audit.verifier_key(ORIGIN, audit.public_bytes(self.notes.public_jwk()))

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something in the broker's own loop."""
        done: Future[T] = asyncio.run_coroutine_threadsafe(work, self.loop)
        return done.result(30)

    def channel(self, grant: str, ports: dict[str, int] | None = None) -> Place:
        """Return the place of a run that was started under a grant."""
        holder = Holder(self.broker._tasks.task_of(grant).id, grant)
        path = self.directory / f"{grant}.sock"
        self.call(self._channel(path, SocketAuth(holder, self.base, ports or {})))
        return Place(path, grant, self.base)

    async def _channel(self, path: Path, peer: SocketAuth) -> None:
        self.listeners.append(await serve(build(self.deps), _unix(path), peer))

    async def renew(self, operator: Operator, task: str, ttl: timedelta, token: IdToken | None) -> datetime:
        """Renew a task of the owner's; nobody has an ID token here."""
        assert token is None
        return (await self.broker.renew_task(operator, task, ttl)).grant.expires_at

    async def start(self) -> None:
        """Listen on the control socket and on loopback TCP."""
        self.broker = self.world.broker(sign=lambda size, root: audit.checkpoint(ORIGIN, size, root, self.notes))
        await self.broker.start()
        web = socket.socket()
        web.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{web.getsockname()[1]}"
        self.base = f"http://{host}"
        there, pending, ring = edge_of(self.broker), PendingMemory(lambda: self.world.now), Ring()
        key = secrets.token_bytes(32)
        tokens = BoundGrants(self.broker, ring, pending, self.base, lambda: self.world.now, _new_id, key)
        keys, nonces = Keys(ring.public_jwks()), Nonces(key)
        verifier = Verifier(there, edge_of(tokens), keys, self.base, lambda: self.world.now, nonces, edge_of(pending))
        self.deps = AppDeps(there, self.broker.kinds, verifier)
        app, own = build(self.deps), build(replace(self.deps, renew_task=self.renew))
        self.listeners.append(await serve(own, _unix(self.control), SocketAuth(OPERATOR, self.base)))
        self.listeners.append(await serve(app, web, TokenAuth(frozenset({host}), verifier.holder, self.base)))
        await self._resources()

    async def _resources(self) -> None:
        search = Resource("search", "http", "https://api.search.example", details(UNBOUNDED), None, {})
        warehouse = Resource("warehouse", "postgres", "postgresql://remit@127.0.0.1:1/sales", details(TABLE), None, {})
        await self.broker.put_resource(OPERATOR, search, Secret("sk-search-0123456789ab"))
        await self.broker.put_resource(OPERATOR, warehouse, Secret("pg-login"))

    async def stop(self) -> None:
        """Stop listening."""
        for listener in self.listeners:
            listener.close()
        await self.broker.stop()


def _unix(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    return sock


def _new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_urlsafe(16)}"


@contextmanager
def served(directory: Path) -> Iterator[Served]:
    """Serve a broker until the block ends."""
    plane = Served(directory)
    thread = threading.Thread(target=plane.loop.run_forever, daemon=True)
    thread.start()
    try:
        plane.call(plane.start())
        yield plane
    finally:
        plane.call(plane.stop())
        plane.loop.call_soon_threadsafe(plane.loop.stop)
        thread.join(30)
        plane.loop.close()
