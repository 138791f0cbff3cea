"""What every implementation of ``ports.Engine`` must do, asserted at the target and not at the return value.

Run it against yours::

    from remit.testing.engine_contract import CASES, engine_contract


    @pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
    def test_my_engine_keeps_the_contract(case):
        engine_contract(case, my_target, gaps=frozenset({"sessions"}))

``my_target()`` is an async context manager that yields an ``ObservedTarget``. What a target cannot show is declared in
``gaps``, by the names in ``GAPS``; a case that needs it is then not run, and says so by returning False. A gap that is
declared though the engine has the capability fails: gaps are statements, not switches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Protocol

from remit.core.scope import Detail
from remit.core.secret import Secret
from remit.core.task import Plan, Revocation
from remit.errors import EngineError
from remit.ports import Bulk, Cleanable, Engine, Issued, Renewable
from remit.ports.kind import LeaseRequest
from remit.testing import raises

WINDOW = timedelta(seconds=30)
LIFE = timedelta(minutes=10)
MANY = 24
AGENT = "spiffe://remit.test/task/task_contract/grt_contract"

GAPS = {
    "sessions": "the target has no sessions that outlive a request",
    "expiry": "the target does not refuse an expired credential by itself",
    "outage": "the target cannot be made unreachable",
    "renew": "the engine is not Renewable",
    "bulk": "the engine is not Bulk",
    "clean": "the engine is not Cleanable",
    "revoke": "credentials end by expiry alone",
}
_CAPABILITIES: dict[str, type] = {"renew": Renewable, "bulk": Bulk, "clean": Cleanable}


class Session(Protocol):
    """Something opened with a credential that goes on without presenting it again."""

    async def works(self) -> bool:
        """Whether it can still do what the detail permits."""


class ObservedTarget(Protocol):
    """The target as a test sees it, beside the engine."""

    @property
    def engine(self) -> Engine:
        """The engine under test."""

    def again(self) -> Engine:
        """Return another engine on the same resource, as after a restart of the broker."""

    def plan(self, wanted: LeaseRequest) -> Plan:
        """Return what the ``plan`` of the kind makes for this resource."""

    def detail(self) -> Detail:
        """Return a detail that the target can grant."""

    def now(self) -> datetime:
        """Return the engine's clock."""

    async def permits(self, issued: Issued) -> bool:
        """Try, with a credential, what ``detail`` permits, in a new session."""

    async def exceeds(self, issued: Issued) -> list[str]:
        """Try, with a credential, what ``detail`` does not permit; return what was possible."""

    async def exists(self, name: str) -> bool:
        """Whether the target knows the credential's name."""

    async def session(self, issued: Issued) -> Session:
        """Open a session (gap ``sessions``)."""

    def outage(self) -> AbstractAsyncContextManager[None]:
        """Make the target unreachable for a while (gap ``outage``)."""


Case = Callable[[ObservedTarget], Awaitable[None]]
Open = Callable[[], AbstractAsyncContextManager[ObservedTarget]]


def engine_contract(case: Case, factory: Open, gaps: frozenset[str] = frozenset()) -> bool:
    """Run one case; return False when a declared gap leaves it out."""
    unknown = gaps - GAPS.keys()
    assert not unknown, f"there is no such gap: {sorted(unknown)}"
    return asyncio.run(_run(case, factory, gaps))


async def _run(case: Case, factory: Open, gaps: frozenset[str]) -> bool:
    async with factory() as target:
        for gap in gaps & _CAPABILITIES.keys():
            assert not isinstance(target.engine, _CAPABILITIES[gap]), f"`{gap}` is declared a gap, and is there"
        if "revoke" in gaps:
            assert target.engine.revocation is Revocation.BY_EXPIRY, "`revoke` is declared a gap, and is there"
        if NEEDS[case] & gaps:
            return False
        await case(target)
    return True


def _plan(target: ObservedTarget, number: int = 0, window: timedelta = WINDOW) -> Plan:
    return target.plan(_wanted(target, f"lse_contract{number:014d}", window))


