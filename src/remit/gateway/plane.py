"""What all connections of a gateway share: what each grant may reach, what is on record, what is in flight, pools."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from typing import Protocol, TypeVar
from weakref import WeakValueDictionary

from remit.catalog import Provider
from remit.core.orders import digest
from remit.core.principal import GrantView
from remit.core.scope import Scope
from remit.core.secret import WHOLE
from remit.errors import ConflictError, DeniedError, RemitError, RevokedError, ScopeError, UpstreamError
from remit.gateway.authorize import Rules, compile_rules
from remit.gateway.canon import RequestTarget, heavy
from remit.gateway.dialling import Lookup, Offers, look_up
from remit.gateway.ended import EndedGrants
from remit.gateway.mcp.rules import MessageRules, compile_messages
from remit.gateway.patterns import SecretPatterns
from remit.gateway.pins import KnownPins
from remit.gateway.quota import DescriptorBudget
from remit.gateway.recorder import Ask, Recorder
from remit.gateway.response import ResponsePlan, TaskTurns, check_reach
from remit.gateway.target import BoundCredential, HttpTarget, TokenRefusedError, fetched, static
from remit.gateway.upstream import Pool, UpstreamConnection
from remit.ports import Clock, NewId
from remit.ports.broker import BrokerPort, Use
from remit.ports.credential import SourceOf
from remit.ports.kind import STARTED, GatewayAccess, Kind

K = TypeVar("K")
V = TypeVar("V")

ONE = 4_096  # bytes of a key: what is longer is not kept
ALL = 65_536  # bytes of all keys; what they stand for is a few times as large
MAX_LEAKS = 3  # answers that repeated a credential, before the grant is suspended
_ENTRY = 128  # bytes that a key counts for at least
_ROUTES = 1_024
SURE = timedelta(minutes=1)  # for which a token is good that was asked for because another was refused
_JUDGING = ThreadPoolExecutor(1, "judge")  # one: what is judged meets the loop at Python's lock
NOWHERE = "http://localhost"  # the destination of a command, which is not dialled
_log = logging.getLogger("remit.gateway")


class BoundedCache(dict[K, V]):
    """What was made of bytes that may come again, forgotten at one go where a caller makes it grow too large."""

    __slots__ = ("_size",)

    def __init__(self) -> None:
        super().__init__()
        self._size = 0

    def keep(self, key: K, size: int, value: V) -> None:
        """Keep ``value``, whose key has ``size`` bytes."""
        if size > ONE:
            return
        self._size += size + _ENTRY
        if self._size > ALL:
            self.clear()
            self._size = size + _ENTRY
        self[key] = value


@dataclass(slots=True, eq=False)
class GrantRoute:
    """A grant's rules for one resource."""

    view: GrantView
    rules: Rules
    target: HttpTarget
    messages: MessageRules = ()  # where requests are messages; there are no other rules then
    key: bytes = field(default=b"", repr=False)  # seals what such servers hand out
    tasks: dict[str, None] = field(default_factory=dict)  # ids that the grant was given there


