"""Hosts that a run reaches in TLS of its own, without a credential: package registries, public repositories.

What goes there is not read, so whatever a run knows can leave by it: a resource lists hosts, and a grant some of these.
"""

from __future__ import annotations

from collections.abc import Mapping

from remit.core import fields, orders, scope
from remit.core.addresses import is_address
from remit.core.scope import Field
from remit.core.secret import Secret
from remit.errors import InvalidRequestError
from remit.ports import Resource
from remit.ports.kind import EngineContext, Kind, TunnelAccess

HTTPS = 443
SCHEME = "egress:"
SETTINGS = frozenset({"at", "private"})


def hosts(destination: str) -> Mapping[str, object]:
    """Return the fields of the widest detail of a destination, `egress:host,*.host`."""
    listed = destination.removeprefix(SCHEME)
    if listed == destination:
        raise InvalidRequestError(f"a destination is {KIND.destination}")
    return {"hosts": listed.split(",")}


def _check(resource: Resource, secret: Secret | None, context: EngineContext) -> None:
    whole = scope.parse_detail({"type": resource.kind, "resource": resource.name, **hosts(resource.destination)})
    if not all(scope.detail_le(detail, whole) for detail in resource.bound):
        raise InvalidRequestError("`bound` has a host that the destination does not list")
    if secret is not None or resource.secret is not None:
        raise InvalidRequestError("what goes to these hosts is not read, so no secret can be put in")
    if unknown := sorted(resource.settings.keys() - SETTINGS):
        raise InvalidRequestError(f"`{unknown[0]}` is not a setting of this kind; there are {', '.join(SETTINGS)}")
    _place(resource, "")


def _place(resource: Resource, host: str) -> tuple[str, int, bool]:
    """Return where a host is reached: itself, or what the setting `at` says, `host[:port]`, for all of them."""
    from remit.gateway.target import read_destination

    at = resource.settings.get("at")
    if at is None:
        return host, HTTPS, fields.flag("private", resource.settings.get("private", False))
    there = read_destination(f"https://{fields.text('at', at)}")
    if there.base:
        raise InvalidRequestError("`at` is `host[:port]`")
    meant = there.host == "localhost" or is_address(there.host)  # who writes an address means it
    return there.host, there.port, fields.flag("private", resource.settings.get("private", meant))


KIND = Kind(
    name="egress",
    table={
        "actions": Field(orders.among("connect"), default=("connect",), label="may"),
        "hosts": Field(orders.HOSTS, required=True),
    },
    schemes=("egress",),
    destination="egress:host,*.host",
    docs="docs/reference/details.md#egress",
    check=_check,
    access=TunnelAccess("hosts", _place),
    keyless=True,
    widest=hosts,
)
