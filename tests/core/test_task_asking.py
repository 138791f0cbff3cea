"""Who may have which children, what a human has to approve, and what no human can."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from remit.core import scope
from remit.core.grant import GrantContext
from remit.core.request import Bounds, GrantRequest
from remit.core.task import Subject, Task, nothing, open_task
from remit.errors import (
    AttenuationError,
    DelegateError,
    DepthError,
    ExpiredError,
    FanOutError,
    InvalidRequestError,
    NotFoundError,
    RevokedError,
    ScopeError,
)
from tests.grant_requests import changed

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
TABLE = {"type": "postgres", "resource": "warehouse", "actions": ["select"], "tables": ["sales.revenue"]}
WIDER = scope.parse([{**TABLE, "tables": ["sales.revenue", "sales.orders"]}])
CI, CI_ALL = "spiffe://prod.test/ci/build", "spiffe://prod.test/ci/**"


def opened(**more: object) -> Task:
    """Return a task with its root grant, `root`."""
    wanted = GrantRequest(scope.parse([TABLE]), Bounds(10 * MINUTE, depth=2, fan_out=2))
    subject = Subject("unix://host#1000", "local-uid")
    asked = changed(wanted, more)
    return nothing("task_1").apply(
        open_task("task_1", "root", subject, replace(asked, purpose="draft"), GrantContext(), NOW)
    )


def child(**more: object) -> GrantRequest:
    """Return what a sub-agent asks for."""
    return changed(GrantRequest(scope.parse([TABLE])), more)


def grown(task: Task, *names: str, approval: str | None = None, **more: object) -> Task:
    """Return the task with children of its root."""
    for name in names:
        task = task.apply(task.delegate("root", name, child(**more), GrantContext(approval=approval), NOW))
    return task


# -- each dimension -------------------------------------------------------------------------------------------------


def test_hops_are_counted_and_each_refusal_says_what_would_do() -> None:
    with pytest.raises(DepthError, match="may not be delegated further") as none:
        opened(depth=0).delegate("root", "a", child(), GrantContext(), NOW)
    assert "`depth`" in str(none.value.help)
    with pytest.raises(DepthError, match="`depth` may be at most 1"):
        opened().delegate("root", "a", child(depth=2), GrantContext(), NOW)
    assert grown(opened(), "a", depth=1).grant("a").bounds.depth == 1


def test_a_child_may_have_as_many_children_as_its_parent_and_no_more() -> None:
    with pytest.raises(DepthError, match="`fan_out` may be at most 2"):
        opened().delegate("root", "a", child(fan_out=3), GrantContext(), NOW)
    assert grown(opened(), "a", fan_out=2).grant("a").bounds.fan_out == 2


def test_live_children_are_counted_and_those_that_ended_make_room() -> None:
    full = grown(grown(opened(), "a"), "b", ttl=MINUTE)
    with pytest.raises(FanOutError, match="2 live children") as refused:
        full.delegate("root", "c", child(), GrantContext(), NOW)
    assert "revoke one" in str(refused.value.help)
    later = NOW + MINUTE
    full.delegate("root", "c", child(), GrantContext(), later)  # b has expired
    revoked = full.apply(full.revoke("a"))
    revoked.delegate("root", "c", child(), GrantContext(), NOW)


def test_where_only_attested_children_may_be_nobody_else_is() -> None:
    task = opened(unattested=False)
    with pytest.raises(DelegateError, match="attested agents alone") as refused:
        task.delegate("root", "a", child(), GrantContext(), NOW)
    assert "actor_token" in str(refused.value.help)
    grown(task, "a", agent=CI, attested=True)


def test_an_attested_child_is_one_of_the_named() -> None:
    task = opened(delegates=(CI_ALL,))
    grown(task, "a", agent=CI, attested=True)
    with pytest.raises(DelegateError) as refused:
        task.delegate("root", "a", child(agent="spiffe://prod.test/web", attested=True), GrantContext(), NOW)
    assert CI_ALL in str(refused.value.help)
    with pytest.raises(DelegateError) as nobody:
        opened(delegates=()).delegate("root", "a", child(agent=CI, attested=True), GrantContext(), NOW)
    assert "nobody attested" in str(nobody.value.help)


def test_what_may_not_be_used_itself_is_refused_to_its_holder_and_not_to_its_child() -> None:
    task = grown(opened(exercise=False), "a")
    detail = scope.parse([TABLE])[0]
    with pytest.raises(ScopeError, match="may delegate but not be used itself"):
        task.usable("root", detail, NOW)
    assert task.usable("a", detail, NOW).id == "a"
    unused = grown(opened(), "a", exercise=False, depth=1)
    with pytest.raises(ScopeError, match="not be used itself"):
        unused.usable("a", detail, NOW)


# -- asking ---------------------------------------------------------------------------------------------------------


def test_what_exceeds_the_parent_is_named() -> None:
    task = opened()
    assert task.beyond("root", child(), NOW) == ()
    assert task.beyond("root", child(scope=WIDER), NOW) == ("authorization_details",)
    assert task.beyond("root", child(depth=2, fan_out=3), NOW) == ("depth", "fan_out")


def test_one_more_child_than_there_may_be_exceeds_the_fan_out_and_is_named_once() -> None:
    full = grown(opened(), "a", "b")
    assert full.beyond("root", child(), NOW) == ("fan_out",)
    assert full.beyond("root", child(fan_out=3), NOW) == ("fan_out",)
    assert full.beyond("root", child(scope=WIDER), NOW) == ("authorization_details", "fan_out")


def test_no_human_is_asked_for_what_none_can_give() -> None:
    task = opened()
    with pytest.raises(AttenuationError, match="ends after the parent"):
        task.asking("root", child(scope=WIDER, ttl=11 * MINUTE), GrantContext(), NOW)
    with pytest.raises(InvalidRequestError):
        task.asking("root", child(scope=WIDER, depth=65), GrantContext(), NOW)
    with pytest.raises(NotFoundError):
        task.asking("else", child(scope=WIDER), GrantContext(), NOW)
    with pytest.raises(ExpiredError):
        task.asking("root", child(scope=WIDER), GrantContext(), NOW + 10 * MINUTE)
    ended = task.apply(task.revoke("root"))
    with pytest.raises(RevokedError):
        ended.asking("root", child(scope=WIDER), GrantContext(), NOW)


def test_what_was_approved_passes_every_dimension_and_lives_no_longer_than_its_parent() -> None:
    task = grown(opened(depth=1, fan_out=1, delegates=(), unattested=False), "a", depth=1, fan_out=1, approval="apr_0")
    with pytest.raises(DepthError):
        task.delegate("root", "b", child(scope=WIDER, depth=1), GrantContext(), NOW)
    approved = child(scope=WIDER, depth=1, fan_out=2, ttl=MINUTE)
    task = task.apply(task.delegate("root", "b", approved, GrantContext(approval="apr_1"), NOW + MINUTE))
    assert (task.grant("b").scope, task.grant("b").expires_at) == (WIDER, NOW + 2 * MINUTE)
    below = child(scope=WIDER)
    task = task.apply(
        task.delegate("b", "c", below, GrantContext(), NOW + MINUTE)
    )  # from here on what was approved is the bound
    with pytest.raises(AttenuationError):
        task.delegate("a", "d", below, GrantContext(), NOW)
    over = task.apply(task.revoke("root"))
    assert all(over.grant(name).revoked for name in ("a", "b", "c"))
    with pytest.raises(RevokedError):
        over.delegate("root", "e", approved, GrantContext(approval="apr_1"), NOW)
