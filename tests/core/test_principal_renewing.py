"""Who renews a task: whom it was opened for, by a proof of now."""

from __future__ import annotations

from dataclasses import replace

import pytest

from remit.core.principal import Human, Operator, check_renewing
from remit.core.task import Subject
from remit.errors import DeniedError, GrantTokenError
from tests.core.sample_task import MINUTE, NOW, SECOND, SUBJECT, opened

ANN = Subject("https://idp.test#ann", "pwd", NOW, groups=("staff",), sid="s-1")


@pytest.mark.parametrize("acr", ["pwd", "unspecified", "local-uid"])
def test_it_is_renewed_by_whom_it_was_opened_for(acr: str) -> None:
    task = opened()
    task = replace(task, head=replace(task.head, subject=replace(ANN, acr=acr)))
    check_renewing(task, human(ANN), NOW)
    for other in (Operator(SUBJECT), human(replace(ANN, sub="https://idp.test#bob"))):
        with pytest.raises(DeniedError, match="by whom it was opened for"):
            check_renewing(task, other, NOW)
    check_renewing(opened(), Operator(SUBJECT), NOW)


def test_what_a_workload_opened_or_a_human_approved_lasts_as_long_as_it_said() -> None:
    task = opened()
    workload = replace(task, head=replace(task.head, subject=replace(ANN, acr="workload")))
    approved = replace(task, grants={"root": replace(task.grant("root"), approval="apr_1")})
    for each in (workload, replace(approved, head=replace(approved.head, subject=ANN))):
        with pytest.raises(DeniedError, match="lasts as long as it was opened for"):
            check_renewing(each, human(ANN), NOW)


@pytest.mark.attack("REN-04")
def test_a_token_that_was_kept_for_later_renews_nothing() -> None:
    task = opened()
    task = replace(task, head=replace(task.head, subject=ANN))
    check_renewing(task, human(ANN), NOW + 10 * MINUTE)
    with pytest.raises(GrantTokenError, match="not a new one"):
        check_renewing(task, human(ANN), NOW + 10 * MINUTE + SECOND)


def human(subject: Subject) -> Human:
    return Human(subject, "digest", NOW, NOW + MINUTE, "remit")
