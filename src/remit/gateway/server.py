"""The gateway: its listeners, its sweep, and what ends with a grant."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from remit import catalog
from remit.errors import RevokedError, UnavailableError
from remit.gateway.commands import CommandLauncher
from remit.gateway.connection import ClientConnection, ClientConnections
from remit.gateway.dialling import Lookup, Offers, look_up, offers
from remit.gateway.downstream import GatewayListener
from remit.gateway.fronts import Front
from remit.gateway.fronts.discovery import Discovery
from remit.gateway.fronts.path import PathFront, Verifier
from remit.gateway.fronts.proxy import ProxyFront
from remit.gateway.intercept import Interception
from remit.gateway.pipe import DatabasePipe
from remit.gateway.plane import DataPlane, Pools, Routes
from remit.gateway.quota import DESCRIPTORS, DescriptorBudget, TaskQuota
from remit.gateway.recorder import Ask
from remit.gateway.response import TaskTurns
from remit.gateway.stdio import StdioRelay
from remit.gateway.tunnel import ProxyConnection
from remit.ports import Clock, Closing, NewId, Start
from remit.ports.broker import BrokerPort, Notice
from remit.ports.credential import SourceOf
from remit.ports.kind import Kind
from remit.ports.runs import RunReach


@dataclass(slots=True, eq=False)
class OpenListener:
    """A listening socket that is forgotten with its end: a run may have as many as it likes, one after the other."""

    _others: set[Closing]
    _server: Closing

    def close(self) -> None:
        self._others.discard(self)
        self._server.close()


@dataclass(frozen=True, slots=True)
class Channel:
    """A run's identity: the grant its listener is bound to, and the placeholder of each resource in it."""

    grant: str
    placeholders: Mapping[str, str]


