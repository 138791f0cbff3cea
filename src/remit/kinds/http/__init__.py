"""HTTP APIs: used through the gateway, which puts the key in; nothing is issued."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from remit import catalog
from remit.core import orders
from remit.core.scope import Field
from remit.core.secret import Secret
from remit.ports import Resource
from remit.ports.kind import EngineContext, GatewayAccess, Kind

GENERIC = "generic"  # the provider whose placeholder has no shape of its own


def _check(resource: Resource, secret: Secret | None, context: EngineContext) -> None:
    from remit.gateway import target

    target.check(resource, secret)


def _placeholder(resource: Resource, random: bytes) -> str:
    known = catalog.load()
    return catalog.placeholder(known.get(_provider(resource), known[GENERIC]), random)


def _variables(resource: Resource, url: str, placeholder: str) -> Mapping[str, str]:
    provider = catalog.load().get(_provider(resource))
    return {} if provider is None else catalog.environment(provider, url, placeholder)


def _hosts(resource: Resource) -> Mapping[str, str]:
    """Return the host of a resource; of one that stands in for its provider, all of the provider's."""
    from remit.gateway.target import public, read_destination

    at, known = read_destination(resource.destination), catalog.load().get(_provider(resource))
    if known is not None and known.destination is not None and at.host not in known.hosts:
        return dict.fromkeys(known.hosts, urlsplit(known.destination).path)
    return public(resource.destination)


def _provider(resource: Resource) -> str:
    return str(resource.settings.get("provider", GENERIC))


KIND = Kind(
    name="http",
    table={
        "actions": Field(orders.METHODS, required=True, label="may"),
        "paths": Field(orders.PATHS, required=True),
        "args": Field(orders.ARGS, default=(), label="argument"),
        "ttl": Field(orders.SECONDS, label="each credential for"),
        "uses": Field(orders.AT_MOST, label="times, at most"),
    },
    schemes=("https", "http"),
    destination="https://host[:port][/base] (http:// on this machine)",
    docs="docs/reference/details.md#http",
    check=_check,
    access=GatewayAccess(_placeholder, _variables, _hosts),
)
