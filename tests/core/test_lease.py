"""One lease: when it is over, when a revoke is final, and what can truthfully be said meanwhile."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from remit.core import lease as leases
from remit.core.lease import Closure, Lease, LeaseState, Plan, Revocation
from remit.core.scope import Detail

NOW = datetime(2026, 1, 1, tzinfo=UTC)
INSTANT = timedelta(microseconds=1)
PLAN = Plan("remit_lse_1", Detail("postgres", "warehouse", ()), {}, NOW + timedelta(seconds=10))
PLANNED = Lease("lse_1", "grt_1", PLAN, LeaseState.PLANNED, NOW + timedelta(minutes=10))
ACTIVE = replace(PLANNED, state=LeaseState.ACTIVE, confirmed=True)


def of(revocation: Revocation, lease: Lease = ACTIVE, receipt: dict[str, str] | None = None) -> Lease:
    """Return a lease of another class of revocation."""
    return replace(lease, plan=replace(PLAN, revocation=revocation), receipt=receipt)


def test_a_planned_lease_is_overdue_at_its_issue_by_and_an_active_one_at_its_end() -> None:
    assert not PLANNED.overdue(PLAN.issue_by - INSTANT)
    assert PLANNED.overdue(PLAN.issue_by)
    assert not ACTIVE.overdue(ACTIVE.expires_at - INSTANT)
    assert ACTIVE.overdue(ACTIVE.expires_at)


@pytest.mark.parametrize("state", [LeaseState.REVOKING, LeaseState.REVOKED])
def test_a_lease_that_is_ending_is_not_overdue(state: LeaseState) -> None:
    assert not replace(ACTIVE, state=state).overdue(NOW + timedelta(days=1))
    assert not replace(ACTIVE, state=state).standing


def test_planned_and_active_leases_stand() -> None:
    assert PLANNED.standing
    assert ACTIVE.standing


def test_something_is_to_be_done_about_a_lease_at_its_end_when_it_is_tried_again_or_at_once() -> None:
    tried = replace(ACTIVE, state=LeaseState.REVOKING, retry_at=NOW)
    assert [lease.due_at for lease in (PLANNED, ACTIVE, tried)] == [PLAN.issue_by, ACTIVE.expires_at, NOW]
    assert ACTIVE.revoking().due_at is None
    assert replace(ACTIVE, state=LeaseState.REVOKED).due_at is None


def test_revoking_makes_a_lease_due_at_once() -> None:
    tried = replace(ACTIVE, attempts=3, retry_at=NOW)
    assert tried.revoking() == replace(ACTIVE, state=LeaseState.REVOKING)


def test_what_was_never_confirmed_settles_at_its_issue_by_because_an_issue_may_be_in_flight() -> None:
    assert not PLANNED.settles(PLAN.issue_by - INSTANT)
    assert PLANNED.settles(PLAN.issue_by)
    assert PLANNED.settle_at == PLAN.issue_by


def test_what_was_confirmed_settles_at_once() -> None:
    assert ACTIVE.settles(NOW)
    assert of(Revocation.BY_RECEIPT, receipt={"id": "1"}).settles(NOW)


@pytest.mark.parametrize(
    "lease", [of(Revocation.BY_EXPIRY), of(Revocation.BY_RECEIPT), of(Revocation.BY_RECEIPT, PLANNED)]
)
def test_what_nothing_can_recall_settles_when_it_expires(lease: Lease) -> None:
    assert not lease.recallable
    assert not lease.settles(lease.expires_at - INSTANT)
    assert lease.settles(lease.expires_at)
    assert lease.settle_at == lease.expires_at


def test_a_name_or_a_receipt_recalls() -> None:
    assert ACTIVE.recallable
    assert of(Revocation.BY_RECEIPT, receipt={"id": "1"}).recallable


def test_back_off_doubles_up_to_a_cap_and_never_ends() -> None:
    lease, waits = ACTIVE.revoking(), []
    for _ in range(12):
        lease = lease.failed(NOW)
        assert lease.retry_at is not None
        waits.append((lease.retry_at - NOW).total_seconds())
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    assert replace(lease, attempts=10**6).failed(NOW).retry_at == NOW + leases.BACK_OFF_CAP


def test_a_lease_is_stuck_after_six_failures() -> None:
    assert not replace(ACTIVE, attempts=5).stuck
    assert replace(ACTIVE, attempts=6).stuck


ENDING = replace(ACTIVE, state=LeaseState.REVOKING)
SAID = {
    "nothing is left": ((), Closure.CLOSED),
    "one was not revoked yet": ((ENDING,), Closure.UNKNOWN),
    "one only expires": ((of(Revocation.BY_EXPIRY, ENDING),), Closure.PARTIAL),
    "one has a receipt that was never seen": ((of(Revocation.BY_RECEIPT, ENDING),), Closure.PARTIAL),
    "one only expires and failed": ((replace(of(Revocation.BY_EXPIRY, ENDING), attempts=1),), Closure.UNKNOWN),
    "both": ((of(Revocation.BY_EXPIRY, ENDING), ENDING), Closure.UNKNOWN),
}


@pytest.mark.parametrize(("outstanding", "state"), SAID.values(), ids=SAID.keys())
def test_the_closure_says_what_is_known(outstanding: tuple[Lease, ...], state: Closure) -> None:
    assert leases.closure(outstanding) is state


def test_a_report_says_what_is_outstanding_and_that_no_checkpoint_covers_it() -> None:
    detail = replace(PLAN.detail, type="http")
    left = replace(ENDING, plan=replace(PLAN, detail=detail))
    told = leases.Report(Closure.UNKNOWN, 2, (left,), 1, recorded=False, covered=False).wire(datetime.isoformat)
    assert told == {
        "state": "unknown",
        "revoked": 2,
        "outstanding": [
            {"lease": left.id, "kind": "http", "expires_at": left.expires_at.isoformat()},
            {"lease": None, "kind": "checkpoint", "expires_at": None},
        ],
        "residue": 1,
        "recorded": False,
    }


def test_a_report_of_nothing_is_of_what_has_ended() -> None:
    nothing = {"state": "closed", "revoked": 0, "outstanding": [], "residue": 0, "recorded": True}
    assert leases.Report().wire(datetime.isoformat) == nothing


def test_the_size_of_a_lease_is_that_of_its_detail_as_json() -> None:
    assert replace(ACTIVE, plan=replace(PLAN, detail=Detail("http", "a", (), '{"type":"http"}'))).size == 15