@dataclass(eq=False, repr=False)
class Routes:
    """The routes of all grants; a grant to which answers repeated a credential too often has none."""

    _broker: BrokerPort
    _kinds: Mapping[str, Kind]
    _providers: Mapping[str, Provider]
    _source_of: SourceOf
    _targets: dict[str, HttpTarget] = field(default_factory=dict)
    _routes: dict[tuple[str, str], GrantRoute] = field(default_factory=dict)
    _leaks: dict[str, int] = field(default_factory=dict)
    _suspended: set[str] = field(default_factory=set)
    _alarms: set[tuple[str | None, str, str]] = field(default_factory=set)  # that were raised

    def of(self, grant_id: str, name: str) -> GrantRoute | None:
        """Return a grant's route to a resource if it is compiled. ``use`` looks whether the grant is live."""
        route = self._routes.get((grant_id, name))
        if route is not None and self._suspended:
            self.check_suspended(route.view)
        return route

    def holds(self, route: GrantRoute) -> bool:
        """Whether a route is still that of its grant and resource; while any grant is suspended, ``of`` is to look."""
        return not self._suspended and self._routes.get((route.view.id, route.target.resource.name)) is route

    def held(self, grant_id: str | None, target: RequestTarget | None) -> Scope:
        """Return the scope of a grant that has a route to a target; nothing where that is not known."""
        route = self._routes.get((grant_id or "", target.resource)) if target is not None else None
        return () if route is None else route.view.grant.scope

    async def compiled(self, grant_id: str, name: str) -> GrantRoute:
        view = await self.live(grant_id)
        rules, said = compile_rules(view.grant.scope, name), compile_messages(view.grant.scope, name)
        if not (rules or said):
            raise ScopeError(f"the grant does not cover `{name}`")  # the same for what does not exist
        found = await self._broker.target(name)
        kind = self._kinds[found.resource.kind]
        command = kind.is_command(found.resource.destination)
        access = None if command and STARTED not in found.resource.settings else kind.access
        if not isinstance(access, GatewayAccess) or not (rules or access.messages):
            raise ScopeError(f"`{name}` is not reached through the gateway")
        target = self._targets.get(name)
        if target is None or target.version != found.version:
            provider = found.resource.settings.get("provider")
            known = self._providers.get(provider) if isinstance(provider, str) else None
            at = NOWHERE if command else found.resource.destination.removeprefix(access.prefix)
            there, source = replace(found.resource, destination=at), self._source_of(found.resource)
            target = HttpTarget(there, known, source, found.version, messages=access.messages, command=command)
            self._targets[name] = target
        if len(self._routes) >= _ROUTES:
            self._routes.clear()
        key = (await self._broker.handle_key(grant_id)).parts()[WHOLE] if access.messages else b""
        self._routes[grant_id, name] = route = GrantRoute(view, rules, target, said if access.messages else (), key)
        return route

    async def live(self, grant_id: str) -> GrantView:
        view = await self._broker.grant(grant_id)
        self.check_suspended(view)
        return view

    def check_suspended(self, view: GrantView) -> None:
        """Raise DeniedError under a grant to which answers repeated a credential too often."""
        if self._suspended and not self._suspended.isdisjoint(step.grant for step in view.lineage):
            raise DeniedError("the grant is suspended: answers to it repeated the credential too often")

    def leaked(self, grant: str | None, principal: str | None, resource: str) -> None:
        """Raise the alarm about an answer that repeated a credential; suspend a grant to which that happens often."""
        _log.warning("an answer of %s under %s repeated the credential and was withheld", resource, grant)
        for holder in filter(None, {grant, principal}):
            self._leaks[holder] = self._leaks.get(holder, 0) + 1
            if self._leaks[holder] >= MAX_LEAKS:
                self._suspended.add(holder)

    def misplaced(self, grant: str | None, resource: str, error: RemitError) -> None:
        """Raise the alarm about a placeholder or token that was to go elsewhere, once for each grant and place."""
        alarm = (grant, resource, error.detail)
        if alarm not in self._alarms:
            self._alarms = {*self._alarms, alarm} if len(self._alarms) < _ROUTES else {alarm}
            _log.warning("a request to %s under %s was refused: %s", resource, grant, error.detail)

    def forget(self, grants: frozenset[str], resources: frozenset[str]) -> None:
        for grant, name in [key for key in self._routes if key[0] in grants or key[1] in resources]:
            del self._routes[grant, name]


class Starter(Protocol):
    """What starts servers that are commands."""

    serves: Collection[str]

    def open(self, resource: str, asker: UpstreamConnection, /) -> None: ...


