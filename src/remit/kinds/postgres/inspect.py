"""What adding a PostgreSQL resource checks: the broker's login, and what the database gives everybody.

A finding that is not acceptable must be mended. One that is acceptable is a power that every lease will have on top of
its grant, because PostgreSQL gives it to PUBLIC; an operator who can live with it names it in ``settings["accept"]``.
So is a server that lets the broker's machine in without a password, and with it every program there, as anybody: that
is told of for as long as it stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from remit.core.scope import Detail
from remit.kinds.postgres import target
from remit.kinds.postgres.connections import Connection, quoted
from remit.kinds.postgres.plan import Power, lower
from remit.ports import Finding, Resource

OLDEST = 160_000
SHOWN = 5  # names in one finding
LOGINS = 8  # tried without their password

_LOGIN = """
SELECT current_setting('server_version_num')::int AS version, rolsuper, rolcreaterole, rolbypassrls, rolreplication,
  string_to_array(replace(current_setting('createrole_self_grant'), ' ', ''), ',') AS self_grant,
  pg_has_role(session_user, 'pg_signal_backend', 'USAGE') AS signal
FROM pg_roles WHERE rolname = session_user
"""

# $1 schema, $2 table, $3 verbs, $4 columns or null. Which verbs the login may not pass on.
_GRANTABLE = """
SELECT c.oid IS NOT NULL AS known,
  ARRAY(SELECT verb FROM unnest($3::text[]) verb WHERE CASE
    WHEN c.oid IS NULL THEN false
    WHEN $4::text[] IS NULL THEN NOT has_table_privilege(c.oid, verb || ' WITH GRANT OPTION')
    ELSE EXISTS (SELECT FROM unnest($4::text[]) wanted LEFT JOIN pg_attribute t
                 ON t.attrelid = c.oid AND t.attname = wanted AND t.attnum > 0 AND NOT t.attisdropped
                 WHERE t.attnum IS NULL OR NOT has_column_privilege(c.oid, t.attnum, verb || ' WITH GRANT OPTION'))
    END) AS missing,
  coalesce(has_schema_privilege(n.oid, 'USAGE WITH GRANT OPTION') OR EXISTS (
    SELECT FROM aclexplode(n.nspacl) a WHERE a.grantee = 0 AND a.privilege_type = 'USAGE'), false) AS schema
FROM (VALUES (1)) AS one LEFT JOIN pg_namespace n ON n.nspname = $1
LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = $2
"""

_CONNECT = """
SELECT has_database_privilege(oid, 'CONNECT WITH GRANT OPTION') OR EXISTS (
  SELECT FROM aclexplode(coalesce(datacl, acldefault('d', datdba))) a
  WHERE a.grantee = 0 AND a.privilege_type = 'CONNECT') FROM pg_database WHERE datname = current_database()
