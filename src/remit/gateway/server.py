"""The gateway: its listeners, what moves under which grant, and the compiled state of resources and routes."""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import ssl
from collections.abc import Callable, Coroutine, Mapping
from typing import Protocol
from weakref import WeakValueDictionary

from remit import catalog
from remit.catalog import Provider
from remit.core.secret import Secret
from remit.core.task import Grant, Task
from remit.errors import DeniedError, RemitError, RevokedError, ScopeError
from remit.gateway.client import Channel, Client, Listener, Verifier
from remit.gateway.delivery import Turns
from remit.gateway.exchange import Exchange
from remit.gateway.inject import Shape
from remit.gateway.judge import Judged
from remit.gateway.listening import Closing, Served, Start
from remit.gateway.match import Matcher
from remit.gateway.memory import Memory
from remit.gateway.pipe import Pipe
from remit.gateway.pools import Pools
from remit.gateway.record import Record, Recorder
from remit.gateway.room import DESCRIPTORS, MAX_CALLERS, MAX_CLIENTS, Room
from remit.ports import NewId, Resource

MAX_LEAKS = 3  # answers that repeated a credential, before the grant is suspended
BACKLOG = 128
_ROUTES = 1_024
_log = logging.getLogger("remit.gateway")


class Uses(Recorder, Protocol):
    """What the gateway asks of the broker."""

    def check(self, grant_id: str) -> Grant:
        """Return a grant if it is live now."""
        ...

    def task_of(self, grant_id: str) -> Task:
        """Return the task of a grant."""
        ...

    def resource(self, name: str) -> Resource:
        """Return a configured resource."""
        ...

    def secret_of(self, name: str) -> Secret:
        """Return the static secret of a resource for which ``use`` was permitted."""
        ...

    def on_end(self, callback: Callable[[frozenset[str]], None]) -> None:
        """Call back at once with the ids of grants that ended."""
        ...


class Moving(Protocol):
    """Something that moves under a grant and can be cut."""

    grant: str | None

    def cut(self, error: RemitError) -> None:
        """End it at once."""
        ...


class Route:
    """A grant's rules for one resource; ``known`` are verdicts on requests without a body."""

    __slots__ = ("known", "matcher", "shape")

    def __init__(self, matcher: Matcher, shape: Shape) -> None:
        """Start without memory."""
        self.matcher = matcher
        self.shape = shape
        self.known: Memory[tuple[str, bytes, bytes], Judged] = Memory()

    def remember(self, key: tuple[str, bytes, bytes], judged: Judged) -> None:
        """Keep the verdict on a method, a target and a header section: it hangs on nothing else."""
        self.known.keep(key, len(key[1]) + len(key[2]), judged)


