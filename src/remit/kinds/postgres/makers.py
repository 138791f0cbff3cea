"""Maker roles: who creates lease roles, so that no role administers more than a few hundred.

A role created by who is no superuser is administered by its creator for good, and PostgreSQL walks all that one
administers at each CREATE, GRANT, ALTER and DROP ROLE: a login with 6,000 leases makes 200 a second, and revokes
slower. A maker ``remit_m_<database>_<key>`` cannot log in and holds no data; only the broker's login
can become it.
"""

from __future__ import annotations

from contextlib import suppress

from asyncpg import PostgresError

from remit.kinds.postgres.link import Connection, quoted

MAKER_LOCKS = 0x72656D6D  # "remm": advisory locks that say a maker is in use, by its key

_OWN = "SELECT 'remit_m_' || oid FROM pg_database WHERE datname = current_database()"

# Makers of this database and login that administer nothing but bundles.
_EMPTY = """
SELECT m.rolname FROM pg_roles m
WHERE m.rolname LIKE $1 ESCAPE '!' AND ($2::text IS NULL OR m.rolname = $2)
  AND EXISTS (SELECT FROM pg_auth_members a JOIN pg_roles u ON u.oid = a.member
              WHERE a.roleid = m.oid AND u.rolname = session_user)
  AND NOT EXISTS (SELECT FROM pg_auth_members a JOIN pg_roles r ON r.oid = a.roleid
                  WHERE a.member = m.oid AND r.rolname NOT LIKE 'remit!_b!_%' ESCAPE '!')
"""


async def maker_name(connection: Connection, key: int) -> str:
    """Return the name of the maker ``key`` of this database."""
    return f"{await connection.fetchval(_OWN)}_{key:08x}"


async def drop_empty(connection: Connection, maker: str | None = None) -> None:
    """Drop the makers (or that one) that have no leases and that no lane is using; leave what others just touched."""
    own = await connection.fetchval(_OWN)
    pattern = f"{own.replace('_', '!_')}!_%"
    for row in await connection.fetch(_EMPTY, pattern, maker):
        name = row["rolname"]
        key = int(name.rpartition("_")[2], 16)
        with suppress(PostgresError):
            async with connection.transaction():
                # A lane may have made a lease and let go of its maker since the look above: only under the lock is
                # empty for good. A lease whose maker is gone could be dropped by nobody but a superuser.
                locked = await connection.fetchval("SELECT pg_try_advisory_xact_lock($1, $2)", MAKER_LOCKS, key)
                if locked and await connection.fetch(_EMPTY, pattern, name):
                    await connection.execute(f"SET LOCAL lock_timeout = 100; DROP ROLE IF EXISTS {quoted(name)}")
