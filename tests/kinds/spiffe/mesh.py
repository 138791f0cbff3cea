"""A broker that is the authority of ``remit.test``, and its Workload API on unix sockets as runs have them."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from grpclib.client import Channel
from grpclib.const import Cardinality
from spiffe._proto import workload_pb2 as pb

from remit.broker import Broker
from remit.compose import kinds
from remit.core import scope
from remit.core.policy import Policy, within_bounds
from remit.core.principal import Holder
from remit.core.request import Bounds, GrantRequest
from remit.core.secret import Secret
from remit.core.spiffe import TrustBundle
from remit.core.task import Grant
from remit.jose import svid
from remit.jose.keys import key_set
from remit.keys.authority import FileAuthority
from remit.keys.file import FileSealer
from remit.kinds.spiffe.calls import SECURITY, SERVICE
from remit.kinds.spiffe.listen import WorkloadApi
from remit.ports import Resource
from remit.ports.identity import PublishedTrust
from remit.ports.kind import EngineContext, SocketContext
from remit.ports.trust import Trust
from tests.broker.world import OPERATOR, ClearSealer, holder, search
from tests.grant_requests import changed
from tests.support.following import following
from tests.support.kinds import held
from tests.support.memory_store import MemoryStore

DOMAIN = "remit.test"
LEDGER, MAIL = "https://ledger.test", "https://mail.test"
BOTH: Mapping[str, object] = {
    "type": "spiffe",
    "resource": "mesh",
    "actions": ["x509", "jwt"],
    "audiences": [LEDGER, MAIL],
    "ttl": 300,
}
METADATA = {SECURITY: "true"}
STREAMS = ("FetchX509SVID", "FetchX509Bundles", "FetchJWTBundles")
PATIENCE = 10.0  # seconds for one test
CALLS = (*STREAMS, "FetchJWTSVID", "ValidateJWTSVID")


@dataclass
class Mesh:
    """The broker and everything to look at."""

    folder: Path
    now: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    decide: Policy = within_bounds
    ids: itertools.count[int] = field(default_factory=itertools.count)
    broker: Broker = field(init=False)
    authority: FileAuthority = field(init=False)
    trust: Trust = field(init=False)
    api: WorkloadApi = field(init=False)

    async def start(self) -> None:
        clock = lambda: self.now  # noqa: E731 - the time is this object's
        self.authority = FileAuthority(self.folder / "keys", FileSealer(b"k" * 32), DOMAIN, clock)
        lent = EngineContext(clock, bytes, "https://broker.test", self.authority)
        self.broker = Broker(
            store=MemoryStore(),
            kinds=kinds.known(),
            engines=held(kinds.known(), lent),
            context=lent,
            sealer=ClearSealer(),
            clock=clock,
            new_id=lambda prefix: f"{prefix}_{next(self.ids)}",
            trust_domain=DOMAIN,
            decide=self.decide,
        )
        await self.broker.start()
        wide = {**BOTH, "ttl": 3_600}
        await self.broker.put_resource(
            OPERATOR, Resource("mesh", "spiffe", f"spiffe://{DOMAIN}", scope.parse([wide]), None, {}), None
        )
        await self.broker.put_resource(OPERATOR, search(), Secret("api-key-0123456789ab"))
        self.trust = Trust(PublishedTrust(self.authority.public, {}))
        self.authority.on_change(self.changed)
        self.api = WorkloadApi(SocketContext(self.broker, self.trust, clock))

    def changed(self, others: Mapping[str, TrustBundle] | None = None) -> None:
        """Publish the broker's own trust domain as it is now, and others where some are given."""
        known = self.trust.now.others if others is None else others
        self.trust.now = PublishedTrust(self.authority.public, known)
        self.broker.feeds.publish(trust=self.trust.now)

    def verified(self, token: str, audience: str) -> Mapping[str, object]:
        """Return the claims of a JWT-SVID."""
        return svid.verify(token, audience, key_set(self.authority.public.jwks), DOMAIN, self.now)

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    async def opened(self, *raw: Mapping[str, object], **more: object) -> Grant:
        wanted = GrantRequest(
            scope.parse([dict(each) for each in raw or (BOTH,)]), Bounds(timedelta(hours=1), depth=3, fan_out=9)
        )
        return (await self.broker.open(OPERATOR, replace(changed(wanted, more), purpose="pay the bills"))).grant

    async def delegated(self, parent: Grant, label: str, **more: object) -> Grant:
        wanted = GrantRequest(parent.scope, label=label)
        return (await self.broker.delegate(self.holder(parent), parent.id, changed(wanted, more))).grant

    def holder(self, grant: Grant) -> Holder:
        return holder(self.broker, grant)

    def leases(self, grant: Grant) -> list[str]:
        task = self.broker._tasks.task_of(grant.id)
        return [lease.id for lease in task.leases.values() if lease.grant == grant.id]

    @asynccontextmanager
    async def place(self, grant: Grant) -> AsyncIterator[Path]:
        """Serve a grant on a unix socket."""
        path = self.folder / f"{grant.id}.sock"
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))
            sock.listen()
            close = await self.api.serve(sock, self.holder(grant))
            try:
                yield path
            finally:
                close()
        path.unlink(missing_ok=True)  # Python 3.13 has removed it

    @asynccontextmanager
    async def client(self, grant: Grant) -> AsyncIterator[Client]:
        """Serve a grant, and talk to it as its run would."""
        async with self.place(grant) as path, Channel(path=str(path)) as channel:
            yield Client(channel)


@asynccontextmanager
async def meshed(folder: Path, decide: Policy = within_bounds) -> AsyncIterator[Mesh]:
    """Run a mesh until the block ends."""
    built = Mesh(folder, decide=decide)
    await built.start()
    with following(built.broker.notices(), built.api.noticed):
        try:
            yield built
        finally:
            await built.broker.stop()


def run(folder: Path, body: Callable[[Mesh], Awaitable[None]]) -> None:
    """Run a test's body on a mesh of its own."""

    async def main() -> None:
        async with asyncio.timeout(PATIENCE), meshed(folder) as mesh:
            await body(mesh)

    asyncio.run(main())


class Client:
    """Calls by name; requests are given by their fields."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    @asynccontextmanager
    async def stream(
        self, name: str, metadata: Mapping[str, str] | None = None, **fields: object
    ) -> AsyncIterator[Any]:
        """Begin a call; what is yielded has ``recv_message``."""
        stem = name.removeprefix("Fetch")
        stem = stem if name.startswith("Fetch") else name
        request, response = getattr(pb, f"{stem}Request"), getattr(pb, f"{stem}Response")
        given = METADATA if metadata is None else metadata
        cardinality = Cardinality.UNARY_STREAM if name in STREAMS else Cardinality.UNARY_UNARY
        call = self._channel.request(f"{SERVICE}/{name}", cardinality, request, response, metadata=dict(given))
        async with call as stream:
            await stream.send_message(request(**fields), end=True)
            yield stream

    async def once(self, name: str, metadata: Mapping[str, str] | None = None, **fields: object) -> Any:
        """Return the first message of a call."""
        async with self.stream(name, metadata, **fields) as stream:
            message = await stream.recv_message()
            if message is None:
                await stream.recv_trailing_metadata()  # raises what the call ended with
            if name in STREAMS:
                await stream.cancel()
            return message
