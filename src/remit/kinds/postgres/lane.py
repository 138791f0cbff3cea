"""The issuing lane: lease roles made in small batches, one transaction and one round trip for all that wait.

Why a lane. PostgreSQL lets one transaction at a time join members to a role, so issues on one table queue in any case;
queueing here lets one commit serve them all.

Why makers. Whoever creates a role without being superuser becomes its administrator, and PostgreSQL walks all the
roles one administers at each further step: one login with 6,000 leases makes 200 a second. So leases are made in turn
by maker roles ``remit_m_<database>_<key>``, which cannot log in, hold no data, and administer at most ``PER_MAKER``.

Rules:

- The server, not we, refuses after the deadline: the last statement before the commit compares its clock.
- Each batch compares every bundle it joins with its plan, in the same transaction.
- A batch that fails leaves nothing. What can be told to have left nothing is tried again smaller, so that one bad
  lease fails alone; a broken connection fails its whole batch, because nobody knows.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from remit.core.scope import Detail
from remit.errors import EngineError
from remit.kinds.postgres.bundle import CHECK, Bundle, ensure
from remit.kinds.postgres.link import DRIVER_ERRORS, Connection, Link, code, names, quoted, wrapped
from remit.kinds.postgres.makers import MAKER_LOCKS, drop_empty, maker_name

BATCH = 64
PER_MAKER = 128
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


@dataclass(frozen=True, slots=True)
class Order:
    """One lease to make. ``verifier`` is what the server stores for its password."""

    role: str
    verifier: str
    detail: Detail
    expires_at: datetime
    issue_by: datetime
    done: asyncio.Future[None]


class Lane:
    """Makes lease roles on one connection of its own."""

    def __init__(self, link: Link, clock: Callable[[], datetime], random: Callable[[int], bytes]) -> None:
        """Start empty: the connection is opened by the first order."""
        self._link = link
        self._clock = clock
        self._random = random
        self._busy = asyncio.Lock()
        self._looking = asyncio.Lock()
        self._waiting: list[Order] = []
        self._task: asyncio.Task[None] | None = None
        self._bundles: dict[Detail, Bundle] = {}
        self._connection: Connection | None = None
        self._skew = timedelta()
        self._maker: str | None = None
        self._made = 0
        self._joined: set[int] = set()  # oids of the bundles that the present maker administers

    async def make(self, order: Order) -> None:
        """Make one lease role, with whatever others wait; return when it is committed, or raise EngineError."""
        async with asyncio.timeout(self._remaining(order.issue_by)):
            await self._bundle(order.detail)
        self._waiting.append(order)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        await order.done

    async def rest(self) -> None:
        """Drop the present maker when it has no leases, so that an idle resource keeps no roles of ours."""
        async with self._busy:
            if self._maker is None or self._connection is None or self._connection.is_closed() or self._waiting:
                return
            maker, self._maker = self._maker, None
            try:
                await self._connection.execute("RESET ROLE; SELECT pg_advisory_unlock_all()")
                await drop_empty(self._connection, maker)
            except DRIVER_ERRORS as error:
                self._drop()
                raise wrapped(error) from error

    async def close(self) -> None:
        """Fail what waits, leave no empty maker behind, let go of the connection."""
        waiting, self._waiting = self._waiting, []
        _fail(waiting, EngineError("remit is stopping"))
        with contextlib.suppress(EngineError):
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
                await self._serve([order for order in batch if not order.done.done()])

    async def _serve(self, batch: Sequence[Order]) -> None:
        """Settle every order of a batch, whatever happens."""
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

    async def _attempt(self, batch: Sequence[Order], tries: int = 1) -> None:
        if not batch:
            return
        try:
            await self._commit(batch)
        except asyncpg.PostgresError as error:
            if self._connection is None or self._connection.is_closed():
                raise
            await self._recover(batch, error, tries)
        else:
            for order in batch:
                if not order.done.done():
                    order.done.set_result(None)

    async def _recover(self, batch: Sequence[Order], error: asyncpg.PostgresError, tries: int) -> None:
        """Deal with a transaction that was rolled back: each order alone, and that a few times if it may help."""
        self._maker = None  # it may be what is wrong
        for order in batch:
            self._bundles.pop(order.detail, None)
        if len(batch) > 1:
            for order in batch:
                await self._serve([order])
        elif code(error) == _LATE:
            raise EngineError("there was no time left to issue") from error
        elif code(error) in _AGAIN and tries < ATTEMPTS:
            await self._attempt(batch, tries + 1)
        else:
            raise wrapped(error) from error

    async def _commit(self, batch: Sequence[Order]) -> None:
        deadline = min(order.issue_by for order in batch)
        async with asyncio.timeout(self._remaining(deadline)):
            bundles = {order.detail: await self._bundle(order.detail) for order in batch}
            connection = await self._ready(len(batch), bundles.values())
            await connection.execute(self._script(batch, bundles, deadline))
        self._made += len(batch)

    async def _bundle(self, detail: Detail) -> Bundle:
        if detail not in self._bundles:
            async with self._looking:
                if detail not in self._bundles:  # others may have waited for the same
                    found = await self._link.transaction(lambda connection: ensure(connection, detail))
                    if len(self._bundles) >= MAX_BUNDLES:
                        self._bundles.clear()
                    self._bundles[detail] = found
        return self._bundles[detail]

    async def _ready(self, count: int, bundles: Collection[Bundle]) -> Connection:
        """Return the lane's connection, acting as a maker that has room for ``count`` and may join all ``bundles``."""
        connection = self._connection
        if connection is None or connection.is_closed():
            connection = await self._open()
        if self._maker is None or self._made + count > PER_MAKER:
            await self._become(connection)
        missing = {bundle.oid: bundle.name for bundle in bundles if bundle.oid not in self._joined}
        if missing:
            maker = quoted(self._maker or "")
            grant = f"GRANT {names(missing.values())} TO {maker} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE"
            await connection.execute(f"RESET ROLE; {grant}; SET ROLE {maker}")
            self._joined |= missing.keys()
        return connection

    async def _open(self) -> Connection:
        self._maker = None
        self._connection = connection = await self._link.connect()
        await connection.execute(f"{_SESSION}; {_PREPARE}")
        await drop_empty(connection)
        return connection

    async def _become(self, connection: Connection) -> None:
        """Act as a new maker from now on; holding its lock says that it lives, however empty it is."""
        key = int.from_bytes(self._random(4), "big") >> 1
        maker = await maker_name(connection, key)
        self._skew = await self._link.skew(connection)  # anew now and then: clocks drift, machines sleep
        await connection.execute(
            f"RESET ROLE; SELECT pg_advisory_unlock_all(); SELECT pg_advisory_lock_shared({MAKER_LOCKS}, {key}); "
            f"SET LOCAL createrole_self_grant = 'set'; CREATE ROLE {quoted(maker)} NOLOGIN CREATEROLE NOINHERIT; "
            f"SET ROLE {quoted(maker)}"
        )
        self._maker, self._made, self._joined = maker, 0, set()

    def _script(self, batch: Sequence[Order], bundles: dict[Detail, Bundle], deadline: datetime) -> str:
        joins: dict[Bundle, list[str]] = {}
        for order in batch:
            joins.setdefault(bundles[order.detail], []).append(order.role)
        checks = [f"EXECUTE remit_check ({b.oid}, {_oids(b.tables)}, {_oids(b.schemas)}, '{b.digest}')" for b in joins]
        creates = [_create(order, self._skew) for order in batch]
        terms = "WITH INHERIT TRUE, SET FALSE, ADMIN FALSE"
        grants = [f"GRANT {quoted(b.name)} TO {names(roles)} {terms}" for b, roles in joins.items()]
        last = (deadline + self._skew - MARGIN).isoformat()
        in_time = f"SELECT sqrt(extract(epoch FROM timestamptz '{last}' - clock_timestamp())::float8)"
        return "; ".join([*checks, *creates, *grants, in_time])

    def _drop(self) -> None:
        connection, self._connection, self._maker = self._connection, None, None
        if connection is not None and not connection.is_closed():
            connection.terminate()


def _oids(oids: Sequence[int]) -> str:
    return "'{" + ",".join(str(oid) for oid in oids) + "}'"


def _create(order: Order, skew: timedelta) -> str:
    until = (order.expires_at + timedelta(seconds=round(skew.total_seconds()))).isoformat()
    return (
        f"CREATE ROLE {quoted(order.role)} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS INHERIT "
        f"CONNECTION LIMIT {CONNECTIONS} PASSWORD '{order.verifier}' VALID UNTIL '{until}'"
    )


def _fail(orders: Sequence[Order], error: EngineError) -> None:
    for order in orders:
        if not order.done.done():
            order.done.set_exception(error)
