"""What each grant may reach, compiled: its rules for a resource, and what was found out about equal requests."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from remit.catalog import Provider
from remit.core.principal import GrantView
from remit.errors import DeniedError, ScopeError
from remit.gateway.authorize import Permit, Rules, compile_rules
from remit.gateway.target import HttpTarget
from remit.ports.broker import BrokerPort
from remit.ports.credential import SourceOf
from remit.ports.kind import GatewayAccess, Kind

K = TypeVar("K")
V = TypeVar("V")

ONE = 4_096  # bytes of a key: what is longer is not kept
ALL = 65_536  # bytes of all keys; what they stand for is a few times as large
MAX_LEAKS = 3  # answers that repeated a credential, before the grant is suspended
_ENTRY = 128  # bytes that a key counts for at least
_ROUTES = 1_024
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
    """A grant's rules for one resource.

    ``known`` are permits of requests without a body, by what alone they hang on: method, target and header section.
    """

    view: GrantView
    rules: Rules
    target: HttpTarget
    known: BoundedCache[tuple[str, bytes, bytes], Permit]


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
