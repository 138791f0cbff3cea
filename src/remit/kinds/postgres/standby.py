"""A standby connection that ends leases when a lease has used up what the server has: room for locks, and connections.

Any role may take advisory locks until the server has no memory for one more (SQLSTATE 53200). From then on whoever
needs a lock in that memory fails: who logs in, who changes a role, who looks one up.

Rules:

- One connection is open before the first lease is issued, and holds advisory locks that mean nothing but their memory.
- One prepared statement gives them back and terminates the sessions of leases. It names no table, so that it needs no
  lock before it has given back its own; what it looks up then takes their place.
- The locks are exclusive, with keys by chance: nobody can share one and so keep its memory from being free.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from remit.kinds.postgres.connections import DRIVER_ERRORS, Connection, Connections, wrapped

if TYPE_CHECKING:
    from asyncpg.prepared_stmt import PreparedStatement

LOCKS = 256  # a server with the settings it comes with has room for some 20,000

_TAKE = """
SELECT pg_try_advisory_lock((random() * 2147483646)::int, n::int) FROM generate_series(1, $1 - (
  SELECT count(*) FROM pg_lock_status() WHERE locktype = 'advisory' AND pid = pg_backend_pid())) AS n
"""

# That all backends are listed depends on what giving back returned, so that giving back comes first.
_SPEND = """
WITH freed AS MATERIALIZED (SELECT pg_advisory_unlock_all()::text AS answer)
SELECT pg_terminate_backend(a.pid)
FROM freed, LATERAL pg_stat_get_activity(CASE WHEN freed.answer = 'never' THEN 0 END) AS a
WHERE a.usesysid IS NOT NULL AND pg_get_userbyid(a.usesysid)::text = ANY ($1::text[])
"""


class Standby:
    """A connection, and memory for locks, that are kept for ending leases."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._turn = asyncio.Lock()
        self._connection: Connection | None = None
        self._spend: PreparedStatement | None = None
        self._full = False

    async def hold(self) -> None:
        """Have the connection and all its locks, or raise EngineError."""
        if self._full and self._connection is not None and not self._connection.is_closed():
            return
        async with self._using() as connection:
            await connection.fetch(_TAKE, LOCKS)
            self._full = True

    async def put_out(self, roles: Sequence[str]) -> None:
        """Terminate the sessions that ``roles`` have now, spending the locks; EngineError when that fails."""
        async with self._using():
            self._full = False
            if self._spend is not None:
                await self._spend.fetch(list(roles))

    async def close(self) -> None:
        """Let go of the connection."""
        async with self._turn:
            self._drop()

    @asynccontextmanager
    async def _using(self) -> AsyncIterator[Connection]:
        """Lend the connection; an error that the server has told does not break it."""
        async with self._turn:
            try:
                if self._connection is None or self._connection.is_closed():
                    self._drop()
                    self._connection = connection = await self._connections.connect()
                    await connection.execute("SET plan_cache_mode = force_generic_plan")  # planned once, now
                    self._spend = await connection.prepare(_SPEND)
                    await self._spend.fetch([])
                yield self._connection
            except DRIVER_ERRORS as error:
                if not self._connections.survives(self._connection, error):
                    self._drop()
                raise wrapped(error) from error
            except BaseException:  # a statement that was cut short may still be running
                self._drop()
                raise

    def _drop(self) -> None:
        connection, self._connection, self._spend, self._full = self._connection, None, None, False
        if connection is not None and not connection.is_closed():
            connection.terminate()