"""

_PUBLIC: Mapping[str, tuple[str, str]] = {
    "public-functions": (
        "everybody may call functions that run with their owner's powers (SECURITY DEFINER)",
        """SELECT format('%s.%s', n.nspname, p.proname) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace,
           aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
           WHERE p.prosecdef AND a.grantee = 0 AND a.privilege_type = 'EXECUTE'""",
    ),
    "public-create": (
        "everybody may create objects in schemas",
        """SELECT n.nspname FROM pg_namespace n, aclexplode(n.nspacl) a
           WHERE a.grantee = 0 AND a.privilege_type = 'CREATE'
           UNION SELECT 'database ' || datname FROM pg_database, aclexplode(datacl) a
           WHERE datname = current_database() AND a.grantee = 0 AND a.privilege_type = 'CREATE'""",
    ),
    "public-tables": (
        "everybody may use tables",
        """SELECT format('%s.%s', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND (
             EXISTS (SELECT FROM aclexplode(c.relacl) a WHERE a.grantee = 0) OR EXISTS (
               SELECT FROM pg_attribute t, aclexplode(t.attacl) a WHERE t.attrelid = c.oid AND a.grantee = 0))""",
    ),
    "public-connect": (
        "everybody may connect to other databases",
        """SELECT d.datname FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
           WHERE d.datallowconn AND d.datname <> current_database() AND a.grantee = 0
             AND a.privilege_type = 'CONNECT'""",
    ),
    "public-temp": (
        "everybody may create temporary tables in the database",
        """SELECT d.datname FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
           WHERE d.datname = current_database() AND a.grantee = 0 AND a.privilege_type = 'TEMPORARY'""",
    ),
}


# Those that can do most first, and the broker's own in any case.
_LOGINS = """
SELECT rolname::text FROM pg_roles WHERE rolcanlogin AND rolname NOT LIKE 'remit!_lse!_%' ESCAPE '!'
ORDER BY rolname = session_user DESC, rolsuper DESC, rolcreaterole OR rolreplication OR rolbypassrls DESC, oid LIMIT $1
"""


async def logins(connection: Connection) -> Sequence[str]:
    """Return the logins of the server with which it is tried whether it asks for a password."""
    return [row[0] for row in await connection.fetch(_LOGINS, LOGINS)]


def trusting(users: Sequence[str]) -> Sequence[Finding]:
    """Return the finding that the server takes these users for who they say they are."""
    text = f"the server lets this machine in without a password (pg_hba.conf), as {', '.join(users)}"
    return [Finding("trust", text, acceptable=True, loud=True)] if users else []


async def inspect(connection: Connection, bound: Sequence[Detail]) -> Sequence[Finding]:
    """Check the login, what it may pass on, and what PUBLIC has; an empty answer means that the resource is fit."""
    login = await connection.fetchrow(_LOGIN)
    self_grant = set(login["self_grant"] or ())
    checks = [
        ("server-version", login["version"] < OLDEST, "the server is older than PostgreSQL 16"),
        ("login-superuser", login["rolsuper"], "the login is a superuser"),
        ("login-bypassrls", login["rolbypassrls"], "the login has BYPASSRLS"),
        ("login-replication", login["rolreplication"], "the login has REPLICATION"),
        ("login-createrole", not login["rolcreaterole"], "the login has no CREATEROLE"),
        ("login-self-grant", not {"set", "inherit"} <= self_grant, "createrole_self_grant is not 'set, inherit'"),
        ("login-signal", not login["signal"], "the login is no member of pg_signal_backend"),
    ]
    findings = [Finding(name, text, acceptable=False) for name, wrong, text in checks if wrong]
    if not await connection.fetchval(_CONNECT):
        findings.append(_grant("the login has no CONNECT WITH GRANT OPTION on the database"))
    for detail in bound:
        for power in lower(detail):
            findings += await _passable(connection, power)
    for name, (what, query) in _PUBLIC.items():
        found = sorted({row[0] for row in await connection.fetch(query)})
        if found:
            more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            findings.append(Finding(name, f"{what}: {', '.join(found[:SHOWN])}{more}", acceptable=True))
    return tuple(dict.fromkeys(findings))


async def _passable(connection: Connection, power: Power) -> Sequence[Finding]:
    columns = None if power.columns is None else list(power.columns)
    row = await connection.fetchrow(_GRANTABLE, power.schema, power.table, list(power.verbs), columns)
    name = f"{power.schema}.{power.table}"
    if not row["known"]:
        return [_grant(f"there is no table {name}")]
    found = [_grant(f"the login has no {verb} WITH GRANT OPTION on {name}") for verb in row["missing"]]
    if not row["schema"]:
        found.append(_grant(f"the login has no USAGE WITH GRANT OPTION on schema {power.schema}"))
    return found


def _grant(text: str) -> Finding:
    return Finding("login-grants", text, acceptable=False)


def setup_sql(resource: Resource) -> str:
    """Return statements for psql, one a line, to be run in the resource's database as the owner of its tables.

    psql itself asks for the password, so that it is in no file and no log. What is commented out closes powers of
    PUBLIC, and may be missed by other users of the database.
    """
    place = target(resource)
    login, database = quoted(place.user), quoted(place.database)
    powers = [power for detail in resource.bound for power in lower(detail)]
    lines = [
        f"CREATE ROLE {login} LOGIN NOSUPERUSER CREATEROLE;",
        f"\\password {login}",
        f"ALTER ROLE {login} SET createrole_self_grant = 'set, inherit';",
        f"ALTER ROLE {login} SET search_path = pg_catalog;",
        f"GRANT pg_signal_backend TO {login};",
        f"GRANT pg_read_all_stats TO {login};",
        f"GRANT CONNECT ON DATABASE {database} TO {login} WITH GRANT OPTION;",
    ]
    schemas = [f"SCHEMA {quoted(schema)}" for schema in sorted({power.schema for power in powers})]
    lines += [f"GRANT USAGE ON {schema} TO {login} WITH GRANT OPTION;" for schema in schemas]
    for power in powers:
        what = power.privileges([quoted(column) for column in power.columns or ()])
        table = f"{quoted(power.schema)}.{quoted(power.table)}"
        lines.append(f"GRANT {what} ON TABLE {table} TO {login} WITH GRANT OPTION;")
    lines += [
        f"-- REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC;",
        "-- REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC;",
        "-- REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC;",
    ]
    return "\n".join(lines) + "\n"
