"""Connections to one PostgreSQL database, under the broker's login: a pool, and a standby for ending leases.

Rules:

- Every session has ``search_path = pg_catalog``, so that nobody's objects stand in for the system's.
- Every statement and every wait for a lock has an end.
- Every driver error leaves here as an EngineError whose text holds nothing of the driver's.
- What is formatted into SQL is ours (names we made, numbers, digests) or was quoted by the server.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TypeAlias, TypeVar

import asyncpg

from remit.core.secret import Secret
from remit.errors import EngineError, EngineRefusedError
from remit.kinds.postgres import DatabaseAddress

CONNECT_SECONDS = 5.0
STATEMENT_MILLISECONDS = 10_000
LOCK_MILLISECONDS = 5_000
POOL = 6
ATTEMPTS = 5

_LOGIN = frozenset({"28P01", "28000"})
_REFUSED = frozenset({"42501", "0LP01", "42P01", "42703", "3F000", "3D000"})
_NO_TLS = "rejected SSL upgrade"  # what asyncpg says of it, in an exception of no type of its own
# What others did at the same time: "tuple concurrently updated" is XX000, as bugs are; made by two, it is 23505.
CONCURRENT = frozenset({"XX000", "40001", "40P01", "55P03", "42710", "23505"})
_GONE = ("08", "57P", "53")  # classes of errors that say nothing about the statement: connection, shutdown, resources
_CROWDED = frozenset({"53200", "53300"})  # no memory for a lock, no connection left: a lease can bring that about
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

Connection: TypeAlias = asyncpg.Connection
Record: TypeAlias = asyncpg.Record
T = TypeVar("T")


def code(error: BaseException | None) -> str:
    """Return the SQLSTATE of a driver error, or an empty string."""
    return str(getattr(error, "sqlstate", None) or "")


def refused(error: EngineError) -> bool:
    """Whether the database did answer, about what it was told to do or about what leases may have used up."""
    state = code(error.__cause__)
    return state in _CROWDED or (bool(state) and not state.startswith(_GONE))


def wrapped(error: BaseException, place: DatabaseAddress | None = None) -> EngineError:
    """Return the EngineError to raise for a driver's error; one at connecting says to which ``place``, and why not."""
    state = code(error)
    if state in _LOGIN:
        return EngineRefusedError(
            f"the database refused the login (SQLSTATE {state})",
            help="set the login's password: `remit secret set RESOURCE`",
        )
    if state in _REFUSED:
        return EngineRefusedError(
            f"the database refused (SQLSTATE {state})", help="check the resource: `remit resource check`"
        )
    if state:
        return EngineError(f"the database did not do it (SQLSTATE {state})")
    if isinstance(error, ssl.SSLError):
        return EngineError("the database's certificate was not accepted", help="it must be valid for the host's name")
    if isinstance(error, ConnectionError) and _NO_TLS in str(error):
        return EngineError(
            "the database does not speak TLS", help='turn it on there, or set `tls` to "loopback" on this machine'
        )
    if place is None:
        return EngineError("the database could not be reached, or the connection broke")
    number = getattr(error, "errno", None)
    why = os.strerror(number).lower() if number else "the connection broke"
    if isinstance(error, TimeoutError):
        why = f"no answer in {CONNECT_SECONDS:.0f} seconds"
    elif isinstance(error, socket.gaierror):
        why = "its name is not known"
    return EngineError(
        f"the database at {place.host}:{place.port} could not be reached: {why}",
        help="start it, or correct the resource's destination",
    )


def _verifying() -> ssl.SSLContext:
    made = ssl.create_default_context()
    made.keylog_filename = None  # type: ignore[assignment]  # none, whatever `SSLKEYLOGFILE` says: passwords go this way
    return made


_OF_ASYNCPG = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
DRIVER_ERRORS: tuple[type[BaseException], ...] = (*_OF_ASYNCPG, OSError, EOFError)


def names(identifiers: Iterable[str]) -> str:
    """Return identifiers as a list of SQL, each quoted."""
    return ", ".join(quoted(identifier) for identifier in identifiers)


def quoted(identifier: str) -> str:
    """Quote an identifier that we made or that the server told us."""
    return '"' + identifier.replace('"', '""') + '"'


