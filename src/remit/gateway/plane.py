"""What all connections of a gateway share: what each grant may reach, what is on record, what is in flight."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar
from weakref import WeakValueDictionary

from remit.catalog import Provider
from remit.core.principal import GrantView
from remit.core.scope import Access
from remit.errors import DeniedError, RemitError, RevokedError, ScopeError, UnavailableError
from remit.gateway.authorize import Permit, Rules, compile_rules
from remit.gateway.pools import Pools
from remit.gateway.response import TaskTurns
from remit.gateway.target import HttpTarget
from remit.ports import NewId
from remit.ports.broker import BrokerPort, Outcome, Use
from remit.ports.credential import SourceOf
from remit.ports.kind import GatewayAccess, Kind

K = TypeVar("K")
V = TypeVar("V")

ONE = 4_096  # bytes of a key: what is longer is not kept
ALL = 65_536  # bytes of all keys; what they stand for is a few times as large
MAX_LEAKS = 3  # answers that repeated a credential, before the grant is suspended
_ENTRY = 128  # bytes that a key counts for at least
_ROUTES = 1_024
FLUSH = 0.01  # seconds that outcomes wait for each other
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
    known: BoundedCache[tuple[str, bytes, bytes], Permit]  # without a body, by method, target and header section


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

    def of(self, grant_id: str, name: str) -> GrantRoute | None:
        """Return a grant's route to a resource if it is compiled. ``use`` looks whether the grant is live."""
        route = self._routes.get((grant_id, name))
        if route is not None and self._suspended:
            self._check_suspended(route.view)
        return route

    async def compiled(self, grant_id: str, name: str) -> GrantRoute:
        """Compile a grant's route to a resource."""
        view = await self.live(grant_id)
        rules = compile_rules(view.grant.scope, name)
        if not rules:
            raise ScopeError(f"the grant does not cover `{name}`")  # the same for what does not exist
        found = await self._broker.target(name)
        if not isinstance(self._kinds[found.resource.kind].access, GatewayAccess):
            raise ScopeError(f"`{name}` is not reached through the gateway")
        target = self._targets.get(name)
        if target is None or target.version != found.version:
            provider = found.resource.settings.get("provider")
            known = self._providers.get(provider) if isinstance(provider, str) else None
            target = HttpTarget(found.resource, known, self._source_of(found.resource), found.version)
            self._targets[name] = target
        if len(self._routes) >= _ROUTES:
            self._routes.clear()
        self._routes[grant_id, name] = route = GrantRoute(view, rules, target, BoundedCache())
        return route

    async def live(self, grant_id: str) -> GrantView:
        """Return a grant that is live and not suspended."""
        view = await self._broker.grant(grant_id)
        self._check_suspended(view)
        return view

    def _check_suspended(self, view: GrantView) -> None:
        if self._suspended and not self._suspended.isdisjoint(step.grant for step in view.lineage):
            raise DeniedError("the grant is suspended: answers to it repeated the credential too often")

    def leaked(self, grant: str | None, principal: str | None, resource: str) -> None:
        """Raise the alarm about an answer that repeated a credential; suspend a grant to which that happens often."""
        _log.warning("an answer of %s under %s repeated the credential and was withheld", resource, grant)
        for holder in filter(None, {grant, principal}):
            self._leaks[holder] = self._leaks.get(holder, 0) + 1
            if self._leaks[holder] >= MAX_LEAKS:
                self._suspended.add(holder)

    def forget(self, grants: frozenset[str], resources: frozenset[str]) -> None:
        """Forget the routes of grants that have ended, and to resources that have changed."""
        for grant, name in [key for key in self._routes if key[0] in grants or key[1] in resources]:
            del self._routes[grant, name]


class Moving(Protocol):
    """Something that moves under a grant and can be cut."""

    @property
    def grant(self) -> str | None:
        """The grant, if it is known yet."""

    def cut(self, error: RemitError) -> None:
        """End it at once."""


@dataclass(eq=False, repr=False)
class Recorder:
    """Uses, denials and outcomes on their way to the broker. What cannot be recorded is not let through."""

    _broker: BrokerPort
    _start: Callable[[Coroutine[None, None, object]], None]
    _ended: list[Outcome] = field(default_factory=list)
    _flusher: asyncio.TimerHandle | None = None
    _written: bool = True  # as far as was seen; one line in the log says that it is not

    async def use(self, grant_id: str, access: Access, request: str, index: int) -> Use:
        """Have one use permitted, or raise; UnavailableError for a failure that is not remit's own."""
        try:
            return await self._broker.use(grant_id, access, request, index)
        except RemitError:
            raise
        except Exception as failure:
            raise self._failed(failure) from failure

    async def deny(
        self, grant_id: str | None, access: Access, error: RemitError, request: str, cause: str | None = None
    ) -> RemitError:
        """Record a denial; return what the caller is told: UnavailableError when it could not be recorded."""
        try:
            await self._broker.deny(grant_id, access, error, request, cause)
        except Exception as failure:  # noqa: BLE001 - whatever a store does, the caller gets an answer
            return self._failed(failure)
        self._written = True
        return error

    def outcome(self, use: Use, decision: str, code: str | None, action: str | None = None) -> None:
        """Take note of how a use ended. Outcomes share a commit: each alone would hold up the next request's entry."""
        self._ended.append(Outcome(use, decision, code, action))
        if self._flusher is None:
            self._flusher = asyncio.get_running_loop().call_later(FLUSH, self._flush)

    def close(self) -> bool:
        """Record now what waits; return whether there was anything."""
        if self._flusher is None:
            return False
        self._flusher.cancel()
        self._flush()
        return True

    def _flush(self) -> None:
        self._flusher = None
        self._start(self._flushed())

    async def _flushed(self) -> None:
        ended, self._ended = self._ended, []
        try:
            await self._broker.outcomes(ended)
        except Exception as failure:  # noqa: BLE001 - the uses are on record, and nobody waits for this
            self._failed(failure)
        else:
            self._written = True

    def _failed(self, failure: Exception) -> UnavailableError:
        if self._written:
            known = isinstance(failure, RemitError)
            what = failure.code if isinstance(failure, RemitError) else type(failure).__name__
            _log.error(
                "nothing can be recorded, so requests are refused: %s", what, exc_info=None if known else failure
            )
        self._written = False
        return UnavailableError("nothing can be recorded now, so the request was refused", retry_after=1)


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
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    tasks: set[asyncio.Task[object]] = field(default_factory=set)
    in_flight: set[Moving] = field(default_factory=set)
    # by task: what its bodies take turns by, of which one at a time is authorized
    authorizing: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    def __post_init__(self) -> None:
        self.recorder = Recorder(self.broker, self.start)
        self.turns = TaskTurns(self.loop)
        self.new_request = map((self.new_id("req") + ".{:x}").format, itertools.count()).__next__  # unique, not secret

    def start(self, story: Coroutine[None, None, object]) -> None:
        """Run something beside what is read and written."""
        task = self.loop.create_task(story)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def cut(self, grants: Collection[str | None] | None = None) -> None:
        """Cut what moves under grants that have ended, or under all."""
        for moving in [moving for moving in self.in_flight if grants is None or moving.grant in grants]:
            self.in_flight.discard(moving)
            moving.cut(RevokedError())