def _wanted(target: ObservedTarget, lease_id: str, window: timedelta = WINDOW) -> LeaseRequest:
    return LeaseRequest(lease_id, target.detail(), target.now() + window, AGENT)


async def _issue(target: ObservedTarget, number: int = 0, life: timedelta = LIFE) -> tuple[Plan, Issued]:
    plan = _plan(target, number)
    return plan, await target.engine.issue(plan, target.now() + life)


def _secrets(issued: Issued) -> list[str]:
    return [value.reveal() for value in issued.credential.values() if isinstance(value, Secret)]


async def plan_is_pure(target: ObservedTarget) -> None:
    """Same arguments, same plan; another lease, another name; nothing happens at the target."""
    wanted, another = (_wanted(target, f"lse_pure{n}") for n in (1, 2))
    first, again, other = (target.plan(each) for each in (wanted, wanted, another))
    assert first == again
    assert first.name != other.name
    assert first.issue_by == wanted.issue_by
    assert first.detail == target.detail()
    assert first.revocation is target.engine.revocation
    assert not await target.exists(first.name)


async def a_plan_holds_no_secret(target: ObservedTarget) -> None:
    """It is stored, logged and shown."""
    plan, issued = await _issue(target)
    assert not any(secret in repr(plan) for secret in _secrets(issued))


async def an_issued_credential_works_under_the_planned_name(target: ObservedTarget) -> None:
    plan, issued = await _issue(target)
    assert await target.exists(plan.name)
    assert await target.permits(issued)


async def a_credential_permits_no_more_than_its_detail(target: ObservedTarget) -> None:
    _, issued = await _issue(target)
    assert await target.exceeds(issued) == []


async def what_is_secret_in_a_credential_is_a_secret(target: ObservedTarget) -> None:
    _, issued = await _issue(target)
    secrets = _secrets(issued)
    assert secrets
    assert not any(secret in repr(issued) for secret in secrets)


async def issue_after_its_deadline_has_no_effect(target: ObservedTarget) -> None:
    """``issue_by`` is what lets a lease that was never confirmed settle."""
    plan = _plan(target, window=timedelta(0))
    await raises(EngineError, target.engine.issue(plan, target.now() + LIFE))
    assert not await target.exists(plan.name)


async def a_name_is_issued_once(target: ObservedTarget) -> None:
    plan, issued = await _issue(target)
    await raises(EngineError, target.engine.issue(plan, target.now() + LIFE))
    assert await target.permits(issued)


async def concurrent_issues_of_one_detail_all_succeed(target: ObservedTarget) -> None:
    issued = await asyncio.gather(*(_issue(target, number) for number in range(MANY)))
    assert len({secret for _, each in issued for secret in _secrets(each)}) >= MANY
    assert all([await target.permits(each) for _, each in issued])


async def an_unreachable_target_is_an_engine_error(target: ObservedTarget) -> None:
    """Neither issue nor revoke takes silence for success."""
    plan, _ = await _issue(target)
    async with target.outage():
        await raises(EngineError, target.engine.issue(_plan(target, 1), target.now() + LIFE))
        await raises(EngineError, target.engine.revoke(plan, None))
    await target.again().revoke(plan, None)


async def the_target_itself_refuses_an_expired_credential(target: ObservedTarget) -> None:
    """A dead broker leaves nothing behind that works."""
    _, issued = await _issue(target, life=timedelta(seconds=-5))
    assert not await target.permits(issued)


async def renew_moves_the_end(target: ObservedTarget) -> None:
    plan, issued = await _issue(target, life=timedelta(seconds=-5))
    assert isinstance(target.engine, Renewable)
    await target.engine.renew(plan, issued.receipt, target.now() + LIFE)
    assert await target.permits(issued)


async def a_revoked_credential_cannot_be_renewed(target: ObservedTarget) -> None:
    plan, issued = await _issue(target)
    await target.engine.revoke(plan, issued.receipt)
    assert isinstance(target.engine, Renewable)
    await raises(EngineError, target.engine.renew(plan, issued.receipt, target.now() + LIFE))
    assert not await target.permits(issued)


