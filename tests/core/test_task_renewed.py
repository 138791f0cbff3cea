"""A task that goes on: how far its end moves, what moves with it, and what ends it for good."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from remit.core.request import MAX_LIFE, MAX_TTL
from remit.core.task import Subject
from remit.errors import ConflictError, ExpiredError, RevokedError
from tests.core.sample_task import MINUTE, NOW, SECOND, SUBJECT, lease, opened, tree, with_lease

LATER = NOW + 5 * MINUTE
ANN = Subject("https://idp.test#ann", "pwd", NOW, groups=("staff",), sid="s-1")


def test_the_end_of_a_task_and_of_its_root_moves_and_of_nothing_else() -> None:
    task = with_lease(tree(), lease("root"))
    longer = task.apply(task.renew(SUBJECT, LATER + 20 * MINUTE, LATER))
    assert longer.head == replace(task.head, rev=task.head.rev + 1, expires_at=LATER + 20 * MINUTE)
    root, before = longer.grant("root"), task.grant("root")
    assert root == replace(before, expires_at=LATER + 20 * MINUTE, bounds=replace(before.bounds, ttl=25 * MINUTE))
    assert {name: longer.grants[name] for name in "abc"} == {name: task.grants[name] for name in "abc"}
    assert longer.leases == task.leases
    assert (longer.details, longer.size, longer.children) == (task.details, task.size, task.children)
    with pytest.raises(ExpiredError):
        longer.live("a", task.head.expires_at)
    assert longer.live("root", task.head.expires_at) == root


def test_it_rests_on_the_login_of_now() -> None:
    task = opened()
    assert task.apply(task.renew(ANN, LATER, LATER)).head.subject == ANN


@pytest.mark.parametrize(
    ("asked", "now", "ends"),
    [
        (NOW + MINUTE, NOW, NOW + 10 * MINUTE),  # never back
        (NOW, NOW + 9 * MINUTE, NOW + 10 * MINUTE),
        (NOW + MAX_LIFE, NOW, NOW + MAX_TTL),
        (LATER + MAX_TTL + SECOND, LATER, LATER + MAX_TTL),
        (LATER + MAX_TTL, LATER, LATER + MAX_TTL),
    ],
)
def test_it_ends_no_earlier_for_that_and_eight_hours_from_now_at_most(asked: object, now: object, ends: object) -> None:
    task = opened()
    assert task.apply(task.renew(SUBJECT, asked, now)).head.expires_at == ends  # type: ignore[arg-type]  # instants


def test_it_ends_thirty_days_after_it_was_opened_however_often_it_is_renewed() -> None:
    task, now, steps = opened(), NOW, 0
    while now < task.head.expires_at:
        now = task.head.expires_at - SECOND
        longer = task.apply(task.renew(SUBJECT, now + MAX_TTL, now))
        if longer.head.expires_at == task.head.expires_at:
            break
        task, steps = longer, steps + 1
    assert task.head.expires_at == task.grant("root").expires_at == NOW + timedelta(days=30)
    assert steps == 90


def test_what_has_ended_stays_so() -> None:
    task = opened()
    with pytest.raises(ExpiredError):
        task.renew(SUBJECT, NOW + 20 * MINUTE, NOW + 10 * MINUTE)
    ended = task.apply(task.revoke("root"))
    with pytest.raises(RevokedError):
        ended.renew(SUBJECT, LATER, NOW)
    with pytest.raises(ConflictError):
        ended.apply(task.renew(SUBJECT, LATER, NOW))


def test_what_ended_meanwhile_is_not_overtaken() -> None:
    task = opened()
    with pytest.raises(ConflictError):
        task.apply(task.renew(SUBJECT, LATER, NOW)).apply(task.revoke("root"))
