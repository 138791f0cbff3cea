"""What adding a PostgreSQL resource checks: the broker's login, and what the database gives everybody."""

from __future__ import annotations

from collections.abc import Sequence

from remit.core.scope import Detail
from remit.engines.postgres_link import Connection
from remit.ports import Finding


async def inspect(connection: Connection, bound: Sequence[Detail]) -> Sequence[Finding]:
    """Return findings; none means that the resource is fit."""
    return ()
