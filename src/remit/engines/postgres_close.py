"""The end of a PostgreSQL lease: shut the door, put out who is inside, tidy up later.

Rules:

- Shut: NOLOGIN, PASSWORD NULL, out of the bundle, in one transaction for all; role by role when that fails.
- Put out: sessions are found by the role's oid and terminated until there are none. A backend that had passed its check
  when we committed has no user to be seen by yet; it is waited out, by its transaction in ``pg_locks``.
- Tidy up: DROP ROLE in bulk; a role that owns something is taken apart by itself, in each database (DROP OWNED), and
  when that fails it alone is left.
- Absence is success, and everything may be repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from remit.engines.postgres_link import DRIVER_ERRORS, Connection, Link, names, quoted, wrapped
from remit.errors import EngineError, EngineRefusedError

WAIT_SECONDS = 5.0
POLL_SECONDS = (0.001, 0.05)  # first and longest pause
CHUNK = 500  # roles in one DROP ROLE: each takes a lock until commit

_FIND = """
SELECT r.oid, r.rolname, r.rolcanlogin,
  (SELECT u.rolname FROM pg_auth_members a JOIN pg_roles u ON u.oid = a.member
   WHERE a.roleid = r.oid AND a.admin_option LIMIT 1) AS maker,
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
    """A lease's role as the server has it. ``maker`` administers it."""

    oid: int
    name: str
    open: bool
    maker: str
    bundles: tuple[str, ...]


async def close(link: Link, wanted: Sequence[str]) -> frozenset[str]:
    """End the authority of the roles ``wanted``; return those that have none left and no session."""
    shut = await _shut(link, wanted)
    async with link.session() as connection:
        left = await _find(connection, wanted)
        inside = await _put_out(connection, [role.oid for role in left])
        prepared = await connection.fetch(_PREPARED, [role.name for role in left])
    await _roll_back(link, {role.name: role for role in left}, [(p["database"], p["role"], p["sql"]) for p in prepared])
    return frozenset(name for name in wanted if name in shut) - {role.name for role in left if role.oid in inside}


async def extend(link: Link, name: str, expires_at: datetime) -> None:
    """Move the instant after which the role may not log in; EngineRefusedError when it may not already."""

    async def script(connection: Connection) -> None:
        found = await _find(connection, [name])
        if not found or not found[0].open:
            raise EngineRefusedError("the lease is gone at the database")
        skew = await link.skew(connection)
        until = (expires_at + timedelta(seconds=round(skew.total_seconds()))).isoformat()
        await connection.execute(_as(found[0].maker, [f"ALTER ROLE {quoted(name)} VALID UNTIL '{until}'"]))

    await link.transaction(script)


async def clean(link: Link, wanted: Sequence[str]) -> frozenset[str]:
    """Drop the roles ``wanted`` that cannot log in any more; return those that are gone."""
    async with link.session() as connection:
        found = [role for role in await _find(connection, wanted) if not role.open]
        held = await connection.fetch(_HELD, [role.oid for role in found])
    homes: dict[int, set[str]] = {}
    for row in held:
        homes.setdefault(row["oid"], set()).add(row["database"])
    free = [role for role in found if role.oid not in homes]
    failed = [role for start in range(0, len(free), CHUNK) for role in await _drop(link, free[start : start + CHUNK])]
    await _take_apart(link, [role for role in found if role.oid in homes] + failed, homes)
    async with link.session() as connection:
        left = {role.name for role in await _find(connection, wanted)}
    return frozenset(wanted) - left


async def disown(link: Link, roles: Sequence[str]) -> None:
    """Drop what roles of the login's own hold in other databases, so that they can be dropped next time."""
    if not roles:
        return
    async with link.session() as connection:
        oids = [
            row["oid"] for row in await connection.fetch("SELECT oid FROM pg_roles WHERE rolname = ANY ($1)", roles)
        ]
        homes = {row["database"] for row in await connection.fetch(_HELD, oids)}
    for home in sorted(homes):
        with suppress(EngineError):
            await _run_in(link, home, [f"DROP OWNED BY {quoted(role)}" for role in roles])


async def _find(connection: Connection, wanted: Collection[str]) -> list[Role]:
    rows = await connection.fetch(_FIND, list(wanted))
    return [Role(r["oid"], r["rolname"], r["rolcanlogin"], r["maker"] or "", tuple(r["bundles"])) for r in rows]


async def _shut(link: Link, wanted: Sequence[str]) -> frozenset[str]:
    """Shut all roles at once, or else one by one; return those that are shut or absent."""
    try:
        await link.transaction(lambda connection: _shut_all(connection, wanted))
    except EngineError:
        if len(wanted) == 1:
            raise
        shut: set[str] = set()
        for name in wanted:
            with suppress(EngineError):
                shut |= await _shut(link, [name])
        return frozenset(shut)
    return frozenset(wanted)


