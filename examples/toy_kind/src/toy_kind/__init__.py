"""Cabinets: a lease is a key, which is a file in the cabinet's folder while the lease lives.

Everything that is particular to the kind is here and in ``engine``, which is imported when the first lease is made.
"""

from __future__ import annotations

from pathlib import Path

from remit.core import orders
from remit.core.scope import Field
from remit.core.secret import Secret
from remit.core.task import Plan, Revocation
from remit.errors import InvalidRequestError
from remit.ports import Engine, Resource
from remit.ports.kind import EngineContext, Kind, LeaseRequest


def folder(resource: Resource) -> Path:
    """Return where the keys are, or raise InvalidRequestError."""
    scheme, _, path = resource.destination.partition("://")
    if scheme != "toy" or not Path(path).is_absolute():
        raise InvalidRequestError("a destination is toy:///absolute/folder")
    return Path(path)


def _check(resource: Resource, secret: Secret | None, context: EngineContext) -> None:
    folder(resource)
    if resource.settings or secret is not None:
        raise InvalidRequestError("a cabinet has neither settings nor a secret")


def _engine(resource: Resource, secret: Secret | None, context: EngineContext) -> Engine:
    from toy_kind.engine import CabinetEngine

    return CabinetEngine(folder(resource), context.clock, context.random)


def _plan(resource: Resource, context: EngineContext, wanted: LeaseRequest) -> Plan:
    """Name the key after its lease; a plan is written down where no engine is."""
    undo = {"folder": str(folder(resource))}
    return Plan(f"key_{wanted.id}", wanted.detail, undo, wanted.issue_by, Revocation.BY_NAME)


KIND = Kind(
    name="toy",
    table={
        "actions": Field(orders.among("look", "take"), required=True, label="may"),
        "drawers": Field(orders.PATHS, required=True),
        "ttl": Field(orders.SECONDS, label="each key for"),
    },
    schemes=("toy",),
    destination="toy:///folder",
    docs="https://cabinets.example/remit",
    check=_check,
    engine=_engine,
    plan=_plan,
    keyless=True,
)