class Gateway:
    """The data plane of one broker."""

    def __init__(
        self,
        broker: Uses,
        new_id: NewId,
        *,
        seconds: Callable[[], float],
        tls: ssl.SSLContext | None = None,
        providers: Mapping[str, Provider] | None = None,
        problems: str = "urn:remit:problem:",
        verify: Verifier | None = None,
        nonce: Callable[[], str] | None = None,
        descriptors: int = DESCRIPTORS,
    ) -> None:
        """Wire a gateway to the running loop.

        ``seconds`` is a clock that never goes back; ``providers`` are the catalog's unless given; ``verify`` tells the
        grant of a caller without a channel, and ``nonce`` the one for its next proof; no more than ``descriptors`` are
        used for what is connected.
        """
        self.broker = broker
        self.now = seconds()  # as of the last sweep
        self.loop = asyncio.get_running_loop()
        self.room = Room(descriptors)
        self.record = Record(broker, self.start)
        self.turns = Turns(self.loop)
        self.judging: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # by task
        self._seconds = seconds
        self._requests = map((new_id("req") + ".{:x}").format, itertools.count())
        self.problems = problems
        self._providers = providers if providers is not None else catalog.load()
        self.nonce = nonce
        self._verify = verify
        self._shapes: dict[str, Shape] = {}
        tls = tls or ssl.create_default_context()
        tls.keylog_filename = None  # type: ignore[assignment]  # none, whatever `SSLKEYLOGFILE` says
        self.pools = Pools(broker, tls, lambda: self.now, self.room)
        self._routes: dict[tuple[str, str], Route] = {}
        self._clients: set[Client] = set()
        self._moving: dict[str, set[Moving]] = {}
        self._leaks: dict[str, int] = {}
        self._suspended: set[str] = set()
        self._tasks: set[asyncio.Task[object]] = set()
        self._servers: set[Closing] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        broker.on_end(self.ended)

    # -- listeners ----------------------------------------------------------------------------------------------

    async def listen(
        self,
        sock: socket.socket,
        identity: Channel | None,
        hosts: frozenset[str] = frozenset(),
        start: Start | None = None,
    ) -> Closing:
        """Serve a listening socket. ``identity`` is fixed for good; None: each request proves its own grant."""
        port = sock.getsockname()[1]
        names = hosts or frozenset({f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}"})
        coded = frozenset(name.encode() for name in names)
        room = self.room.of("" if identity is None else self.broker.task_of(identity.grant).id)
        listener = Listener(self, identity, self._verify, coded, room)
        server = await self._started(lambda: Client(listener), sock, start)
        if self._sweeper is None:
            self._sweep()
        return server

    async def pipe(self, sock: socket.socket, grant: str, resource: str, start: Start | None = None) -> Closing:
        """Pipe a database port of a run: what connects to the socket reaches the resource, under ``grant``."""
        room = self.room.of(self.broker.task_of(grant).id)
        return await self._started(lambda: Pipe(self, grant, resource, room).near, sock, start)

    async def _started(
        self, factory: Callable[[], asyncio.Protocol], sock: socket.socket, start: Start | None
    ) -> Closing:
        server: Closing
        if start is not None:
            server = await start(factory, sock)
        else:
            server = await self.loop.create_server(factory, sock=sock, backlog=BACKLOG)
        served = Served(self._servers, server)
        self._servers.add(served)
        return served

    async def close(self) -> None:
        """Stop listening and cut everything."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for server in tuple(self._servers):
            server.close()
        for client in tuple(self._clients):
            client.end(RevokedError())
        for moving in [moving for group in self._moving.values() for moving in group]:
            moving.cut(RevokedError())
        self.pools.close()
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=5)
        if self.record.close():
            await asyncio.wait(tuple(self._tasks), timeout=5)

    def start(self, story: Coroutine[None, None, object]) -> None:
        """Run something beside what is read and written."""
        task = self.loop.create_task(story)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def run(self, exchange: Exchange) -> None:
        """Run an exchange, which says itself when it is over."""
        exchange.task = self.loop.create_task(exchange.run())
        self._tasks.add(exchange.task)

    def over(self, task: asyncio.Task[object] | None) -> None:
        """Take note that an exchange is over."""
        if task is not None:
            self._tasks.discard(task)

    def new_request(self) -> str:
        """Return an id for a request: unique, not secret."""
        return next(self._requests)

    def joined(self, client: Client) -> bool:
        """Take note of a client's connection; return False if its listener has too many, and all of them in use."""
        crowd = client.listener.clients
        most = MAX_CLIENTS if client.listener.principal is not None else MAX_CALLERS
        if len(crowd) >= most or not client.listener.room.take():
            idle = next((other for other in crowd if other.idle), None)
            if idle is None:
                return False
            self._forget(idle)  # the place that it had is the new one's
            idle.abort()
        crowd[client] = None
        self._clients.add(client)
        return True

    def left(self, client: Client) -> None:
        """Forget a client's connection."""
        if client in self._clients:
            self._forget(client)
            client.listener.room.give()

    def _forget(self, client: Client) -> None:
        self._clients.discard(client)
        del client.listener.clients[client]

    def _sweep(self) -> None:
        self.now = now = self._seconds()
        for client in [client for client in self._clients if client.deadline < now]:
            client.expire()
        self.pools.sweep()
        self._sweeper = self.loop.call_later(1.0, self._sweep)

    # -- compiled state -----------------------------------------------------------------------------------------

    def live(self, grant_id: str) -> Grant:
        """Return a grant that is live and not suspended."""
        grant = self.broker.check(grant_id)
        self._check_suspended(grant_id)
        return grant

    def _check_suspended(self, grant_id: str) -> None:
        if self._suspended and not self._suspended.isdisjoint(
            g.id for g in self.broker.task_of(grant_id).lineage(grant_id)
        ):
            raise DeniedError("the grant is suspended: answers to it repeated the credential too often")

    def route(self, grant_id: str, name: str) -> Route:
        """Return a grant's compiled rules for a resource. ``use`` looks whether the grant is live."""
        key = (grant_id, name)
        route = self._routes.get(key)
        if self._suspended:
            self.live(grant_id)
        if route is None or route.shape.resource is not self.broker.resource(name):
            route = self._compiled(self.live(grant_id), name)
            if len(self._routes) >= _ROUTES:
                self._routes.clear()
            self._routes[key] = route
        return route

    def _compiled(self, grant: Grant, name: str) -> Route:
        if not any(detail.type == "http" and detail.resource == name for detail in grant.scope):
            raise ScopeError(f"the grant does not cover `{name}`")  # the same for what does not exist
        resource = self.broker.resource(name)
        shape = self._shapes.get(name)
        if shape is None or shape.resource is not resource:
            provider = resource.settings.get("provider")
            known = self._providers.get(provider) if isinstance(provider, str) else None
            self._shapes[name] = shape = Shape(resource, known)
        return Route(Matcher(grant.scope, name), shape)

    # -- what moves ---------------------------------------------------------------------------------------------

    def moving(self, moving: Moving) -> None:
        """Take note that something moves under a grant."""
        mine = self._moving.get(moving.grant or "")
        if mine is None:
            self._moving[moving.grant or ""] = {moving}
        else:
            mine.add(moving)

    def moved(self, moving: Moving) -> None:
        """Take note that it has come to its end."""
        mine = self._moving.get(moving.grant or "")
        if mine is not None:
            mine.discard(moving)

    def ended(self, grants: frozenset[str]) -> None:
        """Cut everything that moves under grants that have ended."""
        for grant in grants:
            for moving in tuple(self._moving.pop(grant, ())):
                moving.cut(RevokedError())
        for client in tuple(self._clients):
            if client.listener.principal in grants:
                client.end(RevokedError())
        self.pools.end(grants)
        for key in [key for key in self._routes if key[0] in grants]:
            del self._routes[key]

    def leaked(self, grant: str | None, principal: str | None, resource: str) -> None:
        """Raise the alarm about an answer that repeated a credential; suspend a grant to which that happens often."""
        _log.warning("an answer of %s under %s repeated the credential and was withheld", resource, grant)
        for holder in {grant, principal} - {None}:
            assert holder is not None  # noqa: S101 - narrows the type
            self._leaks[holder] = self._leaks.get(holder, 0) + 1
            if self._leaks[holder] >= MAX_LEAKS:
                self._suspended.add(holder)
