"""The end of a PostgreSQL lease: shut the door, put out who is inside, tidy up later.

Rules:

- Shut: NOLOGIN, PASSWORD NULL, out of the bundle, in one transaction for all, or for halves of them when that fails. A
  role may change itself (its password), and so hold its row: then its sessions are kept out while it is shut.
- A lease that fills the server (its memory for locks, its connections) makes any step fail: then too its sessions are
  kept out, from the standby connection, while the step is tried again.
- Put out: sessions are found by the role's oid and terminated until there are none. A backend that had passed its check
  when we committed has no user to be seen by yet; it is waited out, by its transaction in ``pg_locks``. Which they
  were is remembered: whoever begins a login later finds the door shut, and holds up nobody.
- Tidy up: DROP ROLE in bulk; a role that owns something is taken apart by itself, in each database (DROP OWNED), and
  when that fails it alone is left.
- Absence is success, and everything may be repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TypeAlias, TypeVar

from remit.errors import EngineError, EngineRefusedError
from remit.kinds.postgres.connections import DRIVER_ERRORS, Connection, Connections, names, quoted, refused, wrapped

T = TypeVar("T")
Waited: TypeAlias = dict[str, frozenset[tuple[object, ...]]]  # role -> those who may have passed before it was shut

WAIT_SECONDS = 5.0
POLL_SECONDS = (0.001, 0.05)  # first and longest pause
RESISTANCE = 10  # more tries to shut a role that resists
CHUNK = 500  # roles in one DROP ROLE: each takes a lock until commit

# Whoever holds a lock against us is a session of a lease, or an administrator at work: do not wait, come again.
_PATIENCE = "SET LOCAL lock_timeout = 100"

_FIND = """
SELECT r.oid, r.rolname, r.rolcanlogin,
  (SELECT u.rolname FROM pg_auth_members a JOIN pg_roles u ON u.oid = a.member
   WHERE a.roleid = r.oid AND a.admin_option LIMIT 1) AS creator,
  ARRAY(SELECT b.rolname::text FROM pg_auth_members a JOIN pg_roles b ON b.oid = a.roleid
        WHERE a.member = r.oid) AS bundles
FROM pg_roles r WHERE r.rolname = ANY ($1)
"""

# Backends in a transaction that have no user yet. One that waits for its client has still to be checked, and will be
# refused; only a login with pg_read_all_stats sees that, others wait until the client is heard or timed out.
_STARTING = """
SELECT l.pid, l.virtualxid FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'virtualxid' AND l.granted AND l.pid <> pg_backend_pid() AND l.mode = 'ExclusiveLock'
  AND a.usesysid IS NULL AND a.datid IS NULL AND a.wait_event IS DISTINCT FROM 'ClientRead'
"""

_TERMINATE = """
SELECT usesysid AS oid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE usesysid = ANY ($1)
"""

_PREPARED = """
SELECT database, owner::text AS role, format('ROLLBACK PREPARED %L', gid) AS sql
FROM pg_prepared_xacts WHERE owner = ANY ($1)
"""

# What roles own or may do, by database; 0 is the cluster's own. Memberships end with the role itself.
_HELD = """
SELECT DISTINCT s.refobjid AS oid, coalesce(d.datname, current_database()) AS database
FROM pg_shdepend s LEFT JOIN pg_database d ON d.oid = s.dbid
WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = ANY ($1) AND s.classid <> 'pg_auth_members'::regclass
"""


@dataclass(frozen=True, slots=True)
class Role:
    """A lease's role as the server has it. ``creator`` administers it."""

    oid: int
    name: str
    open: bool
    creator: str
    bundles: tuple[str, ...]


async def close(connections: Connections, wanted: Sequence[str], waited: Waited) -> frozenset[str]:
    """End the authority of the roles ``wanted``; return those that have none left and no session.

    ``waited`` is kept from one call to the next, so that each waits for fewer.
    """
    shut = await _shut(connections, wanted, waited)
    inside = await _insisting(connections, wanted, partial(_empty, connections, wanted, waited))
    closed = frozenset(name for name in wanted if name in shut) - inside
    for name in closed:
        waited.pop(name, None)
    return closed


async def _empty(connections: Connections, wanted: Sequence[str], waited: Waited) -> frozenset[str]:
    """Put out the sessions of roles, and roll back what they prepared; return those that may have a session."""
    left = await _find(connections, wanted)
    inside = await _put_out(connections, left, waited)
    roles = {role.name: role for role in left}
    for row in await connections.fetch(
        _PREPARED, list(roles)
    ):  # by two-phase commit: it holds locks, and nobody else may finish it
        connection = await connections.connect(row["database"])
        try:
            await connection.execute(_adopt(roles[row["role"]]))
            await connection.execute(f"SET ROLE {quoted(row['role'])}")
            await connection.execute(row["sql"])
        except DRIVER_ERRORS as error:
            raise wrapped(error) from error
        finally:
            connection.terminate()
    return inside


