"""Whom a token is for: what was asked at the start, or less (RFC 8707 §2.2), and what its grant is for. Pure.

None is the broker as a whole. It holds the gateway, by its URL, and that each resource there: ``gateway/NAME``. What is
granted at a service elsewhere is for that service alone, by the URI that it is known by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from remit.core import spiffe
from remit.core.request import Binding
from remit.core.scope import ENDPOINT, Scope
from remit.errors import TargetError


@dataclass(frozen=True, slots=True)
class Service:
    """A resource server elsewhere, which verifies tokens by itself."""

    resource: str  # the name of what is granted there
    uri: str  # its resource identifier (RFC 8707 §2): the one audience of its tokens
    client: str = ""  # who introspects them, once it has authenticated: a client, or a pattern of workloads
    rsa: bool = False  # they are signed by RS256, as no other token is

    def is_served_by(self, client: str) -> bool:
        """Whether this is the client, or one of the workloads, that introspects its tokens."""
        patterns = (self.client,) if self.client.startswith(spiffe.SCHEMES) else ()
        return bool(client) and (client == self.client or spiffe.matches(client, patterns))


@dataclass(frozen=True, slots=True)
class Audiences:
    """All whom tokens can be for."""

    issuer: str
    gateway: str | None = None  # its URL
    services: Mapping[str, Service] = field(default_factory=dict)  # by the name of the resource

    @property
    def by_rsa(self) -> frozenset[str]:
        """Those whose tokens are signed by RS256."""
        return frozenset(one.uri for one in self.services.values() if one.rsa)

    def service(self, uri: str | None) -> Service | None:
        """Return the service that a URI names, with or without the slash that libraries add to it."""
        bare = (uri or "").removesuffix("/")
        return next((one for one in self.services.values() if one.uri.removesuffix("/") == bare), None)

    def of(self, resource: str) -> str | None:
        """Return whom a token for one resource alone is for; None: there is no gateway, and it is nowhere else."""
        if (elsewhere := self.services.get(resource)) is not None:
            return elsewhere.uri
        return None if self.gateway is None else f"{self.gateway}/{resource}"


def at_one_place(scope: Scope) -> str | None:
    """Return the one place at the gateway where all of a scope is reached: a resource, or the endpoint of MCP servers.

    None: there are several.
    """
    names = {detail.resource for detail in scope}
    if len(names) == 1:
        return names.pop()
    return ENDPOINT if names and is_of_servers(scope) else None


def is_of_servers(scope: Scope) -> bool:
    """Whether all of a scope is for MCP servers, which one endpoint has."""
    return all(detail.type == ENDPOINT for detail in scope)


def narrowed(meant: str | None, named: str | None, gateway: str | None) -> str | None:
    """Return whom a token is for that was ``meant`` for one audience, and is ``named`` for another: the same, or less.

    So it is for whatever is handed out once and redeemed later, and for every token of a family.
    """
    below = meant is not None and meant == gateway and (named or "").startswith(f"{gateway}/")
    if meant is not None and named != meant and not below:
        raise TargetError("this was asked for with another audience", help="ask for the same, for less, or for none")
    return named


def settled(audience: str | None, scope: Scope, binding: Binding, known: Audiences) -> str | None:
    """Return whom a token for a grant would be for; TargetError where none can be made for this audience.

    A grant has the whole broker, the gateway, and what its scope names there and elsewhere: each resource, and the
    endpoint of MCP servers if it has one. That of a bearer has one endpoint alone.
    """
    own = {known.of(detail.resource) for detail in scope}
    own |= {known.of(ENDPOINT) for detail in scope if detail.type == ENDPOINT}
    if binding.bearer is None:
        if audience not in {None, known.issuer, known.gateway} | own:
            raise TargetError("the grant is not for this audience", help="name a resource that is asked for, or none")
        return audience
    endpoint = known.of(binding.bearer)
    if endpoint is None or audience not in {None, endpoint, known.of(ENDPOINT) if is_of_servers(scope) else None}:
        raise TargetError("a bearer's token is for its one resource, or for all of its MCP servers, and nothing else")
    return audience or endpoint


def concerning(scope: Scope, audience: str | None, known: Audiences) -> Scope:
    """Return what a token for an audience tells of a grant's scope: to a service, what is granted there alone."""
    service = known.service(audience)
    return scope if service is None else tuple(one for one in scope if one.resource == service.resource)