async def a_revoked_credential_is_useless(target: ObservedTarget) -> None:
    """When revoke returns, nothing works any more; others do."""
    plan, issued = await _issue(target)
    _, other = await _issue(target, 1)
    await target.engine.revoke(plan, issued.receipt)
    assert not await target.permits(issued)
    assert await target.permits(other)


async def revoke_ends_open_sessions(target: ObservedTarget) -> None:
    plan, issued = await _issue(target)
    session = await target.session(issued)
    assert await session.works()
    await target.engine.revoke(plan, issued.receipt)
    assert not await session.works()


async def a_plan_is_enough_to_revoke(target: ObservedTarget) -> None:
    """After a crash there is nothing else: another engine, no receipt."""
    plan, issued = await _issue(target)
    receipt = issued.receipt if target.engine.revocation is Revocation.BY_RECEIPT else None
    await target.again().revoke(plan, receipt)
    assert not await target.permits(issued)


async def absence_is_success(target: ObservedTarget) -> None:
    plan, issued = await _issue(target)
    await target.engine.revoke(_plan(target, 1), None)
    await target.engine.revoke(plan, issued.receipt)
    await target.engine.revoke(plan, issued.receipt)
    assert not await target.permits(issued)


async def many_are_revoked_at_once(target: ObservedTarget) -> None:
    """All names come back, those that never were too."""
    issued = [await _issue(target, number) for number in range(5)]
    plans = [plan for plan, _ in issued] + [_plan(target, 99)]
    assert isinstance(target.engine, Bulk)
    assert await target.engine.revoke_many(plans) == {plan.name for plan in plans}
    assert not any([await target.permits(each) for _, each in issued])
    assert await target.engine.revoke_many([]) == frozenset()


async def cleaning_leaves_nothing_of_what_was_revoked(target: ObservedTarget) -> None:
    """The names are gone from the target; to clean what is gone is success."""
    issued = [await _issue(target, number) for number in range(3)]
    plans = [plan for plan, _ in issued]
    for plan, each in issued:
        await target.engine.revoke(plan, each.receipt)
    assert isinstance(target.engine, Cleanable)
    assert await target.engine.clean(plans) == {plan.name for plan in plans}
    assert not any([await target.exists(plan.name) for plan in plans])
    assert await target.engine.clean(plans) == {plan.name for plan in plans}


async def cleaning_spares_what_was_not_revoked(target: ObservedTarget) -> None:
    plan, issued = await _issue(target)
    assert isinstance(target.engine, Cleanable)
    assert await target.engine.clean([plan]) == frozenset()
    assert await target.permits(issued)


NEEDS: dict[Case, frozenset[str]] = {  # what of a target a case cannot do without
    plan_is_pure: frozenset(),
    a_plan_holds_no_secret: frozenset(),
    an_issued_credential_works_under_the_planned_name: frozenset(),
    a_credential_permits_no_more_than_its_detail: frozenset(),
    what_is_secret_in_a_credential_is_a_secret: frozenset(),
    issue_after_its_deadline_has_no_effect: frozenset(),
    a_name_is_issued_once: frozenset(),
    concurrent_issues_of_one_detail_all_succeed: frozenset(),
    an_unreachable_target_is_an_engine_error: frozenset({"outage", "revoke"}),
    the_target_itself_refuses_an_expired_credential: frozenset({"expiry"}),
    renew_moves_the_end: frozenset({"renew", "expiry"}),
    a_revoked_credential_cannot_be_renewed: frozenset({"renew", "revoke"}),
    a_revoked_credential_is_useless: frozenset({"revoke"}),
    revoke_ends_open_sessions: frozenset({"sessions", "revoke"}),
    a_plan_is_enough_to_revoke: frozenset({"revoke"}),
    absence_is_success: frozenset({"revoke"}),
    many_are_revoked_at_once: frozenset({"bulk"}),
    cleaning_leaves_nothing_of_what_was_revoked: frozenset({"clean"}),
    cleaning_spares_what_was_not_revoked: frozenset({"clean"}),
}
CASES: tuple[Case, ...] = tuple(NEEDS)