class Gateway:
    """The data plane of one broker."""

    def __init__(
        self,
        broker: BrokerPort,
        kinds: Mapping[str, Kind],
        new_id: NewId,
        *,
        seconds: Callable[[], float],
        clock: Clock,
        tls: Offers | None = None,
        source_of: SourceOf = lambda _: None,
        problems: str = "urn:remit:problem:",
        verify: Verifier | None = None,
        nonce: Callable[[], str] | None = None,
        descriptors: int = DESCRIPTORS,
        lookup: Lookup = look_up,
        ask: Ask | None = None,
        discovery: Discovery | None = None,
    ) -> None:
        """Wire a gateway to the running loop.

        ``seconds`` are by a clock that never goes back; ``source_of`` tells where a resource's credential comes from if
        it is no static secret; ``verify`` tells the grant of a caller without a channel, and ``nonce`` the one for its
        next proof; no more than ``descriptors`` are used for what is connected, and ``lookup`` resolves names;
        ``ask`` is the broker's ``use`` by callback, where it has that; ``discovery`` tells callers without a channel.
        """
        self.quota = DescriptorBudget(descriptors)
        routes = Routes(broker, kinds, catalog.load(), source_of)
        turns = TaskTurns(asyncio.get_running_loop())
        pools = Pools(broker, tls or offers(), clock, self.quota, turns, lookup)
        self.plane = DataPlane(broker, kinds, routes, pools, new_id, problems, nonce, now=seconds(), ask=ask)
        self.connections = ClientConnections()
        self._seconds, self._clock = seconds, clock
        self._verify, self._discovery = verify, discovery
        self._servers: set[Closing] = set()
        self._sweeper: asyncio.TimerHandle | None = None

    async def listen(
        self,
        sock: socket.socket,
        channel: Channel | None,
        hosts: frozenset[str] = frozenset(),
        start: Start | None = None,
        front: Front | None = None,
    ) -> Closing:
        """Serve a listening socket. ``channel`` is fixed for good; None: each request proves its own grant.

        ``front`` tells what requests are for; without one, their path does, at ``hosts`` or the socket's own address.
        """
        grant, placeholders = (None, {}) if channel is None else (channel.grant, channel.placeholders)
        if front is None:
            port = sock.getsockname()[1]
            names = hosts or frozenset({f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}"})
            told = self._discovery if channel is None else None
            front = PathFront(grant, frozenset(name.encode() for name in names), self._verify, told)
        listener = GatewayListener(self.plane, front, placeholders, await self._share(grant))
        server = await self._started(lambda: ClientConnection(listener, self.connections), sock, start)
        if self._sweeper is None:
            self._sweep()
        return server

    async def proxy(
        self, sock: socket.socket, channel: Channel, reach: RunReach, start: Start | None = None, *, by_name: bool
    ) -> Closing:
        """Serve a listening socket as the proxy of a run: by `CONNECT` and in absolute form, or by the name of TLS."""
        quota = await self._share(channel.grant)

        def listener(front: Front) -> GatewayListener:
            return GatewayListener(self.plane, front, channel.placeholders, quota)

        interception, plain = (
            Interception(reach, channel.grant, listener),
            listener(ProxyFront(channel.grant, reach.hosts)),
        )
        return await self._started(
            lambda: ProxyConnection(plain, self.connections, interception, by_name=by_name), sock, start
        )

    async def pipe(self, sock: socket.socket, grant: str, resource: str, start: Start | None = None) -> Closing:
        """Pipe a database port of a run: what connects to the socket reaches the resource, under ``grant``."""
        quota = await self._share(grant)
        return await self._started(lambda: DatabasePipe(self.plane, grant, resource, quota).near, sock, start)

    async def relay(self, sock: socket.socket, grant: str, resource: str, start: Start | None = None) -> Closing:
        """Relay what a client and a command say that a resource is: the first two that connect to the socket."""
        session = StdioRelay(self.plane, grant, resource, await self._share(grant))
        return await self._started(session.accepted, sock, start)

    async def commands(
        self, sock: socket.socket, task: str, serves: Collection[str], start: Start | None = None
    ) -> Closing:
        """Have servers that are commands started for a task, by the launcher that connects to the socket."""
        launcher = CommandLauncher(self.plane, task, serves, self.quota.of(task))
        return await self._started(launcher.accepted, sock, start)

    async def _share(self, grant: str | None) -> TaskQuota:
        return self.quota.of("" if grant is None else (await self.plane.broker.find(grant)).task)

    async def _started(
        self, factory: Callable[[], asyncio.Protocol], sock: socket.socket, start: Start | None
    ) -> Closing:
        loop = self.plane.loop
        create = loop.create_unix_server if sock.family == socket.AF_UNIX else loop.create_server
        server = await (start(factory, sock) if start else create(factory, sock=sock, backlog=1_024))
        served = OpenListener(self._servers, server)
        self._servers.add(served)
        return served

    async def close(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        for server in tuple(self._servers):
            server.close()
        plane, error = self.plane, UnavailableError("the broker ended while this was under way", retry_after=1)
        self.connections.end(error)
        plane.cut(error)
        plane.pools.close()
        if plane.tasks:
            await asyncio.wait(tuple(plane.tasks), timeout=5)
        while plane.recorder.close():  # what was asked for yet has been answered, and ended, since
            await asyncio.wait(tuple(plane.tasks), timeout=5)

    def _sweep(self) -> None:
        self.plane.now = now = self._seconds()
        self.connections.sweep(now)
        self.connections.lapse(self._clock().timestamp())
        self.plane.pools.sweep(now)
        self.plane.ended.sweep(now)
        self._sweeper = self.plane.loop.call_later(1.0, self._sweep)

    def mark(self, grants: frozenset[str]) -> None:
        """Let nothing begin under grants that have ended; in any thread."""
        self.plane.ended.mark(grants)

    def sever(self, grants: frozenset[str]) -> None:
        """Shut down what moves under grants that were marked, without the loop; in any thread."""
        self.plane.sever(grants)

    def noticed(self, notice: Notice) -> None:
        """Cut everything that moves under grants that have ended, and forget what was compiled of what has changed."""
        self.plane.cut(RevokedError(), notice.grants)
        self.connections.end(RevokedError(), notice.grants)
        self.plane.pools.end(notice.grants)
        self.plane.pools.forget(notice.resources)
        self.plane.routes.forget(notice.grants, notice.resources)
        self.plane.pins.forget(notice.resources | notice.descriptions)
