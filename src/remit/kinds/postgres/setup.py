"""The SQL with which a database's administrator makes the broker's login: printed, read and run by a person."""

from __future__ import annotations

from remit.kinds.postgres.bundle import Power, lower
from remit.kinds.postgres.link import quoted, target
from remit.ports import Resource


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
    lines += [f"GRANT {_what(power)} TO {login} WITH GRANT OPTION;" for power in powers]
    lines += [
        f"-- REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC;",
        "-- REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC;",
        "-- REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC;",
    ]
    return "\n".join(lines) + "\n"


def _what(power: Power) -> str:
    columns = f" ({', '.join(quoted(column) for column in power.columns)})" if power.columns else ""
    verbs = ", ".join(f"{verb}{columns}" for verb in power.verbs)
    return f"{verbs} ON TABLE {quoted(power.schema)}.{quoted(power.table)}"