async def extend(connections: Connections, name: str, expires_at: datetime) -> None:
    """Move the instant after which the role may not log in; EngineRefusedError when it may not already."""

    async def script(connection: Connection) -> None:
        found = await _find(connection, [name])
        if not found or not found[0].open:
            raise EngineRefusedError("the lease is gone at the database")
        skew = await connections.skew(connection)
        until = (expires_at + timedelta(seconds=round(skew.total_seconds()))).isoformat()
        await connection.execute(_as(found[0].creator, [f"ALTER ROLE {quoted(name)} VALID UNTIL '{until}'"]))

    await connections.transaction(script)


async def clean(connections: Connections, wanted: Sequence[str]) -> frozenset[str]:
    """Drop the roles ``wanted`` that cannot log in any more; return those that are gone."""
    found = [role for role in await _find(connections, wanted) if not role.open]
    held = await connections.fetch(_HELD, [role.oid for role in found])
    owners = {row["oid"] for row in held}
    free = [role for role in found if role.oid not in owners]
    drop = partial(_transact, connections, _drop)
    for start in range(0, len(free), CHUNK):
        await _halving(drop, free[start : start + CHUNK])
    for database in sorted({row["database"] for row in held}):
        there = {row["oid"] for row in held if row["database"] == database}
        owning = [role for role in found if role.oid in there]
        with suppress(EngineError):
            drops = [f"{_adopt(role)}; {_as(role.creator, [f'DROP OWNED BY {quoted(role.name)}'])}" for role in owning]
            await _run_in(connections, database, drops)
    await _halving(drop, [role for role in found if role.oid in owners])
    return frozenset(wanted) - {role.name for role in await _find(connections, wanted)}


async def disown(connections: Connections, roles: Sequence[str]) -> None:
    """Drop what roles of the login's own hold in other databases, so that they can be dropped next time."""
    if not roles:
        return
    found = await connections.fetch("SELECT oid FROM pg_roles WHERE rolname = ANY ($1)", roles)
    held = await connections.fetch(_HELD, [row["oid"] for row in found])
    for home in sorted({row["database"] for row in held}):
        with suppress(EngineError):
            await _run_in(connections, home, [f"DROP OWNED BY {quoted(role)}" for role in roles])


async def _find(source: Connection | Connections, wanted: Collection[str]) -> list[Role]:
    rows = await source.fetch(_FIND, list(wanted))
    return [Role(r["oid"], r["rolname"], r["rolcanlogin"], r["creator"] or "", tuple(r["bundles"])) for r in rows]


async def _shut(connections: Connections, wanted: Sequence[str], waited: Waited) -> frozenset[str]:
    """Shut all roles at once; if that fails, as many at once as may be. Return those that are shut or absent."""

    async def shut(some: Sequence[str]) -> None:
        await connections.transaction(lambda connection: _shut_all(connection, some, waited), attempts=2)

    try:
        await shut(wanted)
    except EngineError as error:
        if not refused(error):
            raise
        async with _kept_out(connections, wanted):
            with suppress(EngineError):  # one of them may be holding its row, and shutting needs it
                await _halving(partial(_transact, connections, _leave), await _find(connections, wanted))
            resisting = await _halving(shut, wanted)
            for _ in range(RESISTANCE):
                if not resisting:
                    break
                await asyncio.sleep(POLL_SECONDS[1])
                resisting = [name for name in resisting if await _halving(shut, [name])]
        return frozenset(wanted) - set(resisting)
    return frozenset(wanted)


async def _insisting(connections: Connections, wanted: Sequence[str], work: Callable[[], Awaitable[T]]) -> T:
    """Do ``work``; when the server refuses, again and again while the sessions of the roles are kept out."""
    try:
        return await work()
    except EngineError as error:
        if not refused(error):
            raise
    async with _kept_out(connections, wanted):
        for _ in range(RESISTANCE):
            await asyncio.sleep(POLL_SECONDS[1])
            try:
                return await work()
            except EngineError as error:
                if not refused(error):
                    raise
        return await work()