async def _shut_all(connection: Connection, wanted: Sequence[str]) -> None:
    script: list[str] = []
    for maker, roles in _by_maker(await _find(connection, wanted)).items():
        steps = [f"ALTER ROLE {quoted(role.name)} NOLOGIN PASSWORD NULL" for role in roles if role.open]
        joined: dict[str, list[str]] = {}
        for role in roles:
            for bundle in role.bundles:
                joined.setdefault(bundle, []).append(role.name)
        steps += [f"REVOKE {quoted(bundle)} FROM {names(members)}" for bundle, members in joined.items()]
        if steps:
            script.append(_as(maker, steps))
    if script:
        await connection.execute("; ".join(script))


def _by_maker(roles: Iterable[Role]) -> Mapping[str, list[Role]]:
    grouped: dict[str, list[Role]] = {}
    for role in roles:
        grouped.setdefault(role.maker, []).append(role)
    return grouped


def _as(maker: str, steps: Iterable[str]) -> str:
    """Return a script that acts as ``maker``, for use inside a transaction."""
    return "; ".join([f"SET LOCAL ROLE {quoted(maker)}", *steps, "RESET ROLE"])


async def _put_out(connection: Connection, oids: Sequence[int]) -> frozenset[int]:
    """Terminate the sessions of roles until there are none; return the roles that may have one when time is up."""
    if not oids:
        return frozenset()
    starting = {tuple(row) for row in await connection.fetch(_STARTING)}
    pause, longest = POLL_SECONDS
    loop = asyncio.get_running_loop()
    end = loop.time() + WAIT_SECONDS
    while True:
        if starting:
            starting &= {tuple(row) for row in await connection.fetch(_STARTING)}
        inside = {row["oid"] for row in await connection.fetch(_TERMINATE, list(oids))}
        if not inside and not starting:
            return frozenset()
        if loop.time() >= end:
            return frozenset(oids) if starting else frozenset(inside)
        await asyncio.sleep(pause)
        pause = min(pause * 2, longest)


async def _roll_back(link: Link, roles: Mapping[str, Role], prepared: Sequence[tuple[str, str, str]]) -> None:
    """Roll back what the roles left prepared (two-phase commit): it holds locks, and nobody else may finish it."""
    for database, name, sql in prepared:
        connection = await link.connect(database)
        try:
            await connection.execute(_adopt(roles[name]))
            await connection.execute(f"SET ROLE {quoted(name)}")
            await connection.execute(sql)
        except DRIVER_ERRORS as error:
            raise wrapped(error) from error
        finally:
            connection.terminate()


def _adopt(role: Role) -> str:
    """Return a script that lets the maker act for ``role``: needed only for what the role left behind."""
    return _as(role.maker, [f"GRANT {quoted(role.name)} TO {quoted(role.maker)} WITH INHERIT TRUE, SET TRUE"])


async def _drop(link: Link, roles: Sequence[Role]) -> Sequence[Role]:
    """Drop roles that own nothing, in one transaction; return all of them when that fails."""
    drops = {maker: f"DROP ROLE {names(role.name for role in some)}" for maker, some in _by_maker(roles).items()}
    script = "; ".join(_as(maker, [drop]) for maker, drop in drops.items())
    try:
        await link.transaction(lambda connection: connection.execute(script))
    except EngineError:
        return roles
    return ()


async def _take_apart(link: Link, roles: Sequence[Role], homes: Mapping[int, Collection[str]]) -> None:
    """Drop what roles own in each database, then each role by itself; leave what cannot be."""
    for database in sorted({home for role in roles for home in homes.get(role.oid, ())}):
        with suppress(EngineError):
            await _disown(link, database, [role for role in roles if database in homes.get(role.oid, ())])
    for role in roles:
        await _drop(link, [role])


async def _disown(link: Link, database: str, roles: Sequence[Role]) -> None:
    drops = [f"{_adopt(role)}; {_as(role.maker, [f'DROP OWNED BY {quoted(role.name)}'])}" for role in roles]
    await _run_in(link, database, drops)


async def _run_in(link: Link, database: str, scripts: Sequence[str]) -> None:
    """Run scripts in another database, each in a transaction of its own; one that fails changes nothing."""
    connection = await link.connect(database)
    try:
        for script in scripts:
            with suppress(*DRIVER_ERRORS):
                async with connection.transaction():
                    await connection.execute(script)
    finally:
        connection.terminate()
