"""Bundle roles: the powers of a detail, held by one role that leases on the same tables share.

Why bundles: a GRANT to each lease's own role rewrites the table's catalog row. Concurrent issues collide there, and the
row's ACL outgrows its page at about 2,400 roles. A bundle is granted once; a lease joins it.

Rules:

- A bundle's name is a digest of login, database, table OIDs, actions and columns: it cannot mean two things.
- A bundle that others changed is mended, or else replaced; nobody joins it as it is.
- Bundles are made and mended under an advisory lock of their database. Anybody may take that lock, a lease too, so it
  only keeps brokers from disturbing each other: correct it is without, and it is waited for briefly.
- A bundle is dropped under the lock on the role that joining takes as well: nobody joins one that is going.
- ``CHECK`` says in one digest what a bundle may do now; issuing compares it with the plan's in its own transaction.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from asyncpg import LockNotAvailableError, PostgresError

from remit.core.scope import Detail
from remit.errors import EngineRefusedError
from remit.kinds.postgres.connections import CONCURRENT, Connection, Record, code, quoted
from remit.kinds.postgres.plan import Power, lower

LOCK_SPACE = 0x72656D69  # "remi": advisory locks of bundles, key 0
GENERATIONS = 16

_LOCK = f"SET LOCAL lock_timeout = 300; SELECT pg_advisory_xact_lock({LOCK_SPACE}, 0)"
_WAIT = "SET LOCAL lock_timeout = 1000"

# $1 role, $2 tables, $3 schemas. One digest over what the role may do, there and elsewhere; ``_expected`` is its twin.
# Large objects and default privileges do not count: any lease may make its own, and give them to whom it likes.
CHECK = """
SELECT encode(sha256(convert_to(string_agg(line, E'\\n' ORDER BY line COLLATE "C"), 'UTF8')), 'hex') FROM (
  SELECT concat_ws(' ', 'role', rolname, rolsuper, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication,
    rolbypassrls) AS line FROM pg_roles WHERE oid = $1
  UNION SELECT concat_ws(' ', 'member of', roleid) FROM pg_auth_members WHERE member = $1
  UNION SELECT concat_ws(' ', 'table', c.oid, n.nspname, c.relname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY ($2)
  UNION SELECT concat_ws(' ', 'may', c.oid, a.privilege_type, a.is_grantable)
    FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = ANY ($2) AND a.grantee = $1
  UNION SELECT concat_ws(' ', 'may', t.attrelid, t.attname, a.privilege_type, a.is_grantable)
    FROM pg_attribute t, aclexplode(t.attacl) a WHERE t.attrelid = ANY ($2) AND t.attacl IS NOT NULL AND a.grantee = $1
  UNION SELECT concat_ws(' ', 'schema', n.oid, a.privilege_type)
    FROM pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
    WHERE n.oid = ANY ($3) AND (a.grantee = $1 OR a.grantee = 0 AND a.privilege_type = 'USAGE')
  UNION SELECT concat_ws(' ', 'database', a.privilege_type)
    FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
    WHERE d.datname = current_database() AND (a.grantee = $1 OR a.grantee = 0 AND a.privilege_type = 'CONNECT')
  UNION SELECT concat_ws(' ', 'elsewhere', s.dbid, s.classid, s.objid)
    FROM pg_shdepend s, (SELECT oid FROM pg_database WHERE datname = current_database()) AS here
    WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = $1
      AND s.classid NOT IN ('pg_largeobject'::regclass, 'pg_default_acl'::regclass)
      AND NOT (s.dbid = here.oid AND s.classid = 'pg_class'::regclass AND s.objid = ANY ($2))
      AND NOT (s.dbid = here.oid AND s.classid = 'pg_namespace'::regclass AND s.objid = ANY ($3))
      AND NOT (s.dbid = 0 AND s.classid = 'pg_database'::regclass AND s.objid = here.oid)
) AS powers
"""

# relkind: table, partitioned table, view, materialised view, foreign table
_RESOLVE = """
SELECT c.oid AS table, n.oid AS namespace, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS sql,
  quote_ident(n.nspname) AS home,
  (SELECT oid FROM pg_roles WHERE rolname = session_user) AS login,
  (SELECT oid FROM pg_database WHERE datname = current_database()) AS database,
  (SELECT coalesce(array_agg(ARRAY[attname::text, quote_ident(attname)]), '{}') FROM pg_attribute
   WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped) AS columns
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS w (schema, name, place)
LEFT JOIN pg_namespace n ON n.nspname = w.schema
LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name AND c.relkind = ANY ('{r,p,v,m,f}')
ORDER BY w.place
"""

_PUBLIC_HAS = """
SELECT
  (SELECT bool_or(a.grantee = 0 AND a.privilege_type = 'CONNECT')
   FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
   WHERE d.datname = current_database()) AS connect,
  (SELECT coalesce(array_agg(DISTINCT n.oid), '{}')
   FROM pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
   WHERE n.oid = ANY ($1) AND a.grantee = 0 AND a.privilege_type = 'USAGE') AS usage
"""

_OID = "SELECT oid FROM pg_roles WHERE rolname = $1"

# Bundles of this database and login that no lease has joined. Creators have, as administrators; so has the login.
_IDLE = """
SELECT b.rolname FROM pg_roles b
WHERE b.rolname LIKE (SELECT format('remit!_b!_%s!_%%', oid) FROM pg_database WHERE datname = current_database())
  ESCAPE '!' AND ($1::text IS NULL OR b.rolname = $1)
  AND EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles u ON u.oid = m.member
              WHERE m.roleid = b.oid AND m.admin_option AND u.rolname = session_user)
  AND NOT EXISTS (
  SELECT FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member
  WHERE m.roleid = b.oid AND NOT m.admin_option AND r.rolname <> session_user)
