"""PostgreSQL databases: a lease is a login with the powers of its detail; a run reaches it at a port of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from urllib.parse import unquote, urlsplit, urlunsplit

from remit.core import orders
from remit.core.fields import is_loopback
from remit.core.scope import Field
from remit.core.secret import Secret
from remit.core.task import Plan
from remit.errors import InvalidRequestError, UnavailableError
from remit.ports import Engine, Resource
from remit.ports.kind import EngineContext, Kind, LeaseRequest, PortAccess, PortSession

HERE = "127.0.0.1"
PORT = 5432


@dataclass(frozen=True, slots=True)
class DatabaseAddress:
    """Where a resource lives, read from its destination."""

    host: str
    port: int
    database: str
    user: str
    tls: str  # verify-full | loopback


def target(resource: Resource) -> DatabaseAddress:
    """Read ``postgresql://user@host:port/database``, or raise InvalidRequestError."""
    wrong = InvalidRequestError("`destination` must be postgresql://user@host:port/database, without a password")
    try:
        parts = urlsplit(resource.destination)
        port = parts.port or PORT
    except ValueError as error:
        raise wrong from error
    database = unquote(parts.path.removeprefix("/"))
    if parts.scheme != "postgresql" or not parts.hostname or not parts.username or not database or parts.password:
        raise wrong
    tls = resource.settings.get("tls", "verify-full")
    if tls not in {"verify-full", "loopback"} or (tls == "loopback" and not is_loopback(parts.hostname)):
        raise InvalidRequestError('`tls` must be "verify-full", or "loopback" for a server on this machine')
    return DatabaseAddress(parts.hostname, port, database, unquote(parts.username), str(tls))


def _engine(resource: Resource, secret: Secret | None, context: EngineContext) -> Engine:
    if find_spec("asyncpg") is None:
        raise UnavailableError(
            "the PostgreSQL engine is not installed", help="in a clone of remit: pip install '.[postgres]'"
        )
    from remit.kinds.postgres.engine import PostgresEngine

    return PostgresEngine(resource, secret, clock=context.clock, random=context.random)


def _plan(resource: Resource, context: EngineContext, wanted: LeaseRequest) -> Plan:
    from remit.kinds.postgres.plan import plan

    return plan(resource, context, wanted)


def _address(resource: Resource) -> tuple[str, int]:
    from remit.gateway.target import read_host

    place = target(resource)
    return read_host(place.host), place.port


def _check(resource: Resource, secret: Secret | None, context: EngineContext) -> None:
    """Leave it to the engine, which reads the destination when it is made."""


def local(credential: Mapping[str, str], port: int) -> Mapping[str, str]:
    """Return a credential that points to a port of this machine, without TLS: the gateway speaks it to the server."""
    if "dsn" not in credential:
        return credential
    parts = urlsplit(credential["dsn"])
    login, at, _ = parts.netloc.rpartition("@")
    kept = [option for option in parts.query.split("&") if option and not option.startswith("ssl")]
    moved = parts._replace(netloc=f"{login}{at}{HERE}:{port}", query="&".join([*kept, "sslmode=disable"]))
    return {**credential, "dsn": urlunsplit(moved), "host": HERE, "port": str(port)}


def _session(resource: Resource) -> PortSession:
    from remit.kinds.postgres.port import PostgresSession

    return PostgresSession(target(resource))


KIND = Kind(
    name="postgres",
    table={
        "actions": Field(orders.among("select", "insert", "update", "delete"), required=True, label="may"),
        "tables": Field(orders.TABLES, required=True),
        "columns": Field(orders.COLUMNS, per="tables"),
        "ttl": Field(orders.SECONDS, label="each credential for"),
    },
    schemes=("postgresql",),
    destination="postgresql://user@host:port/database",
    docs="docs/reference/engines/postgres.md",
    check=_check,
    access=PortAccess(PORT, _address, local, _session),
    engine=_engine,
    plan=_plan,
    inspects=True,
)
