from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

import pytest

from remit.core.scope import Detail
from remit.core.task import Plan, Revocation
from remit.ports import Issued
from remit.ports.kind import LeaseRequest
from remit.testing.engine_contract import CASES, NEEDS, Case, Session, engine_contract
from remit.testing.samples import NOW, SCOPE
from tests.support.kinds import planned
from tests.support.simulated_target import BulkEngine, SimulatedEngine, SimulatedTarget


def _now() -> datetime:
    return NOW


@dataclass
class Simulated:
    """The simulator, as the contract wants to see a target."""

    target: SimulatedTarget
    make: Callable[[SimulatedTarget], SimulatedEngine]

    @property
    def engine(self) -> SimulatedEngine:
        return self.again()

    def again(self) -> SimulatedEngine:
        return self.make(self.target)

    def plan(self, wanted: LeaseRequest) -> Plan:
        return planned(self.engine, wanted)

    def detail(self) -> Detail:
        return SCOPE[1]

    def now(self) -> datetime:
        return NOW

    async def permits(self, issued: Issued) -> bool:
        return str(issued.credential["user"]) in self.target.live()

    async def exceeds(self, issued: Issued) -> list[str]:
        del issued  # an account of the simulator can do nothing but be there
        return []

    async def exists(self, name: str) -> bool:
        if self.target.revocation is Revocation.BY_RECEIPT:
            return name in self.target._names
        return name in self.target.accounts or name in self.target.leftovers

    async def session(self, issued: Issued) -> Session:
        raise NotImplementedError

    @asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        for verb in ("issue", "revoke"):
            self.target.fail(verb, 1_000)
        try:
            yield
        finally:
            for verb in ("issue", "revoke"):
                self.target.fail(verb, 0)


def _opening(
    revocation: Revocation, make: Callable[[SimulatedTarget], SimulatedEngine] = SimulatedEngine
) -> Callable[[], AbstractAsyncContextManager[Simulated]]:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Simulated]:
        yield Simulated(SimulatedTarget(_now, revocation), make)

    return opened


KINDS = {
    "by-name": (_opening(Revocation.BY_NAME), frozenset({"sessions", "bulk", "clean"})),
    "by-receipt": (_opening(Revocation.BY_RECEIPT), frozenset({"sessions", "bulk", "clean"})),
    "by-expiry": (_opening(Revocation.BY_EXPIRY), frozenset({"sessions", "bulk", "clean", "revoke"})),
    "bulk": (_opening(Revocation.BY_NAME, BulkEngine), frozenset({"sessions"})),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_the_simulator_keeps_the_contract_and_declares_its_gaps(case: Case, kind: str) -> None:
    opened, gaps = KINDS[kind]
    assert engine_contract(case, opened, gaps) is not bool(NEEDS[case] & gaps)


@pytest.mark.parametrize("gap", ["bulk", "clean", "renew", "revoke"])
def test_a_gap_that_is_none_is_an_error(gap: str) -> None:
    opened, _ = KINDS["bulk"]
    with pytest.raises(AssertionError, match="is declared a gap"):
        engine_contract(CASES[0], opened, frozenset({gap}))


def test_a_gap_that_nobody_knows_is_an_error() -> None:
    with pytest.raises(AssertionError, match="no such gap"):
        engine_contract(CASES[0], KINDS["bulk"][0], frozenset({"coffee"}))


class Lazy(SimulatedEngine):
    """An engine that says it revoked."""

    async def revoke(self, plan: Plan, receipt: Mapping[str, str] | None) -> None:
        """Do nothing."""


class Careless(SimulatedEngine):
    """An engine that forgets the deadline, and takes a taken name for its own."""

    async def issue(self, plan: Plan, expires_at: datetime) -> Issued:
        self.target.accounts[plan.name] = expires_at
        return Issued({"user": plan.name, "password": "in the clear"})


@pytest.mark.parametrize("engine", [Lazy, Careless])
def test_the_contract_catches_an_engine_that_does_not_do_its_work(engine: type[SimulatedEngine]) -> None:
    caught = 0
    for case in CASES:
        try:
            engine_contract(case, _opening(Revocation.BY_NAME, engine), frozenset({"sessions", "bulk", "clean"}))
        except AssertionError:
            caught += 1
    assert caught >= 3
