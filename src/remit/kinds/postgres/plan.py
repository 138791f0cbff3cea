"""What a lease is to be, as the authority writes it down before a database is asked: nothing here knows a driver.

``lower`` translates a detail and compares nothing: ``core.scope`` alone compares authority.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from remit.core.scope import Detail
from remit.core.task import Plan, Revocation
from remit.errors import InvalidRequestError, UnknownDetailError
from remit.ports import Resource
from remit.ports.kind import EngineContext, LeaseRequest

VERBS = {"select": "SELECT", "insert": "INSERT", "update": "UPDATE", "delete": "DELETE"}
_LEASE = re.compile(r"[A-Za-z0-9_-]{1,50}")


@dataclass(frozen=True, slots=True)
class Power:
    """What one table may suffer: verbs on all of it when ``columns`` is None, else on those columns."""

    schema: str
    table: str
    verbs: tuple[str, ...]
    columns: tuple[str, ...] | None

    def privileges(self, columns: Sequence[str]) -> str:
        """Return the verbs as GRANT takes them; ``columns`` are its columns, quoted."""
        within = f" ({', '.join(columns)})" if columns else ""
        return ", ".join(f"{verb}{within}" for verb in self.verbs)


def lower(detail: Detail) -> tuple[Power, ...]:
    """Translate a detail into PostgreSQL's terms, or raise UnknownDetailError."""
    if detail.type != "postgres":
        raise UnknownDetailError("this resource takes details of type `postgres` only")
    actions = detail.texts("actions")
    columns = detail.get("columns")
    limited: dict[str, tuple[str, ...]] = dict(columns) if isinstance(columns, tuple) else {}
    if limited and "delete" in actions:
        raise UnknownDetailError("`columns` cannot limit `delete`", help="ask for `delete` in a detail of its own")
    verbs = tuple(VERBS[action] for action in actions)
    split = [(table, table.partition(".")) for table in detail.texts("tables")]
    return tuple(Power(schema, name, verbs, limited.get(table)) for table, (schema, _, name) in split)


def plan(resource: Resource, context: EngineContext, wanted: LeaseRequest) -> Plan:
    """Name the role after the lease; InvalidRequestError or UnknownDetailError when that is impossible."""
    if not _LEASE.fullmatch(wanted.id):
        raise InvalidRequestError("the id of a lease is letters, digits, `_` and `-`")
    lower(wanted.detail)
    undo = {"destination": resource.destination, "role": f"remit_{wanted.id}"}
    return Plan(f"remit_{wanted.id}", wanted.detail, undo, wanted.issue_by, Revocation.BY_NAME)
