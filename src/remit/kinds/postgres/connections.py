"""Connections to one PostgreSQL database, under the broker's login.

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
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
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


DRIVER_ERRORS: tuple[type[BaseException], ...] = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
    EOFError,
)


def names(identifiers: Iterable[str]) -> str:
    """Return identifiers as a list of SQL, each quoted."""
    return ", ".join(quoted(identifier) for identifier in identifiers)


def quoted(identifier: str) -> str:
    """Quote an identifier that we made or that the server told us."""
    return '"' + identifier.replace('"', '""') + '"'


class Connections:
    """A small pool on the resource's database, opened when first used, and single connections to other databases."""

    def __init__(self, place: DatabaseAddress, secret: Secret | None, clock: Callable[[], datetime]) -> None:
        self.target = place
        self._secret = secret
        self._clock = clock
        self._free = asyncio.LifoQueue[Connection | None]()
        for _ in range(POOL):
            self._free.put_nowait(None)

    async def connect(self, database: str | None = None) -> Connection:
        """Open a connection to ``database`` (the resource's own by default)."""
        place = self.target
        try:
            return await asyncpg.connect(
                host=place.host,
                port=place.port,
                user=place.user,
                database=database or place.database,
                password=self._secret.reveal() if self._secret else None,
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
        except DRIVER_ERRORS as error:
            raise wrapped(error, place) from error

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
        lent = [await self._free.get() for _ in range(POOL)]
        for held in lent:
            if held is not None and not held.is_closed():
                held.terminate()
            self._free.put_nowait(None)
