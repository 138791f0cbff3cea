from __future__ import annotations

import asyncio
import secrets
import socket
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from remit.core.scope import parse_detail
from remit.core.secret import Secret
from remit.core.task import Plan, Revocation
from remit.errors import EngineError, EngineRefusedError, InvalidRequestError
from remit.kinds.postgres import DatabaseAddress, target
from remit.kinds.postgres.connections import quoted, wrapped
from remit.kinds.postgres.engine import PostgresEngine
from remit.kinds.postgres.inspect import setup_sql
from remit.kinds.postgres.plan import plan as planned
from remit.ports import Bulk, Cleanable, Closable, Inspectable, Renewable, Resource
from remit.ports.kind import LeaseRequest
from tests.support.kinds import NOTHING_LENT

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
DETAIL = parse_detail(
    {
        "type": "postgres",
        "resource": "warehouse",
        "actions": ["select"],
        "tables": ["sales.revenue", "hr.Staff"],
        "columns": {"hr.Staff": ["name"]},
    }
)


def _resource(destination: str, settings: Mapping[str, object] = {"tls": "loopback"}) -> Resource:
    return Resource("warehouse", "postgres", destination, (DETAIL,), "pw", settings)


def _engine(destination: str = "postgresql://remit@127.0.0.1:5432/shop") -> PostgresEngine:
    return PostgresEngine(_resource(destination), Secret("canary"), clock=lambda: NOW, random=secrets.token_bytes)


def _planned(destination: str, lease_id: str) -> Plan:
    wanted = LeaseRequest(lease_id, DETAIL, NOW + timedelta(seconds=5), "spiffe://remit.test/agent")
    return planned(_resource(destination), NOTHING_LENT, wanted)


def test_a_destination_is_read_into_its_parts() -> None:
    read = target(_resource("postgresql://my%20remit@[::1]:6543/my%2Fshop"))
    assert read == DatabaseAddress("::1", 6543, "my/shop", "my remit", "loopback")
    assert target(_resource("postgresql://remit@db.example/shop", {})) == DatabaseAddress(
        "db.example", 5432, "shop", "remit", "verify-full"
    )


@pytest.mark.parametrize(
    "destination",
    [
        "postgresql://remit:password@127.0.0.1/shop",
        "postgresql://127.0.0.1/shop",
        "postgresql://remit@127.0.0.1",
        "postgresql:///shop",
        "mysql://remit@127.0.0.1/shop",
        "",
        "postgresql://remit@db.example/shop",  # plain text over a network
        "postgresql://remit@127.0.0.1.example/shop",
        "postgresql://remit@127.0.0.1:x/shop",
        "postgresql://remit@[::1/shop",
    ],
)
def test_a_destination_that_is_incomplete_or_in_the_clear_is_refused(destination: str) -> None:
    with pytest.raises(InvalidRequestError):
        target(_resource(destination))


@pytest.mark.parametrize("tls", ["require", "", True, None])
def test_there_is_no_third_way_beside_verified_tls_and_loopback(tls: object) -> None:
    with pytest.raises(InvalidRequestError):
        target(_resource("postgresql://remit@127.0.0.1/shop", {"tls": tls}))


def test_a_plan_is_named_after_its_lease_and_holds_what_undoing_needs() -> None:
    plan = _planned("postgresql://remit@127.0.0.1:5432/shop", "lse_abc-_9")
    assert plan.name == "remit_lse_abc-_9"
    assert plan.undo == {"destination": "postgresql://remit@127.0.0.1:5432/shop", "role": "remit_lse_abc-_9"}
    assert plan.revocation is Revocation.BY_NAME
    assert "canary" not in repr(plan)


def test_the_engine_has_every_capability() -> None:
    engine = _engine()
    for capability in (Renewable, Bulk, Cleanable, Inspectable, Closable):
        assert isinstance(engine, capability)


def test_a_dead_server_is_an_engine_error_that_says_where_and_why() -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        where = f"postgresql://remit@127.0.0.1:{port}/shop"
        engine = _engine(where)

        async def run() -> EngineError:
            plan = _planned(where, "lse_x")
            for work in (engine.revoke(plan, None), engine.renew(plan, None, NOW), engine.inspect()):
                with pytest.raises(EngineError):
                    await work
            with pytest.raises(EngineError):
                await engine.clean([plan])
            with pytest.raises(EngineError) as raised:
                await engine.issue(plan, NOW)
            await engine.close()
            return raised.value

        error = asyncio.run(run())
        assert error.detail == f"the database at 127.0.0.1:{port} could not be reached: connection refused"


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (TimeoutError(), "no answer in 5 seconds"),
        (socket.gaierror(-2, "canary"), "its name is not known"),
        (OSError("Multiple exceptions: canary"), "the connection broke"),
        (OSError(113, "canary"), "no route to host"),
    ],
)
def test_why_a_server_is_out_of_reach_is_told_in_our_words(error: Exception, why: str) -> None:
    place = DatabaseAddress("db.test", 5432, "shop", "remit", "loopback")
    assert wrapped(error, place).detail == f"the database at db.test:5432 could not be reached: {why}"


@pytest.mark.parametrize(
    ("error", "help_"),
    [
        (asyncpg.InvalidPasswordError("canary"), "remit secret set"),
        (asyncpg.InvalidAuthorizationSpecificationError("canary"), "remit secret set"),
        (ConnectionError('PostgreSQL server at "canary" rejected SSL upgrade'), "`tls`"),
        (ssl.SSLCertVerificationError("canary"), "the host's name"),
    ],
)
def test_what_keeps_a_login_out_says_what_to_do(error: Exception, help_: str) -> None:
    shown = wrapped(error)
    assert help_ in (shown.help or "")
    assert "canary" not in f"{shown} {shown.help}"


def test_driver_errors_are_wrapped_without_their_words() -> None:
    refused = asyncpg.exceptions.InsufficientPrivilegeError("permission denied for canary")
    failed = asyncpg.exceptions.SerializationError("could not serialise canary")
    broken = ConnectionResetError("canary")
    assert isinstance(wrapped(refused), EngineRefusedError)
    kinds = [type(wrapped(error)) for error in (failed, broken)]
    assert kinds == [EngineError, EngineError]
    assert not any("canary" in str(wrapped(error)) for error in (refused, failed, broken))


def test_an_identifier_is_quoted_as_one() -> None:
    assert quoted('a"b; --') == '"a""b; --"'


def test_the_setup_statements_give_what_the_bound_needs_and_nothing_else() -> None:
    lines = setup_sql(_resource("postgresql://remit@127.0.0.1:5432/shop")).splitlines()
    grants = [line for line in lines if line.startswith("GRANT")]
    assert grants == [
        'GRANT pg_signal_backend TO "remit";',
        'GRANT pg_read_all_stats TO "remit";',
        'GRANT CONNECT ON DATABASE "shop" TO "remit" WITH GRANT OPTION;',
        'GRANT USAGE ON SCHEMA "hr" TO "remit" WITH GRANT OPTION;',
        'GRANT USAGE ON SCHEMA "sales" TO "remit" WITH GRANT OPTION;',
        'GRANT SELECT ("name") ON TABLE "hr"."Staff" TO "remit" WITH GRANT OPTION;',
        'GRANT SELECT ON TABLE "sales"."revenue" TO "remit" WITH GRANT OPTION;',
    ]
    assert lines[0] == 'CREATE ROLE "remit" LOGIN NOSUPERUSER CREATEROLE;'
    assert "canary" not in "".join(lines)