@dataclass(eq=False, repr=False)
class Pools:
    """One pool for each task and resource, as long as it has connections.

    There is one credential for each resource, or one for each task where it is a human's connection. What one request
    left behind on a connection, an unread body or a late answer, can so reach its own task alone.
    """

    _broker: BrokerPort
    offers: Offers
    _clock: Clock
    _quota: DescriptorBudget
    turns: TaskTurns
    lookup: Lookup = look_up
    launchers: dict[str, list[Starter]] = field(default_factory=dict)  # of servers that are commands, by task
    _now: float = 0.0  # of the last sweep, in seconds by a clock that never goes back
    # by task, empty for all, and resource
    _credentials: dict[str, dict[str, BoundCredential]] = field(default_factory=dict)
    _fetching: WeakValueDictionary[tuple[str, str], asyncio.Lock] = field(default_factory=WeakValueDictionary)
    _tasks: dict[str, dict[str, Pool]] = field(default_factory=dict)  # by task, by resource
    _roots: dict[str, str] = field(default_factory=dict)  # root grants of tasks that have had pools

    async def of(self, use: Use, target: HttpTarget, refused: BoundCredential | None = None) -> Pool:
        """Return the pool of a use's task with the credential of now; ConflictError if the resource was changed.

        ``refused`` is one that the upstream did not take.
        """
        return self.ready(use, target, refused) or self._of(use, target, await self._fetched(use, target, refused))

    def ready(self, use: Use, target: HttpTarget, refused: BoundCredential | None = None) -> Pool | None:
        """Return what ``of`` does, or None when the credential is to be asked for."""
        if use.version != target.version:  # its secret may be sealed for another destination now
            raise ConflictError("the resource was changed meanwhile, so the request was not sent", help="try again")
        credential = self._current(target, use.task)
        return None if credential is None or credential is refused else self._of(use, target, credential)

    def _of(self, use: Use, target: HttpTarget, credential: BoundCredential) -> Pool:
        mine = self._tasks.get(use.task)
        pool = mine.get(target.resource.name) if mine is not None else None
        if pool is not None and pool.credential is credential:
            return pool
        if pool is not None:
            pool.close()
        if mine is None:
            self._roots[use.root] = use.task
            mine = self._tasks[use.task] = {}
        quota = self._quota.of(use.task)
        opened = partial(self._open_command, use.task, target.resource.name) if target.command else None
        mine[target.resource.name] = pool = Pool(
            credential, self.offers, quota, self._now, self._spare, self.turns, self.lookup, opened
        )
        return pool

    def _open_command(self, task: str, resource: str, pool: Pool) -> UpstreamConnection:
        if not (launchers := [each for each in self.launchers.get(task, ()) if resource in each.serves]):
            raise UpstreamError(
                f"nothing starts `{resource}` for this task",
                help="its launcher does: `remit run`, outside of another run, with the resource in its grant",
            )
        upstream = UpstreamConnection(pool)
        launchers[-1].open(resource, upstream)
        return upstream

    def _current(self, target: HttpTarget, task: str) -> BoundCredential | None:
        """Return the credential that is good now, or None when it is to be asked for."""
        found = self._credentials.get(task if target.connected else "", {}).get(target.resource.name)
        if found is None or found.target is not target:
            return None
        return found if found.until is None or self._clock() < found.until else None

    async def _fetched(self, use: Use, target: HttpTarget, refused: BoundCredential | None) -> BoundCredential:
        name, task = target.resource.name, use.task if target.connected else ""
        async with self._fetching.setdefault((task, name), asyncio.Lock()):
            found = self._current(target, task)  # another request has asked meanwhile
            if found is None or found is refused:
                found = await self._asked(use, target, refused)
                self._credentials.setdefault(task, {})[name] = found
            return found

    async def _asked(self, use: Use, target: HttpTarget, refused: BoundCredential | None) -> BoundCredential:
        """Ask for a credential, which is there as long as the resource is the same."""
        name, source = target.resource.name, target.source
        if target.connected:
            before = "" if refused is None else refused.token
            token = await self._broker.access_token(use.grant, name, target.version, before)
            made = static(target, token.value, token.until)
            made.token, made.sure = digest(token.value.reveal()), None if refused is None else self._clock() + SURE
            return made
        found = None if source is None else await fetched(target, source, self._clock)
        secret = await self._broker.credential(name, target.version)
        return found or static(target, secret)

    def check_taken(self, plan: ResponsePlan, credential: BoundCredential, *, again: bool) -> None:
        """Raise for one that a human's token is not good for, if that is believed (TokenRefusedError) or narrow."""
        sure = credential.sure is not None and self._clock() < credential.sure
        if plan.status == HTTPStatus.UNAUTHORIZED and credential.token and again and not sure:
            raise TokenRefusedError(credential)
        check_reach(plan, credential)

    def patterns(self, task: str, resources: Collection[str]) -> Sequence[SecretPatterns]:
        """Return what the credentials of resources are found by, as far as they were asked for here."""
        mine = (self._credentials.get(whose, {}) for whose in ("", task))
        return [held[name].patterns for held in mine for name in resources & held.keys()]

    def forget(self, resources: frozenset[str]) -> None:
        for credentials in self._credentials.values():
            for name in resources & credentials.keys():
                del credentials[name]

    def check_current(self, pool: Pool, task: str) -> None:
        """Raise ConflictError if the resource or its credential was changed since the pool was taken."""
        if self._current(pool.credential.target, task) is not pool.credential:
            raise ConflictError("the credential was changed meanwhile, so the request was not sent", help="try again")

    def end(self, grants: frozenset[str]) -> None:
        """Close the pools of tasks whose root grant has ended."""
        for root in grants & self._roots.keys():
            task = self._roots.pop(root)
            self._credentials.pop(task, None)
            for pool in self._tasks.pop(task, {}).values():
                pool.close()

    def sweep(self, now: float) -> None:
        self._now = now
        for task, mine in tuple(self._tasks.items()):
            for name, pool in tuple(mine.items()):
                pool.sweep(now)
                if not pool.all:
                    del mine[name]
            if not mine:
                del self._tasks[task]

    def _spare(self) -> bool:
        """Close the connection of any task that has been idle longest; return whether there was one."""
        if self._quota.free:  # it is the task that may have no more, and nobody else's connection is in its way
            return False
        idle = [pool.idle[0] for mine in self._tasks.values() for pool in mine.values() if pool.idle]
        if idle:
            min(idle, key=lambda upstream: upstream.idle_since).abort()
        return bool(idle)

    def close(self) -> None:
        """Close idle connections now, and others when they come back."""
        for mine in self._tasks.values():
            for pool in mine.values():
                pool.close()


