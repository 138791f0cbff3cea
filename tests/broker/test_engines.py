"""What the broker holds to when it asks an engine, wherever that runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from datetime import datetime, timedelta

import pytest

from remit.broker.engines import AT_ONCE, PORTION, Bounded, ResourceEngine
from remit.core.secret import Secret
from remit.core.task import Plan
from remit.errors import EngineError, UnavailableError, UnknownEngineError
from remit.kinds.engines import HeldEngines
from remit.ports import Issued, Resource
from remit.ports.kind import LeaseRequest
from remit.ports.targets import EngineKey, EnginePort, EngineTraits
from tests.broker.samples import DETAIL
from tests.broker.world import START, FullEngine, Target, World, run, warehouse
from tests.support.kinds import NOTHING_LENT, simulated

KEY, LIFE = EngineKey("warehouse", 0), timedelta(minutes=5)


class Reborn(HeldEngines):
    """Engines of a process that may die, and another begin in its place; every configuration is counted."""

    def __init__(self, target: Target) -> None:
        super().__init__(simulated(lambda _resource, _secret: FullEngine(target)), NOTHING_LENT)
        self.configured: list[Secret | None] = []
        self.dead = False

    def die(self) -> None:
        self._engines.clear()

    async def configure(self, engine: EngineKey, resource: Resource, secret: Secret | None) -> EngineTraits:
        if self.dead:
            raise UnavailableError("the process that reaches targets has ended")
        self.configured.append(secret)
        return await super().configure(engine, resource, secret)


class Stuck(Reborn):
    """One whose targets answer nothing."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.asked: list[str] = []
        self.answers = asyncio.Event()

    async def issue_credential(self, engine: EngineKey, plan: Plan, expires_at: datetime) -> Issued:
        self.asked.append(plan.name)
        await self.answers.wait()
        return await super().issue_credential(engine, plan, expires_at)

    async def revoke_credential(self, engine: EngineKey, plan: Plan, receipt: Mapping[str, str] | None) -> None:
        self.asked.append(f"not {plan.name}")
        await super().revoke_credential(engine, plan, receipt)


class Portioned(Reborn):
    """One that tells how many plans came in each call."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.calls: list[int] = []

    async def revoke_credentials(self, engine: EngineKey, plans: Sequence[Plan]) -> frozenset[str]:
        self.calls.append(len(plans))
        return await super().revoke_credentials(engine, plans)

    async def clean_credentials(self, engine: EngineKey, plans: Sequence[Plan]) -> frozenset[str]:
        self.calls.append(len(plans))
        return await super().clean_credentials(engine, plans)


def planned(number: int = 0, undo: int = 0) -> Plan:
    """Return a plan of which revoking needs so many bytes."""
    wanted = LeaseRequest(f"lse_{number}", DETAIL, START + LIFE, "spiffe://remit.test/agent")
    return Plan(f"remit_{wanted.id}", wanted.detail, {"undo": "u" * undo} if undo else {}, wanted.issue_by)


def engine(port: EnginePort, bounded: Bounded = asyncio.wait_for) -> ResourceEngine:
    return ResourceEngine(port, KEY, warehouse(), Secret("admin-pw"), lambda _: planned(), bounded)


def test_an_engine_that_died_with_its_process_is_configured_anew_with_its_secret(world: World) -> None:
    async def body() -> None:
        port = Reborn(world.target)
        asked = engine(port)
        await asked.traits()
        await asked.issue(planned(), START + LIFE)
        port.die()
        await asked.revoke(planned(), None)
        assert (world.target.accounts, port.configured) == ({}, [Secret("admin-pw")] * 2)

    run(body())


def test_while_nothing_reaches_targets_a_call_says_so(world: World) -> None:
    async def body() -> None:
        port = Reborn(world.target)
        asked = engine(port)
        await asked.traits()
        port.die()
        port.dead = True
        with pytest.raises(UnavailableError):
            await asked.issue(planned(), START + LIFE)
        port.dead = False
        await asked.issue(planned(), START + LIFE)

    run(body())


def test_an_engine_that_was_let_go_is_not_made_anew(world: World) -> None:
    async def body() -> None:
        port = Reborn(world.target)
        asked = engine(port)
        await asked.traits()
        await asked.close()
        with pytest.raises(UnknownEngineError):
            await asked.revoke(planned(), None)
        assert len(port.configured) == 1

    run(body())


def test_many_that_hang_are_asked_a_few_at_a_time_and_keep_no_end_waiting(world: World) -> None:
    async def body() -> None:
        port = Stuck(world.target)
        asked = engine(port)
        await asked.traits()
        issues = [asyncio.create_task(asked.issue(planned(n), START + LIFE)) for n in range(AT_ONCE + 8)]
        await asyncio.sleep(0)
        await asked.revoke(planned(), None)
        assert len(port.asked) == AT_ONCE + 1
        port.answers.set()
        await asyncio.gather(*issues)
        assert len(world.target.accounts) == AT_ONCE + 8

    run(body())


def test_a_call_that_is_not_answered_in_time_is_an_engine_error(world: World) -> None:
    async def impatient(call: Awaitable[object], _: float) -> object:
        return await asyncio.wait_for(call, 0.01)

    async def body() -> None:
        asked = engine(Stuck(world.target), impatient)
        await asked.traits()
        with pytest.raises(EngineError, match="did not answer in time"):
            await asked.issue(planned(), START + LIFE)

    run(body())


def test_a_drivers_error_leaves_its_words_behind(world: World) -> None:
    async def body() -> None:
        world.target.fail, world.target.error = {"issue"}, RuntimeError("password canary")
        asked = engine(Reborn(world.target))
        await asked.traits()
        with pytest.raises(EngineError) as failed:
            await asked.issue(planned(), START + LIFE)
        assert "canary" not in f"{failed.value} {failed.value.help}"

    run(body())


def test_a_target_that_is_gone_keeps_no_resource_from_being_changed(world: World) -> None:
    async def body() -> None:
        world.target.fail, world.target.error = {"close"}, EngineError()
        asked = engine(Reborn(world.target))
        await asked.traits()
        await asked.close()
        assert world.target.closed == 1

    run(body())


@pytest.mark.parametrize(
    ("sizes", "calls"),
    [
        ([], []),
        ([0] * 3, [3]),
        ([PORTION // 3] * 5, [2, 2, 1]),
        ([2 * PORTION, 0, 2 * PORTION, 0], [1, 1, 1, 1]),  # what fits into none goes alone
    ],
)
def test_many_plans_go_in_calls_that_each_has_room_for_and_none_is_left_out(
    world: World, sizes: list[int], calls: list[int]
) -> None:
    async def body() -> None:
        port, plans = Portioned(world.target), [planned(n, size) for n, size in enumerate(sizes)]
        asked, names = engine(port), frozenset(f"remit_lse_{n}" for n in range(len(sizes)))
        await asked.traits()
        for plan in plans:
            await asked.issue(plan, START + LIFE)
        assert (await asked.revoke_many(plans), port.calls) == (names, calls)
        assert world.target.accounts == {}
        assert world.target.residue == names
        assert (await asked.clean(plans), port.calls) == (names, calls * 2)
        assert world.target.residue == set()

    run(body())
