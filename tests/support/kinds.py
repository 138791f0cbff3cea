"""Kinds of resources for tests: those that ship, with an engine of the test's, and one whose details nothing serves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from remit.compose import kinds
from remit.core import orders, scope
from remit.core.scope import Field
from remit.core.secret import Secret
from remit.core.task import Plan
from remit.kinds.engines import HeldEngines
from remit.ports import Engine, Resource
from remit.ports.kind import EngineContext, Kind, LeaseRequest
from remit.ports.targets import EnginePort
from tests.support.link import edge_of

Make = Callable[[Resource, Secret | None], Engine]
Planner = Callable[[Resource, EngineContext, LeaseRequest], Plan]

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


def simulated(make: Make | None = None, plan: Planner | None = None) -> Mapping[str, Kind]:
    """Return the kinds, unchecked where they have an engine; ``make`` is that of databases, and there is no other.

    A lease of it is named after its id, unless ``plan`` says otherwise.
    """
    register()
    bare = [
        replace(kind, check=_unchecked, engine=None, plan=None) if kind.engine else kind
        for kind in kinds.BUILT_IN.values()
    ]
    found = {kind.name: kind for kind in (*bare, CALLS)}
    if make is not None:

        def named(resource: Resource, _: EngineContext, wanted: LeaseRequest) -> Plan:
            return planned(make(resource, None), wanted)

        engine = lambda resource, secret, _: make(resource, secret)  # noqa: E731 - of which there is one
        found["postgres"] = replace(found["postgres"], engine=engine, plan=plan or named)
    return found


def planned(engine: Engine, wanted: LeaseRequest) -> Plan:
    """Return the plan of a lease of an engine of the test's."""
    return Plan(f"remit_{wanted.id}", wanted.detail, {}, wanted.issue_by, engine.revocation)


def held(kinds: Mapping[str, Kind], context: EngineContext = NOTHING_LENT) -> Mapping[str, EnginePort]:
    """Return where the engines of kinds run: here, or at the other end of a link (`REMIT_LINK=loopback`)."""
    engines = edge_of(HeldEngines(kinds, context))
    return {name: engines for name, kind in kinds.items() if kind.engine is not None}


def serving(make: Make, plan: Planner | None = None) -> dict[str, Any]:
    """Return what a broker takes of kinds and engines, where ``make`` is that of databases."""
    found = simulated(make, plan)
    return {"kinds": found, "engines": held(found), "context": NOTHING_LENT}
