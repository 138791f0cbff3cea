"""Batches of issues: lease roles made in small batches, one transaction and one round trip for all that wait.

Why batches. PostgreSQL lets one transaction at a time join members to a role, so issues on one table queue in any case;
queueing here lets one commit serve them all.

Why creators. Whoever creates a role without being superuser becomes its administrator, and PostgreSQL walks all the
roles one administers at each further step: one login with 6,000 leases makes 200 a second. So leases are made in turn
by creator roles ``remit_m_<database>_<key>``, which cannot log in, hold no data, and administer at most
``PER_CREATOR``.

Rules:

- The server, not we, refuses after the deadline: the last statement before the commit compares its clock.
- Each batch compares every bundle it joins with its plan, in the same transaction.
- A batch that fails leaves nothing. What can be told to have left nothing is tried again smaller, so that one bad
  lease fails alone; a broken connection fails its whole batch, because nobody knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from remit.core.scope import Detail
from remit.errors import EngineError
from remit.kinds.postgres.bundle import CHECK, Bundle, ensure
from remit.kinds.postgres.connections import DRIVER_ERRORS, Connection, Connections, code, names, quoted, wrapped

BATCH = 64
PER_CREATOR = 128
CONNECTIONS = 10  # of one lease at a time
MARGIN = timedelta(milliseconds=250)  # between the last look at the clock and the commit
ATTEMPTS = 4
MAX_BUNDLES = 1_024  # remembered; a forgotten one is looked up again

_CHANGED = "22012"  # division by zero: a bundle is not as planned
_LATE = "2201F"  # square root of a negative number: after the deadline
_AGAIN = frozenset({_CHANGED, "42704", "0LP01", "XX000", "40P01", "55P03"})  # others changed roles at the same time

# One plan for the check, made once, that stays right when there are ten thousand roles: planning costs 4x running.
_SESSION = (
    "SET createrole_self_grant = ''; SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET jit = off"
)
_PREPARE = f"PREPARE remit_check (oid, oid[], oid[], text) AS SELECT 1 / coalesce(({CHECK}) = $4, false)::int"
CREATOR_LOCKS = 0x72656D6D  # "remm": advisory locks that say a creator is in use, by its key

_OWN = "SELECT 'remit_m_' || oid FROM pg_database WHERE datname = current_database()"

# Creators of this database and login that administer nothing but bundles.
_EMPTY = """
SELECT m.rolname FROM pg_roles m
WHERE m.rolname LIKE $1 ESCAPE '!' AND ($2::text IS NULL OR m.rolname = $2)
  AND EXISTS (SELECT FROM pg_auth_members a JOIN pg_roles u ON u.oid = a.member
              WHERE a.roleid = m.oid AND u.rolname = session_user)
  AND NOT EXISTS (SELECT FROM pg_auth_members a JOIN pg_roles r ON r.oid = a.roleid
                  WHERE a.member = m.oid AND r.rolname NOT LIKE 'remit!_b!_%' ESCAPE '!')
