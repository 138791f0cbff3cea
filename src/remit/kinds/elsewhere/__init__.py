"""A resource server elsewhere: it is shown tokens of its own, and decides by the details in them (RFC 9396).

What the words of a detail mean, the service says; that a child has no more of them than its parent, the orders do.
"""

from __future__ import annotations

from remit.core import orders
from remit.core.scope import Field
from remit.core.secret import Secret
from remit.errors import InvalidRequestError
from remit.ports import Resource
from remit.ports.kind import ElsewhereAccess, EngineContext, Kind

SCHEME = "elsewhere:"
SETTINGS = frozenset({"bearer"})


def _uri(resource: Resource) -> str:
    return resource.destination.removeprefix(SCHEME)


def _check(resource: Resource, secret: Secret | None, context: EngineContext) -> None:
    uri = _uri(resource)
    if uri == resource.destination or "://" not in uri or "#" in uri:
        raise InvalidRequestError(f"a destination is {KIND.destination}, the URI that the configuration names")
    if secret is not None or resource.secret is not None:
        raise InvalidRequestError("a service verifies tokens by public keys, so there is no secret to keep")
    if unknown := sorted(resource.settings.keys() - SETTINGS):
        raise InvalidRequestError(f"`{unknown[0]}` is not a setting of this kind; there is `bearer`")
    if not isinstance(resource.settings.get("bearer", False), bool):
        raise InvalidRequestError("`bearer` must be true or false")


KIND = Kind(
    name="elsewhere",
    table={
        "actions": Field(orders.WORDS, required=True, label="may"),
        "datatypes": Field(orders.WORDS, label="on"),
        "locations": Field(orders.WORDS, label="at"),
        "privileges": Field(orders.WORDS, label="as"),
    },
    schemes=("elsewhere",),
    destination="elsewhere:https://host/path",
    docs="docs/reference/details.md#elsewhere",
    check=_check,
    access=ElsewhereAccess(_uri),
    keyless=True,
)