class Moving(Protocol):
    """Something that moves under a grant, if that is known yet, and can be cut."""

    @property
    def grant(self) -> str | None: ...
    def cut(self, error: RemitError) -> None: ...
    def shut(self) -> None: ...  # in another thread: its connections, and nothing else


@dataclass(eq=False, repr=False)
class DataPlane:
    """The shared parts. ``now`` is the time of the last sweep, in seconds by a clock that never goes back."""

    broker: BrokerPort
    kinds: Mapping[str, Kind]
    routes: Routes
    pools: Pools
    new_id: NewId
    problems: str
    nonce: Callable[[], str] | None
    now: float = 0.0
    ask: Ask | None = None
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    tasks: set[asyncio.Task[object]] = field(default_factory=set)
    in_flight: set[Moving] = field(default_factory=set)
    ended: EndedGrants = field(default_factory=EndedGrants)
    patience: float = 10.0  # seconds that one of several servers has for its part of an answer,
    starting: float = 25.0  # and all of them for the first one, where a command is to start
    # by task: what its bodies take turns by, of which one at a time is authorized
    authorizing: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    def __post_init__(self) -> None:
        self.recorder = Recorder(self.broker, self.start, self.ask)
        self.turns = self.pools.turns
        self.pins = KnownPins(self.broker)
        self.new_request = map((self.new_id("req") + ".{:x}").format, itertools.count()).__next__  # unique, not secret

    def start(self, story: Coroutine[None, None, object]) -> None:
        """Run something beside what is read and written."""
        task = self.loop.create_task(story)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def judged(self, task: str, body: bytes, check_ended: Callable[[], None], work: Callable[[], V]) -> V:
        """Return what work on a body makes: at once, or beside the loop in its task's turn if that takes long."""
        if not heavy(body):
            return work()
        async with self.authorizing.setdefault(task, asyncio.Lock()):
            check_ended()
            return await self.loop.run_in_executor(_JUDGING, work)

    def beside(self, use: Use, body: bytes, work: Callable[[], V]) -> asyncio.Task[V]:
        """Begin work on a body of an answer, which fails as an answer does; nobody may wait for it to the end."""
        judge = partial(self.judged, use.task, body, partial(self.check_live, use.grant), work)
        judging = self.loop.create_task(self.pins.told(use.grant, use.resource, judge))
        judging.add_done_callback(lambda done: done.cancelled() or done.exception())
        return judging

    def check_live(self, grant_id: str) -> None:
        """Raise RevokedError if a grant has ended since its use was permitted."""
        if grant_id in self.ended:
            raise RevokedError

    def sever(self, grants: Collection[str]) -> None:
        """Shut the connections of all that moves under grants that were marked as ended; in any thread."""
        for moving in tuple(self.in_flight):
            if moving.grant in grants:
                moving.shut()

    def cut(self, error: RemitError, grants: Collection[str | None] | None = None) -> None:
        """Cut what moves under grants that have ended, or under all."""
        for moving in [moving for moving in self.in_flight if grants is None or moving.grant in grants]:
            self.in_flight.discard(moving)
            moving.cut(error)