@asynccontextmanager
async def _kept_out(connections: Connections, wanted: Sequence[str]) -> AsyncIterator[None]:
    """Terminate the sessions of roles as they come; afterwards fill the standby again, or leave that to the next."""
    done = asyncio.Event()

    async def terminate() -> None:
        while not done.is_set():
            with suppress(EngineError):
                await connections.standby.put_out(wanted)
            await asyncio.sleep(POLL_SECONDS[0])

    watch = asyncio.create_task(terminate())
    try:
        yield
    finally:
        done.set()
        await watch
        with suppress(EngineError):
            await connections.standby.hold()


async def _halving(work: Callable[[Sequence[T]], Awaitable[object]], items: Sequence[T]) -> list[T]:
    """Do ``work`` on all items, or on halves of them, and so on; return those with which it fails alone."""
    if not items:
        return []
    try:
        await work(items)
    except EngineError as error:
        if not refused(error):
            raise
        if len(items) == 1:
            return list(items)
        middle = len(items) // 2
        return [*await _halving(work, items[:middle]), *await _halving(work, items[middle:])]
    return []


async def _transact(
    connections: Connections, steps: Callable[[Sequence[Role]], list[str]], roles: Sequence[Role]
) -> None:
    """Take ``steps`` for roles in one transaction, as those who administer them."""
    scripts = [_as(creator, steps(some)) for creator, some in _grouped((r.creator, r) for r in roles).items()]
    await connections.transaction(lambda connection: connection.execute("; ".join([_PATIENCE, *scripts])), attempts=1)


async def _shut_all(connection: Connection, wanted: Sequence[str], waited: Waited) -> None:
    script: list[str] = []
    found = await _find(connection, wanted)
    for role in found:
        if role.open:
            waited.pop(role.name, None)  # others may pass until this is committed
    for creator, roles in _grouped((role.creator, role) for role in found).items():
        bars = [f"ALTER ROLE {quoted(role.name)} NOLOGIN PASSWORD NULL" for role in roles if role.open]
        if steps := _leave(roles) + bars:
            script.append(_as(creator, steps))
    if script:
        await connection.execute("; ".join([_PATIENCE, *script]))


def _leave(roles: Sequence[Role]) -> list[str]:
    joined = _grouped((bundle, role.name) for role in roles for bundle in role.bundles)
    return [f"REVOKE {quoted(bundle)} FROM {names(members)}" for bundle, members in joined.items()]


def _drop(roles: Sequence[Role]) -> list[str]:
    return [f"DROP ROLE {names(role.name for role in roles)}"]


def _grouped(pairs: Iterable[tuple[str, T]]) -> Mapping[str, list[T]]:
    grouped: dict[str, list[T]] = {}
    for key, value in pairs:
        grouped.setdefault(key, []).append(value)
    return grouped


def _as(creator: str, steps: Iterable[str]) -> str:
    """Return a script that acts as ``creator``, for use inside a transaction."""
    return "; ".join([f"SET LOCAL ROLE {quoted(creator)}", *steps, "RESET ROLE"])


async def _put_out(connections: Connections, roles: Sequence[Role], waited: Waited) -> frozenset[str]:
    """Terminate the sessions of roles until there are none; return the roles that may have one when time is up."""
    if not roles:
        return frozenset()
    pause, longest = POLL_SECONDS
    loop = asyncio.get_running_loop()
    end = loop.time() + WAIT_SECONDS
    while True:
        if any(waited.get(role.name, True) for role in roles):
            starting = frozenset(tuple(row) for row in await connections.fetch(_STARTING))
            for role in roles:  # those of the first look after it was shut, as far as they are still there
                waited[role.name] = waited.get(role.name, starting) & starting
        # a session anew each time: a long wait keeps nobody else waiting
        inside = {row["oid"] for row in await connections.fetch(_TERMINATE, [role.oid for role in roles])}
        left = frozenset(role.name for role in roles if role.oid in inside or waited.get(role.name))
        if not left or loop.time() >= end:
            return left
        await asyncio.sleep(pause)
        pause = min(pause * 2, longest)


def _adopt(role: Role) -> str:
    """Return a script that lets the creator act for ``role``: needed only for what the role left behind."""
    return _as(role.creator, [f"GRANT {quoted(role.name)} TO {quoted(role.creator)} WITH INHERIT TRUE, SET TRUE"])


async def _run_in(connections: Connections, database: str, scripts: Sequence[str]) -> None:
    """Run scripts in another database, each in a transaction of its own; one that fails changes nothing."""
    connection = await connections.connect(database)
    try:
        for script in scripts:
            with suppress(*DRIVER_ERRORS):
                async with connection.transaction():
                    await connection.execute(script)
    finally:
        connection.terminate()