"""


@dataclass(frozen=True, slots=True)
class PlannedRole:
    """One lease to make. ``verifier`` is what the server stores for its password."""

    role: str
    verifier: str
    detail: Detail
    expires_at: datetime
    issue_by: datetime
    done: asyncio.Future[None]


class LeaseBatches:
    """Makes lease roles on one connection of its own."""

    def __init__(self, connections: Connections, clock: Callable[[], datetime], random: Callable[[int], bytes]) -> None:
        self._connections, self._clock, self._random = connections, clock, random
        self._busy, self._looking = asyncio.Lock(), asyncio.Lock()
        self._waiting: list[PlannedRole] = []
        self._task: asyncio.Task[None] | None = None
        self._bundles: dict[Detail, Bundle] = {}
        self._connection: Connection | None = None
        self._skew = timedelta()
        self._creator: str | None = None
        self._made = 0
        self._joined: set[int] = set()  # oids of the bundles that the present creator administers

    async def make(self, planned: PlannedRole) -> None:
        """Make one lease role, with whatever others wait; return when it is committed, or raise EngineError."""
        async with asyncio.timeout(self._remaining(planned.issue_by)):
            await self._bundle(planned.detail)
        self._waiting.append(planned)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        await planned.done

    async def rest(self) -> None:
        """Drop the present creator when it has no leases, so that an idle resource keeps no roles of ours."""
        async with self._busy:
            if self._creator is None or self._connection is None or self._connection.is_closed() or self._waiting:
                return
            creator, self._creator = self._creator, None
            try:
                await self._connection.execute("RESET ROLE; SELECT pg_advisory_unlock_all()")
                await drop_empty(self._connection, creator)
            except DRIVER_ERRORS as error:
                self._drop()
                raise wrapped(error) from error

    async def close(self) -> None:
        """Fail what waits, leave no empty creator behind, let go of the connection."""
        waiting, self._waiting = self._waiting, []
        _fail(waiting, EngineError("remit is stopping"))
        with suppress(EngineError):
            await self.rest()
        self._drop()

    def _remaining(self, issue_by: datetime) -> float:
        remaining = (issue_by - self._clock()).total_seconds()
        if remaining <= 0:
            raise EngineError("there was no time left to issue")
        return remaining

    async def _run(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            async with self._busy:
                await self._serve([planned for planned in batch if not planned.done.done()])

    async def _serve(self, batch: Sequence[PlannedRole]) -> None:
        """Settle every planned of a batch, whatever happens."""
        try:
            await self._attempt(batch)
        except EngineError as error:
            _fail(batch, error)
        except DRIVER_ERRORS as error:
            self._drop()
            _fail(batch, wrapped(error))
        except BaseException:
            self._drop()
            _fail(batch, EngineError("issuing was interrupted"))
            raise

    async def _attempt(self, batch: Sequence[PlannedRole], tries: int = 1) -> None:
        if not batch:
            return
        try:
            deadline = min(planned.issue_by for planned in batch)
            async with asyncio.timeout(self._remaining(deadline)):
                bundles = {planned.detail: await self._bundle(planned.detail) for planned in batch}
                connection = await self._ready(len(batch), bundles.values())
                await connection.execute(self._script(batch, bundles, deadline))
            self._made += len(batch)
        except asyncpg.PostgresError as error:
            if self._connection is None or self._connection.is_closed():
                raise
            await self._recover(batch, error, tries)
        else:
            for planned in batch:
                if not planned.done.done():
                    planned.done.set_result(None)

    async def _recover(self, batch: Sequence[PlannedRole], error: asyncpg.PostgresError, tries: int) -> None:
        """Deal with a transaction that was rolled back: each planned alone, and that a few times if it may help."""
        self._creator = None  # it may be what is wrong
        for planned in batch:
            self._bundles.pop(planned.detail, None)
        if len(batch) > 1:
            for planned in batch:
                await self._serve([planned])
        elif code(error) == _LATE:
            raise EngineError("there was no time left to issue") from error
        elif code(error) in _AGAIN and tries < ATTEMPTS:
            await self._attempt(batch, tries + 1)
        else:
            raise wrapped(error) from error

    async def _bundle(self, detail: Detail) -> Bundle:
        if detail not in self._bundles:
            async with self._looking:
                if detail not in self._bundles:  # others may have waited for the same
                    found = await self._connections.transaction(lambda connection: ensure(connection, detail))
                    if len(self._bundles) >= MAX_BUNDLES:
                        self._bundles.clear()
                    self._bundles[detail] = found
        return self._bundles[detail]

    async def _ready(self, count: int, bundles: Collection[Bundle]) -> Connection:
        """Return the connection, acting as a creator that has room for ``count`` and may join all ``bundles``."""
        connection = self._connection
        if connection is None or connection.is_closed():
            self._creator = None
            self._connection = connection = await self._connections.connect()
            await connection.execute(f"{_SESSION}; {_PREPARE}")
            await drop_empty(connection)
        if self._creator is None or self._made + count > PER_CREATOR:
            key = int.from_bytes(self._random(4), "big") >> 1
            creator = f"{await connection.fetchval(_OWN)}_{key:08x}"
            self._skew = await self._connections.skew(connection)  # anew now and then: clocks drift, machines sleep
            await connection.execute(  # its lock, held from now on, says that it lives, however empty it is
                f"RESET ROLE; SELECT pg_advisory_unlock_all(); SELECT pg_advisory_lock_shared({CREATOR_LOCKS}, {key}); "
                f"SET LOCAL createrole_self_grant = 'set'; CREATE ROLE {quoted(creator)} NOLOGIN CREATEROLE NOINHERIT; "
                f"SET ROLE {quoted(creator)}"
            )
            self._creator, self._made, self._joined = creator, 0, set()
        missing = {bundle.oid: bundle.name for bundle in bundles if bundle.oid not in self._joined}
        if missing:
            creator = quoted(self._creator or "")
            grant = f"GRANT {names(missing.values())} TO {creator} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE"
            await connection.execute(f"RESET ROLE; {grant}; SET ROLE {creator}")
            self._joined |= missing.keys()
        return connection

    def _script(self, batch: Sequence[PlannedRole], bundles: dict[Detail, Bundle], deadline: datetime) -> str:
        joins: dict[Bundle, list[str]] = {}
        for planned in batch:
            joins.setdefault(bundles[planned.detail], []).append(planned.role)
        checks = [f"EXECUTE remit_check ({b.oid}, {_oids(b.tables)}, {_oids(b.schemas)}, '{b.digest}')" for b in joins]
        skew = timedelta(seconds=round(self._skew.total_seconds()))
        creates = [
            f"CREATE ROLE {quoted(planned.role)} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS "
            f"INHERIT CONNECTION LIMIT {CONNECTIONS} PASSWORD '{planned.verifier}' "
            f"VALID UNTIL '{(planned.expires_at + skew).isoformat()}'"
            for planned in batch
        ]
        terms = "WITH INHERIT TRUE, SET FALSE, ADMIN FALSE"
        grants = [f"GRANT {quoted(b.name)} TO {names(roles)} {terms}" for b, roles in joins.items()]
        last = (deadline + self._skew - MARGIN).isoformat()
        in_time = f"SELECT sqrt(extract(epoch FROM timestamptz '{last}' - clock_timestamp())::float8)"
        return "; ".join([*checks, *creates, *grants, in_time])

    def _drop(self) -> None:
        connection, self._connection, self._creator = self._connection, None, None
        if connection is not None and not connection.is_closed():
            connection.terminate()


def _oids(oids: Sequence[int]) -> str:
    return "'{" + ",".join(str(oid) for oid in oids) + "}'"


def _fail(batch: Sequence[PlannedRole], error: EngineError) -> None:
    for planned in batch:
        if not planned.done.done():
            planned.done.set_exception(error)


async def drop_empty(connection: Connection, creator: str | None = None) -> None:
    """Drop the creators (or that one) without leases that no engine is using; leave what others just touched."""
    own = await connection.fetchval(_OWN)
    pattern = f"{own.replace('_', '!_')}!_%"
    for row in await connection.fetch(_EMPTY, pattern, creator):
        name = row["rolname"]
        key = int(name.rpartition("_")[2], 16)
        with suppress(asyncpg.PostgresError):
            async with connection.transaction():
                # An engine may have made a lease and let go of its creator since the look above: only under the lock is
                # empty for good. A lease whose creator is gone could be dropped by nobody but a superuser.
                locked = await connection.fetchval("SELECT pg_try_advisory_xact_lock($1, $2)", CREATOR_LOCKS, key)
                if locked and await connection.fetch(_EMPTY, pattern, name):
                    await connection.execute(f"SET LOCAL lock_timeout = 100; DROP ROLE IF EXISTS {quoted(name)}")
