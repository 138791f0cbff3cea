"""The aggregate: who may act, opening, delegating, and what a change does."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from remit.core import scope
from remit.core import task as tasks
from remit.core.grant import GrantContext
from remit.core.orders import json_text
from remit.core.request import Bounds, GrantRequest
from remit.core.task import MAX_PURPOSE, Change, TaskHeader, nothing, open_task
from remit.errors import (
    AttenuationError,
    ConflictError,
    DeniedError,
    DepthError,
    ExpiredError,
    InvalidRequestError,
    LimitError,
    NotFoundError,
    RevokedError,
)
from tests.core.sample_task import (
    MINUTE,
    NOW,
    SCOPE,
    SUBJECT,
    TABLE,
    child,
    lease,
    opened,
    tree,
    with_lease,
)


def test_a_task_has_only_so_many_grants_ended_ones_included(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "MAX_GRANTS", 3)
    task = opened(fan_out=1)
    for name in ("a", "b"):
        task = task.apply(task.delegate("root", name, child(fan_out=1), GrantContext(), NOW))
        task = task.apply(task.revoke(name))
    for approval in (None, "apr_1"):
        with pytest.raises(LimitError, match="at most 3 grants, ended ones included") as caught:
            task.delegate("root", "c", child(fan_out=1), GrantContext(approval=approval), NOW)
        assert caught.value.help


@pytest.mark.attack("DOS-11")
@pytest.mark.parametrize("bound", ["MAX_DETAILS", "MAX_SIZE"])
def test_the_details_of_a_task_are_bounded_in_number_and_size_ended_ones_included(
    monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    task, made = opened(fan_out=1), child(fan_out=1, delegates=(f"spiffe://corp.example/{'p' * 200}",))
    size, count = (
        task.size + 2 * task.apply(task.delegate("root", "a", made, GrantContext(), NOW)).grant("a").size,
        task.details + 2 * len(made.scope),
    )
    monkeypatch.setattr(tasks, bound, {"MAX_DETAILS": count, "MAX_SIZE": size}[bound])
    for name in ("a", "b"):
        task = task.apply(task.delegate("root", name, made, GrantContext(), NOW))
        task = task.apply(task.revoke(name))
    assert (task.details, task.size) == (count, size)
    for approval in (None, "apr_1"):
        with pytest.raises(LimitError, match="ended ones included, have at most") as caught:
            task.delegate("root", "c", child(fan_out=1), GrantContext(approval=approval), NOW)
        assert caught.value.help
    again = nothing(task.id).apply(Change(0, task.head, tuple(task.grants.values())))  # as it is read from a store
    assert (again.details, again.size) == (count, size)


def test_the_size_of_a_scope_is_about_that_of_its_json() -> None:
    raw = {"type": "http", "resource": "search", "actions": ["GET"], "paths": [f"/v1/{n}" for n in range(200)]}
    found = scope.parse([raw, {**raw, "args": {"query.q": {"at_most": 3}}}])
    assert 0.8 < scope.size(found) / len(json_text(scope.dump(found))) < 1.25


# -- who acts -------------------------------------------------------------------------------------------------------

APART: list[dict[str, object]] = [{"jkt": "k" * 43}, {"x5t": "c" * 43}, {"attested": True}]


def test_a_holder_acts_under_its_own_grant_and_those_inside_its_process() -> None:
    for own, grant in (("root", "root"), ("root", "a"), ("root", "b"), ("a", "a"), ("a", "c"), ("b", "b")):
        tree().check_acting(grant, own)


@pytest.mark.parametrize(("own", "grant"), [("a", "root"), ("b", "c"), ("b", "a"), ("root", "z")])
def test_what_is_not_below_a_grant_is_unknown_to_its_holder(own: str, grant: str) -> None:
    with pytest.raises(NotFoundError):
        tree().check_acting(grant, own)


@pytest.mark.parametrize("more", APART, ids=lambda more: next(iter(more)))
def test_nobody_above_acts_under_a_grant_that_is_anothers_or_below_one(more: dict[str, object]) -> None:
    task = opened()
    task = task.apply(task.delegate("root", "a", child(**more), GrantContext(), NOW))
    task = task.apply(task.delegate("a", "b", child(depth=0), GrantContext(), NOW))
    task = task.apply(task.delegate("a", "c", child(depth=0, **more), GrantContext(), NOW))
    for own, grant in (("root", "root"), ("a", "a"), ("a", "b"), ("b", "b"), ("c", "c")):
        task.check_acting(grant, own)
    for own, grant in (("root", "a"), ("root", "b"), ("root", "c"), ("a", "c")):
        with pytest.raises(DeniedError, match="only its holder"):
            task.check_acting(grant, own)


# -- open -----------------------------------------------------------------------------------------------------------


def test_open_makes_a_task_at_revision_one_with_its_root() -> None:
    task = opened()
    assert task.head == TaskHeader("task_1", 1, "root", SUBJECT, "draft", NOW, NOW + 10 * MINUTE)
    assert (task.id, list(task.grants), task.leases) == ("task_1", ["root"], {})


@pytest.mark.parametrize("purpose", ["", "  ", "a\nb", "\u202e" * 3, "a" * (MAX_PURPOSE + 1)])
def test_a_purpose_is_one_line_that_says_something(purpose: str) -> None:
    with pytest.raises(InvalidRequestError, match="purpose"):
        open_task(
            "task_1",
            "root",
            SUBJECT,
            replace(GrantRequest(SCOPE, Bounds(MINUTE)), purpose=purpose),
            GrantContext(),
            NOW,
        )


def test_open_needs_a_ttl() -> None:
    with pytest.raises(InvalidRequestError, match="`ttl` is missing"):
        open_task("task_1", "root", SUBJECT, replace(GrantRequest(SCOPE), purpose="draft"), GrantContext(), NOW)


def test_before_its_first_change_a_task_is_nothing() -> None:
    assert (nothing("task_1").head.rev, nothing("task_1").grants) == (0, {})


# -- reading --------------------------------------------------------------------------------------------------------


def test_unknown_grants_and_leases_are_not_found() -> None:
    for look in (opened().grant, opened().lease, opened().lineage):
        with pytest.raises(NotFoundError):
            look("nowhere")


def test_a_task_has_the_resources_of_its_grants_that_were_not_revoked() -> None:
    request = child(scope=scope.parse([{**TABLE, "resource": "archive"}]))
    context = GrantContext("auditor", approval="apr_1")
    task = tree()
    task = task.apply(task.delegate("root", "d", request, context, NOW))
    assert task.resources == {"warehouse", "archive"}
    task = task.apply(task.revoke("d"))
    assert task.resources == {"warehouse"}
    assert task.apply(task.revoke("root")).resources == frozenset()


def test_the_lineage_goes_up_to_the_root() -> None:
    assert [grant.id for grant in tree().lineage("b")] == ["b", "a", "root"]


def test_a_subtree_holds_all_below_parents_first() -> None:
    ids = [grant.id for grant in tree().subtree("a")]
    assert ids[0] == "a"
    assert sorted(ids) == ["a", "b", "c"]


def test_a_holder_acts_at_or_below_its_own_grant() -> None:
    task = tree()
    task.check_acting("b", "a")
    task.check_acting("a", "a")
    for grant_id, own in (("a", "b"), ("nowhere", "a")):
        with pytest.raises(NotFoundError):
            task.check_acting(grant_id, own)


def test_a_grant_is_live_until_the_instant_it_expires() -> None:
    task = opened()
    assert task.live("root", NOW + 10 * MINUTE - timedelta(microseconds=1)).id == "root"
    with pytest.raises(ExpiredError):
        task.live("root", NOW + 10 * MINUTE)


def test_a_grant_is_not_live_under_an_ancestor_that_is_not() -> None:
    """Neither can come about by steps alone; the walk is a second line of defence."""
    task = tree()
    revoked = replace(task, grants={**task.grants, "a": replace(task.grants["a"], revoked=True)})
    with pytest.raises(RevokedError):
        revoked.live("b", NOW)
    expired = replace(task, grants={**task.grants, "a": replace(task.grants["a"], expires_at=NOW)})
    with pytest.raises(ExpiredError):
        expired.live("b", NOW)
    with pytest.raises(RevokedError):
        replace(task, head=replace(task.head, closed=True)).live("b", NOW)


# -- apply ----------------------------------------------------------------------------------------------------------


def test_a_change_is_valid_on_its_base_alone() -> None:
    task = opened()
    change = task.delegate("root", "a", child(), GrantContext("researcher"), NOW)
    after = task.apply(change)
    assert after.head.rev == 2
    with pytest.raises(ConflictError):
        after.apply(change)


def test_a_change_leaves_the_task_it_was_made_from_as_it_was() -> None:
    task = tree()
    task.apply(task.revoke("root"))
    assert not any(grant.revoked for grant in task.grants.values())


# -- delegate -------------------------------------------------------------------------------------------------------


def test_a_change_ends_when_it_takes_away_and_gives_nothing() -> None:
    task = with_lease(tree(), lease())
    assert task.revoke("root").ends
    assert task.revoke_leases(("lse_1",)).ends
    assert not task.revoke_leases(()).ends
    assert not task.plan(lease(lease_id="lse_2"), NOW).ends
    assert not task.delegate("root", "other", child(), GrantContext(), NOW).ends


def test_a_child_hangs_below_its_parent() -> None:
    assert (tree().children["a"], tree().grants["b"].level) == (("b", "c"), 2)


def test_delegation_is_off_unless_asked_for() -> None:
    with pytest.raises(DepthError, match="may not be delegated further"):
        tree().delegate("b", "d", child(depth=0), GrantContext(), NOW)


def test_a_child_has_fewer_hops_left_than_its_parent() -> None:
    with pytest.raises(DepthError, match="`depth` may be at most 1"):
        opened().delegate("root", "a", child(depth=2), GrantContext(), NOW)


def test_a_child_may_not_have_more_children_than_its_parent() -> None:
    with pytest.raises(DepthError, match="`fan_out` may be at most 2"):
        opened().delegate("root", "a", child(fan_out=3), GrantContext(), NOW)


def test_a_grant_has_no_more_live_children_than_its_fan_out() -> None:
    task = tree()
    with pytest.raises(DepthError, match="2 live children") as caught:
        task.delegate("a", "d", child(depth=0), GrantContext(), NOW)
    assert caught.value.help is not None


def test_a_child_that_ended_makes_room() -> None:
    task = tree()
    task = task.apply(task.revoke("b"))
    assert task.delegate("a", "d", child(depth=0), GrantContext(), NOW).grants[0].id == "d"


def test_a_child_that_expired_makes_room() -> None:
    task = opened()
    for name in ("a", "b"):
        task = task.apply(task.delegate("root", name, child(ttl=MINUTE), GrantContext(), NOW))
    assert task.delegate("root", "c", child(), GrantContext(), NOW + MINUTE).grants[0].id == "c"


def test_a_wider_child_is_refused() -> None:
    wide = scope.parse([{**TABLE, "actions": ["insert"]}])
    with pytest.raises(AttenuationError):
        opened().delegate("root", "a", child(scope=wide), GrantContext(), NOW)


def test_nothing_is_delegated_under_a_grant_that_ended() -> None:
    task = tree()
    with pytest.raises(RevokedError):
        task.apply(task.revoke("a")).delegate("a", "d", child(depth=0), GrantContext(), NOW)
    with pytest.raises(ExpiredError):
        task.delegate("root", "d", child(depth=0), GrantContext(), NOW + 10 * MINUTE)
