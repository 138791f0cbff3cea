"""Kinds of resources for tests: those that ship, with an engine of the test's, and one whose details nothing serves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from remit.compose import kinds
from remit.core import orders, scope
from remit.core.scope import Field
from remit.core.secret import Secret
from remit.ports import Engine, Resource
from remit.ports.kind import EngineContext, Kind

NOTHING_LENT: Any = None  # to kinds whose engines need nothing of the broker


def _unchecked(resource: Resource, secret: Secret | None, context: EngineContext) -> None:
    """Accept every resource."""


CALLS = Kind(
    name="calls",
    table={
        "actions": Field(orders.among("tools/call", "tools/list"), required=True, label="may"),
        "tools": Field(orders.TOOLS, required=True),
        "ttl": Field(orders.SECONDS),
        "uses": Field(orders.AT_MOST, label="times, at most"),
    },
    schemes=("calls",),
    destination="calls://name",
    docs="",
    check=_unchecked,
)


def register() -> None:
    """Make the details of all of them known to this process."""
    kinds.known()
    scope.register(CALLS.name, CALLS.table)


def simulated(make: Callable[[Resource, Secret | None], Engine] | None = None) -> Mapping[str, Kind]:
    """Return the kinds, unchecked where they have an engine; ``make`` is that of databases, and there is no other."""
    register()
    bare = [replace(kind, check=_unchecked, engine=None) if kind.engine else kind for kind in kinds.BUILT_IN.values()]
    found = {kind.name: kind for kind in (*bare, CALLS)}
    if make is not None:
        found["postgres"] = replace(found["postgres"], engine=lambda resource, secret, _: make(resource, secret))
    return found