class Connections:
    """A pool on the resource's database, opened when first used; the standby; single ones to other databases."""

    def __init__(self, place: DatabaseAddress, secret: Secret | None, clock: Callable[[], datetime]) -> None:
        self.target, self._secret, self._clock = place, secret, clock
        self.standby = Standby(self)
        self._free = asyncio.LifoQueue[Connection | None]()
        for _ in range(POOL):
            self._free.put_nowait(None)

    async def admits(self, user: str, wrong: str) -> bool:
        """Whether the server lets a user in with a password that is not theirs; EngineError where it does not say."""
        try:
            (await self._log_in(user, wrong, self.target.database)).terminate()
        except DRIVER_ERRORS as error:
            state = code(error)
            if not state or state.startswith(_GONE):
                raise wrapped(error, self.target) from error
            return state not in _LOGIN  # else it has believed them, and refused something that comes after
        return True

    async def connect(self, database: str | None = None) -> Connection:
        """Open a connection to ``database`` (the resource's own by default)."""
        password = self._secret.reveal() if self._secret else None
        try:
            return await self._log_in(self.target.user, password, database or self.target.database)
        except DRIVER_ERRORS as error:
            raise wrapped(error, self.target) from error

    async def _log_in(self, user: str, password: str | None, database: str) -> Connection:
        place = self.target
        return await asyncpg.connect(
            host=place.host,
            port=place.port,
            user=user,
            database=database,
            password=password,
            ssl=_verifying() if place.tls == "verify-full" else False,
            timeout=CONNECT_SECONDS,
            command_timeout=STATEMENT_MILLISECONDS / 1_000 + 1,
            server_settings={
                "application_name": "remit",
                "search_path": "pg_catalog",
                "statement_timeout": str(STATEMENT_MILLISECONDS),
                "lock_timeout": str(LOCK_MILLISECONDS),
                "synchronous_commit": "on",  # an answered revoke must survive a crash
            },
        )

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Connection]:
        """Lend a connection to the resource's database; one that broke is thrown away."""
        held = await self._free.get()
        keep: Connection | None = None
        try:
            if held is None or held.is_closed():
                held = await self.connect()
            yield held
            keep = held
        except DRIVER_ERRORS as error:
            keep = held if self.survives(held, error) else None
            raise wrapped(error) from error
        finally:
            if held is not None and keep is None and not held.is_closed():
                held.terminate()
            self._free.put_nowait(keep)

    async def fetch(self, query: str, *values: object) -> Sequence[Record]:
        """Return the rows of one query, on a connection of the pool."""
        async with self.session() as connection:
            rows: Sequence[Record] = await connection.fetch(query, *values)
            return rows

    @staticmethod
    def survives(connection: Connection | None, error: BaseException) -> bool:
        """Whether a connection can be used after ``error``: the server may have no place for a new one."""
        if connection is None or connection.is_closed() or connection.is_in_transaction():
            return False
        return bool(code(error)) and not code(error).startswith(("08", "57P"))

    async def transaction(self, script: Callable[[Connection], Awaitable[T]], attempts: int = ATTEMPTS) -> T:
        """Run ``script`` in a transaction; again, so many times, when others changed the same rows at the same time."""
        for attempt in range(attempts):
            async with self.session() as connection:
                try:
                    async with connection.transaction():
                        return await script(connection)
                except asyncpg.PostgresError as error:
                    if code(error) not in CONCURRENT or attempt == attempts - 1:
                        raise
        raise EngineError  # not reached: the last attempt raises

    async def skew(self, connection: Connection) -> timedelta:
        """Return how far the server's clock is ahead of ours, at least."""
        theirs: datetime = await connection.fetchval("SELECT clock_timestamp()")
        return theirs - self._clock()

    async def close(self) -> None:
        """Wait for the connections that are lent out, and close all."""
        await self.standby.close()
        lent = [await self._free.get() for _ in range(POOL)]
        for held in lent:
            if held is not None and not held.is_closed():
                held.terminate()
            self._free.put_nowait(None)


class Standby:
    """A connection, and memory for locks, kept for ending leases when one has used up what the server has of either.

    Any role may take advisory locks until the server has no memory for one more (SQLSTATE 53200). From then on whoever
    needs a lock in that memory fails: who logs in, who changes a role, who looks one up.

    - It is open before the first lease is issued, and holds advisory locks that mean nothing but their memory.
    - One prepared statement gives them back and terminates the sessions of leases. It names no table, so that it needs
      no lock before it has given back its own; what it looks up then takes their place.
    - The locks are exclusive, with keys by chance: nobody can share one and so keep its memory from being free.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._turn = asyncio.Lock()
        self._connection: Connection | None = None
        self._spend: asyncpg.prepared_stmt.PreparedStatement | None = None
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
