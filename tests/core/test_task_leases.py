"""Leases of a task: each step on its own, and what no step may do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from remit.core import scope
from remit.core import task as tasks
from remit.core.grant import GrantContext
from remit.core.lease import STUCK_AFTER, Closure, Lease, LeaseState, Revocation
from remit.core.task import Change, Task, nothing
from remit.errors import (
    ConflictError,
    ExpiredError,
    LimitError,
    RemitError,
    RevokedError,
    ScopeError,
)
from tests.core.sample_task import (
    DETAIL,
    MINUTE,
    NOW,
    SECOND,
    TABLE,
    child,
    lease,
    opened,
    tree,
    with_lease,
)


@pytest.mark.attack("DOS-15")
@pytest.mark.parametrize("bound", ["MAX_LEASES", "MAX_LEASED"])
def test_the_leases_of_a_task_are_bounded_in_number_and_size_until_they_are_forgotten(
    monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    task, size = opened(), scope.size((DETAIL,))
    monkeypatch.setattr(tasks, bound, {"MAX_LEASES": 2, "MAX_LEASED": 2 * size}[bound])
    task = with_lease(with_lease(task, lease(lease_id="lse_1")), lease(lease_id="lse_2"))
    task = task.apply(task.revoke_leases(("lse_1",)))
    with pytest.raises(LimitError, match="a task has at most"):
        task.plan(lease(lease_id="lse_3"), NOW)
    task = task.apply(task.settle(frozenset({"lse_1"}), frozenset(), frozenset(), NOW))
    with pytest.raises(LimitError, match="a task has at most"):
        task.plan(lease(lease_id="lse_3"), NOW)
    task = task.apply(task.cleaned(frozenset({"lse_1"})))
    assert task.leased == size
    assert with_lease(task, lease(lease_id="lse_3")).leased == 2 * size
    read = nothing(task.id).apply(Change(0, task.head, tuple(task.grants.values()), tuple(task.leases.values())))
    assert read.leased == size


# -- plan, confirm --------------------------------------------------------------------------------------------------


def test_a_grant_that_may_only_delegate_is_not_used() -> None:
    with pytest.raises(ScopeError, match="may delegate"):
        opened(exercise=False).usable("root", DETAIL, NOW)


def test_what_the_grant_does_not_cover_is_refused_with_what_would_have_been_enough() -> None:
    other = scope.parse([{**TABLE, "tables": ["hr.staff"]}])[0]
    with pytest.raises(ScopeError) as caught:
        opened().usable("root", other, NOW)
    assert caught.value.enough is not None
    assert caught.value.enough["tables"] == ["hr.staff"]


def test_a_plan_is_recorded_before_anything_exists() -> None:
    task = opened()
    assert task.apply(task.plan(lease(), NOW)).lease("lse_1").state is LeaseState.PLANNED


def test_a_plan_that_is_no_plan_is_refused() -> None:
    task = with_lease(opened(), lease())
    wrong = {
        "known already": lease(),
        "active from the start": lease(lease_id="lse_2", state=LeaseState.ACTIVE),
        "longer than its grant": lease(lease_id="lse_2", expires_at=NOW + 11 * MINUTE),
    }
    for name, made in wrong.items():
        with pytest.raises(ConflictError):
            task.plan(made, NOW)
        assert name


def test_a_plan_under_a_key_ends_what_stands_under_it_in_the_same_grant() -> None:
    task = tree()
    for made in (
        lease("b", "one", key="k"),
        lease("b", "two", key="l"),
        lease("a", "three", key="k"),
        lease("b", "four"),
    ):
        task = with_lease(task, made)
    ended = [item.id for item in task.plan(lease("b", "five", key="k"), NOW).leases]
    assert ended == ["one", "five"]
    assert [item.id for item in task.plan(lease("b", "six"), NOW).leases] == ["six"]


def test_a_confirmed_lease_is_active_and_keeps_its_receipt() -> None:
    task = with_lease(opened(), lease(), confirmed=False)
    after = task.apply(task.confirm("lse_1", {"id": "7"}, NOW)).lease("lse_1")
    assert (after.state, after.receipt, after.confirmed) == (LeaseState.ACTIVE, {"id": "7"}, True)


def test_what_was_claimed_meanwhile_is_not_confirmed() -> None:
    task = with_lease(opened(), lease(), confirmed=False)
    with pytest.raises(ConflictError):
        task.apply(task.revoke_leases(("lse_1",))).confirm("lse_1", None, NOW)


def test_what_took_longer_than_its_issue_by_is_not_confirmed() -> None:
    task = with_lease(opened(), lease(), confirmed=False)
    assert task.confirm("lse_1", None, NOW + 10 * SECOND - timedelta(microseconds=1)).leases
    with pytest.raises(ConflictError):
        task.confirm("lse_1", None, NOW + 10 * SECOND)


def test_nothing_is_confirmed_under_a_grant_that_ended() -> None:
    task = with_lease(opened(), lease(expires_at=NOW + SECOND), confirmed=False)
    ended = replace(task, head=replace(task.head, closed=True))
    with pytest.raises(RevokedError):
        ended.confirm("lse_1", None, NOW)


# -- renew ----------------------------------------------------------------------------------------------------------


def test_a_renewed_lease_ends_later_but_never_after_its_grant() -> None:
    task = with_lease(opened(), lease())
    assert task.extend("lse_1", NOW + 7 * MINUTE, NOW).leases[0].expires_at == NOW + 7 * MINUTE
    assert task.extend("lse_1", NOW + 70 * MINUTE, NOW).leases[0].expires_at == NOW + 10 * MINUTE


def test_a_renewal_never_shortens_what_the_target_was_told() -> None:
    task = with_lease(opened(), lease())
    assert task.extend("lse_1", NOW + MINUTE, NOW).leases[0].expires_at == NOW + 5 * MINUTE


def test_what_is_not_active_is_not_renewed() -> None:
    planned = with_lease(opened(), lease(), confirmed=False)
    active = with_lease(opened(), lease())
    ending = active.apply(active.revoke_leases(("lse_1",)))
    for task, at in ((planned, NOW), (ending, NOW), (active, NOW + 5 * MINUTE)):
        with pytest.raises(ExpiredError, match="lease has ended"):
            task.extend("lse_1", NOW + 6 * MINUTE, at)


def test_nothing_is_renewed_under_a_grant_that_ended() -> None:
    task = with_lease(opened(), lease())
    with pytest.raises(RevokedError):
        task.apply(task.revoke("root")).renewable("lse_1", NOW)


# -- revoke, settle -------------------------------------------------------------------------------------------------


def test_a_revoke_ends_all_below_and_nothing_beside() -> None:
    task = tree()
    for grant, name in (("b", "lse_b"), ("root", "lse_r")):
        task = with_lease(task, lease(grant, name))
    after = task.apply(task.revoke("a"))
    assert {grant.id for grant in after.grants.values() if grant.revoked} == {"a", "b", "c"}
    assert (after.lease("lse_b").state, after.lease("lse_r").state) == (LeaseState.REVOKING, LeaseState.ACTIVE)
    assert not after.head.closed


def test_revoking_the_root_closes_the_task() -> None:
    task = tree()
    assert task.apply(task.revoke("root")).head.closed


def test_a_task_that_is_closed_stays_closed() -> None:
    task = with_lease(tree(), lease("b"))
    task = task.apply(task.revoke("root"))
    task = task.apply(task.settle(frozenset({"lse_1"}), frozenset(), frozenset(), NOW))
    assert task.head.closed


def test_a_second_revoke_changes_nothing_and_keeps_the_back_off() -> None:
    task = with_lease(tree(), lease("b"))
    task = task.apply(task.revoke("a"))
    task = task.apply(task.settle(frozenset(), frozenset({"lse_1"}), frozenset(), NOW))
    again = task.revoke("a")
    assert (again.grants, again.leases) == ((), ())


def test_single_leases_end_alone() -> None:
    task = with_lease(with_lease(opened(), lease()), lease(lease_id="lse_2"))
    after = task.apply(task.revoke_leases(("lse_1",)))
    assert (after.lease("lse_1").state, after.lease("lse_2").state) == (LeaseState.REVOKING, LeaseState.ACTIVE)
    assert after.revoke_leases(("lse_1",)).leases == ()


def ending(*, confirmed: bool = True) -> Task:
    """Return a task with one lease that is being revoked."""
    task = with_lease(opened(), lease(), confirmed=confirmed)
    return task.apply(task.revoke("root"))


def settled(task: Task, *, done: bool, residue: bool = False, at: datetime = NOW) -> Lease:
    """Return the lease after revoking it at the target."""
    one, none = frozenset({"lse_1"}), frozenset[str]()
    change = task.settle(one if done else none, none if done else one, one if residue else none, at)
    return task.apply(change).lease("lse_1")


def test_what_is_done_is_revoked() -> None:
    after = settled(ending(), done=True)
    assert (after.state, after.residue, after.retry_at) == (LeaseState.REVOKED, False, None)


def test_what_left_something_behind_is_revoked_with_residue() -> None:
    assert settled(ending(), done=True, residue=True).residue


def test_what_failed_is_tried_again_later() -> None:
    after = settled(ending(), done=False)
    assert (after.state, after.attempts, after.retry_at) == (LeaseState.REVOKING, 1, NOW + SECOND)


def test_what_was_never_confirmed_is_revoked_once_more_after_its_issue_by() -> None:
    first = settled(ending(confirmed=False), done=True)
    assert (first.state, first.retry_at) == (LeaseState.REVOKING, first.plan.issue_by)
    assert settled(ending(confirmed=False), done=True, at=first.plan.issue_by).state is LeaseState.REVOKED


def test_settling_what_is_unknown_or_not_ending_changes_nothing() -> None:
    task = with_lease(opened(), lease())
    assert task.settle(frozenset({"lse_1", "nowhere"}), frozenset(), frozenset(), NOW).leases == ()


def test_done_and_failed_at_once_counts_as_failed() -> None:
    both = frozenset({"lse_1"})
    task = ending()
    assert task.apply(task.settle(both, both, frozenset(), NOW)).lease("lse_1").state is LeaseState.REVOKING


def test_what_is_cleaned_is_forgotten_if_it_was_revoked() -> None:
    task = ending()
    assert task.cleaned(frozenset({"lse_1", "nowhere"})).forget == ()
    task = task.apply(task.settle(frozenset({"lse_1"}), frozenset(), frozenset(), NOW))
    change = task.cleaned(frozenset({"lse_1"}))
    assert change.forget == ("lse_1",)
    assert task.apply(change).leases == {}


# -- what is due ----------------------------------------------------------------------------------------------------


def test_overdue_are_the_active_past_their_end_and_the_planned_past_their_issue_by() -> None:
    task = with_lease(with_lease(opened(), lease()), lease(lease_id="lse_2"), confirmed=False)
    assert task.overdue(NOW) == ()
    assert task.overdue(NOW + 10 * SECOND) == ("lse_2",)
    assert set(task.overdue(NOW + 5 * MINUTE)) == {"lse_1", "lse_2"}


def test_due_is_what_is_ending_and_not_backing_off() -> None:
    task = ending()
    assert [item.id for item in task.due(NOW)] == ["lse_1"]
    task = task.apply(task.settle(frozenset(), frozenset({"lse_1"}), frozenset(), NOW))
    assert task.due(NOW) == ()
    assert [item.id for item in task.due(NOW + SECOND)] == ["lse_1"]


# -- report ---------------------------------------------------------------------------------------------------------


def report_of(task: Task) -> tuple[Closure, int, int]:
    """Return state, outstanding and residue under the root."""
    report = task.report(frozenset({"root"}), 1)
    return report.state, len(report.outstanding), report.residue


def test_a_report_says_closed_only_when_nothing_can_act_any_more() -> None:
    task = ending()
    assert report_of(task) == (Closure.UNKNOWN, 1, 0)
    done = task.apply(task.settle(frozenset({"lse_1"}), frozenset(), frozenset({"lse_1"}), NOW))
    assert report_of(done) == (Closure.CLOSED, 0, 1)


def test_a_report_says_partial_of_what_only_expires() -> None:
    plan = replace(lease().plan, revocation=Revocation.BY_EXPIRY)
    task = with_lease(opened(), lease(plan=plan))
    task = task.apply(task.revoke("root"))
    task = task.apply(task.settle(frozenset({"lse_1"}), frozenset(), frozenset(), NOW))
    assert report_of(task) == (Closure.PARTIAL, 1, 0)


def test_a_report_speaks_of_the_grants_it_is_asked_for_alone() -> None:
    task = with_lease(tree(), lease("b"))
    assert task.report(frozenset({"root"}), 0).outstanding == ()


# -- no way back ----------------------------------------------------------------------------------------------------


def test_no_step_leads_out_of_revoked() -> None:
    task = ending()
    task = task.apply(task.settle(frozenset({"lse_1"}), frozenset(), frozenset({"lse_1"}), NOW))
    one = frozenset({"lse_1"})
    steps: dict[str, Callable[[], Change]] = {
        "delegate": lambda: task.delegate("root", "x", child(), GrantContext(), NOW),
        "plan": lambda: task.plan(lease(lease_id="lse_2"), NOW),
        "plan again": lambda: task.plan(lease(), NOW),
        "confirm": lambda: task.confirm("lse_1", None, NOW),
        "extend": lambda: task.extend("lse_1", NOW + MINUTE, NOW),
        "revoke": lambda: task.revoke("root"),
        "revoke lease": lambda: task.revoke_leases(("lse_1",)),
        "settle": lambda: task.settle(one, frozenset(), frozenset(), NOW),
        "fail": lambda: task.settle(frozenset(), one, frozenset(), NOW),
    }
    for name, step in steps.items():
        try:
            after = task.apply(step())
        except RemitError:
            continue
        assert after.grants["root"].revoked, name
        assert after.leases["lse_1"].state is LeaseState.REVOKED, name
        assert after.head.closed, name


def test_a_lease_that_keeps_failing_is_stuck_and_still_tried() -> None:
    task = ending()
    for _ in range(STUCK_AFTER):
        task = task.apply(task.settle(frozenset(), frozenset({"lse_1"}), frozenset(), NOW))
    assert task.lease("lse_1").stuck
    assert task.due(NOW + timedelta(hours=1)) == (task.lease("lse_1"),)
