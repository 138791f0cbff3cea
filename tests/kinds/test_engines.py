"""Engines are made of values, and are what their keys say."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from remit.core.lease import Revocation
from remit.core.secret import Secret
from remit.errors import InvalidRequestError, UnknownEngineError
from remit.kinds.engines import HeldEngines
from remit.ports import Engine, Resource
from remit.ports.targets import EngineKey, EngineTraits
from tests.broker.world import FullEngine, PlainEngine, Target, run, search, warehouse
from tests.support.kinds import NOTHING_LENT, simulated

FIRST, SECOND = EngineKey("warehouse", 1), EngineKey("warehouse", 2)


def engines(engine: type[PlainEngine], made: list[tuple[Resource, Secret | None]]) -> HeldEngines:
    def make(resource: Resource, secret: Secret | None) -> Engine:
        made.append((resource, secret))
        return engine(target)

    target = Target()
    return HeldEngines(simulated(make), NOTHING_LENT)


@pytest.mark.parametrize(("engine", "able"), [(PlainEngine, False), (FullEngine, True)])
def test_what_an_engine_can_do_is_a_value(engine: type[PlainEngine], *, able: bool) -> None:
    async def body() -> None:
        traits = await engines(engine, []).configure(FIRST, warehouse(), None)
        assert traits == EngineTraits(Revocation.BY_NAME, able, able, able, able)

    run(body())


def test_an_engine_that_is_configured_again_stays_the_one_it_is() -> None:
    async def body() -> None:
        made: list[tuple[Resource, Secret | None]] = []
        held, moved = engines(FullEngine, made), replace(warehouse(), destination="postgresql://a@127.0.0.1/other")
        await held.configure(FIRST, warehouse(), Secret("pw"))
        await held.configure(FIRST, moved, Secret("other"))
        await held.configure(SECOND, moved, Secret("other"))
        assert made == [(warehouse(), Secret("pw")), (moved, Secret("other"))]

    run(body())


def test_an_engine_that_was_not_configured_here_or_is_closed_is_unknown() -> None:
    async def body() -> None:
        held = engines(FullEngine, [])
        await held.configure(FIRST, warehouse(), None)
        with pytest.raises(UnknownEngineError):
            await held.inspect_target(SECOND)
        await held.close_engine(FIRST)
        with pytest.raises(UnknownEngineError):
            await held.inspect_target(FIRST)
        await held.close_engine(FIRST)

    run(body())


def test_a_kind_without_an_engine_is_not_configured() -> None:
    async def body() -> None:
        held = engines(FullEngine, [])
        with pytest.raises(InvalidRequestError):
            await held.configure(FIRST, search(), None)
        with pytest.raises(InvalidRequestError):
            await held.configure(FIRST, replace(search(), kind="other"), None)

    run(body())


PLANNED = """
import sys
from datetime import UTC, datetime
from remit.broker import Broker
from remit.compose import kinds, wiring
from remit.core.scope import parse_detail
from remit.ports import Resource
from remit.ports.kind import LeaseRequest
kind = kinds.known()["postgres"]
detail = parse_detail({"type": "postgres", "resource": "sales", "actions": ["select"], "tables": ["a.b"]})
resource = Resource("sales", "postgres", "postgresql://remit@db.example/sales", (detail,), None, {})
plan = kind.plan(resource, None, LeaseRequest("lse_1", detail, datetime.now(UTC), "spiffe://remit.test/agent"))
assert plan.name == "remit_lse_1"
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"asyncpg", "grpc", "spiffe"}))
"""


def test_a_lease_is_planned_in_a_process_that_has_no_driver() -> None:
    done = subprocess.run([sys.executable, "-c", PLANNED], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == ""