"""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle as it should be: its name, and the digest that ``CHECK`` must answer with."""

    name: str
    oid: int
    tables: tuple[int, ...]
    schemas: tuple[int, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class _Place:
    """A table of a detail as the database knows it now; ``sql``, ``home`` and ``columns`` were quoted by the server."""

    power: Power
    table: int
    schema: int
    sql: str
    home: str
    columns: tuple[str, ...]


async def ensure(connection: Connection, detail: Detail) -> Bundle:
    """Return a sound bundle for ``detail``, made or mended if need be; in a transaction.

    One that cannot be mended is left alone, and the next generation takes its place: else whoever may write anywhere in
    the cluster could stop the issuing by giving the bundle something. EngineRefusedError when no bundle can be made.
    """
    with suppress(LockNotAvailableError):  # before all else: what a transaction has read, its caches may keep
        async with connection.transaction():
            await connection.execute(_LOCK)
    await connection.execute(_WAIT)
    powers = lower(detail)
    rows = await connection.fetch(_RESOLVE, [p.schema for p in powers], [p.table for p in powers])
    places = [_place(power, row) for power, row in zip(powers, rows, strict=True)]
    tables = sorted((place.table, place.power.verbs, place.power.columns or ()) for place in places)
    key = json.dumps([rows[0]["login"], rows[0]["database"], tables], separators=(",", ":"))
    first = f"remit_b_{rows[0]['database']}_{hashlib.sha256(key.encode()).hexdigest()[:40]}"
    for generation in range(GENERATIONS):
        bundle = await _sound(connection, places, f"{first}_{generation}" if generation else first)
        if bundle is not None:
            return bundle
    raise EngineRefusedError("the bundle roles of these tables were changed by others too often")


async def _sound(connection: Connection, places: Sequence[_Place], name: str) -> Bundle | None:
    """Return the bundle ``name``, or None when it exists and cannot be mended."""
    oid = await connection.fetchval(_OID, name)
    fresh = oid is None
    if fresh:
        make = f"CREATE ROLE {quoted(name)} NOLOGIN"
        await connection.execute(f"SET LOCAL createrole_self_grant = 'set, inherit'; {make}")
        oid = await connection.fetchval(_OID, name)
    schemas = tuple(sorted({place.schema for place in places}))
    bundle = Bundle(name, oid, tuple(place.table for place in places), schemas, _expected(places, name))
    if await _holds(connection, bundle):
        return bundle
    try:
        async with connection.transaction():
            await _mend(connection, places, bundle)
    except PostgresError as error:
        if fresh or code(error) in CONCURRENT:
            raise
    if await _holds(connection, bundle):
        return bundle
    if fresh:
        raise EngineRefusedError(
            "the broker's login may not grant what was asked for", help="check the resource: `remit resource check`"
        )
    return None


async def drop_idle(connection: Connection) -> Sequence[str]:
    """Drop the bundles that no lease has joined. Return those that something is in the way of."""
    kept: list[str] = []
    for row in await connection.fetch(_IDLE, None):
        bundle = quoted(row["rolname"])
        try:
            async with connection.transaction():
                # The GRANT changes nothing, and takes the lock that joining takes; only what is idle under it may go.
                grant = f"GRANT {bundle} TO SESSION_USER WITH INHERIT TRUE, SET TRUE"
                await connection.execute(f"SET LOCAL lock_timeout = 100; {grant}")
                if await connection.fetch(_IDLE, row["rolname"]):
                    await connection.execute(f"DROP OWNED BY {bundle}; DROP ROLE {bundle}")
        except PostgresError:
            kept.append(row["rolname"])
    return kept


def _place(power: Power, row: Record) -> _Place:
    name = f"{power.schema}.{power.table}"
    if row["table"] is None:
        raise EngineRefusedError(f"there is no table `{name}` in the database")
    known: dict[str, str] = {column: sql for column, sql in row["columns"]}  # noqa: C416 - rows of an array, not pairs
    for column in power.columns or ():
        if column not in known:
            raise EngineRefusedError(f"`{name}` has no column `{column}`")
    columns = tuple(known[column] for column in power.columns or ())
    return _Place(power, row["table"], row["namespace"], row["sql"], row["home"], columns)


def _expected(places: Sequence[_Place], name: str) -> str:
    lines = {f"role {name} f f f f f f", "database CONNECT"}
    for place in places:
        power, table = place.power, place.table
        lines |= {f"table {table} {power.schema} {power.table}", f"schema {place.schema} USAGE"}
        spots = [f"may {table}"] if power.columns is None else [f"may {table} {column}" for column in power.columns]
        lines |= {f"{spot} {verb} f" for spot in spots for verb in power.verbs}
    return hashlib.sha256("\n".join(sorted(lines, key=str.encode)).encode()).hexdigest()


async def _holds(connection: Connection, bundle: Bundle) -> bool:
    digest = await connection.fetchval(CHECK, bundle.oid, list(bundle.tables), list(bundle.schemas))
    return bool(digest == bundle.digest)


async def _mend(connection: Connection, places: Sequence[_Place], planned: Bundle) -> None:
    """Take everything from the bundle in this database, then give it what the plan says."""
    bundle = quoted(planned.name)
    public = await connection.fetchrow(_PUBLIC_HAS, list(planned.schemas))
    script = [f"DROP OWNED BY {bundle}"]
    if not public["connect"]:
        database = await connection.fetchval("SELECT quote_ident(current_database())")
        script.append(f"GRANT CONNECT ON DATABASE {database} TO {bundle}")
    homes = {place.home for place in places if place.schema not in public["usage"]}
    script += [f"GRANT USAGE ON SCHEMA {home} TO {bundle}" for home in sorted(homes)]
    script += [f"GRANT {p.power.privileges(p.columns)} ON TABLE {p.sql} TO {bundle}" for p in places]
    await connection.execute("; ".join(script))
