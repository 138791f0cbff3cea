"""Who somebody was proven to be: values that cannot be changed once an adapter has made them."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime, timedelta

import pytest

from remit.core import scope
from remit.core.grant import LOCAL, GrantContext, Subject
from remit.core.principal import (
    Ancestor,
    Claims,
    GrantView,
    Holder,
    Human,
    Operator,
    Principal,
    Right,
    Signal,
    Workload,
    ancestor,
    check_acting,
    check_given,
    check_right,
    root_in,
)
from remit.core.request import Binding, Bounds, GrantRequest
from remit.core.task import Task, nothing, open_task
from remit.errors import DeniedError, GrantTokenError, NotFoundError, UnauthenticatedError
from tests.grant_requests import changed

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ANN = Human(Subject("https://idp.test#ann", "urn:mfa"), "digest", NOW, NOW, "remit")
AGENT = Workload("spiffe://prod.test/agent", "jwt-svid", NOW)
SEARCH = {"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/v1/**"]}
ENDED = Signal(NOW, "session-revoked", "digest")


@pytest.mark.parametrize(
    ("value", "name"), [(ANN, "subject"), (ANN, "nonce"), (AGENT, "id"), (AGENT, "jkt"), (ENDED, "sub")]
)
def test_what_was_proven_cannot_be_changed(value: object, name: str) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(value, name, "else")


def test_nothing_is_claimed_that_was_not_proven() -> None:
    assert (ANN.nonce, ANN.details, ANN.subject.auth_time, ANN.subject.groups, ANN.subject.sid) == (
        None,
        None,
        None,
        (),
        None,
    )
    assert (AGENT.jkt, AGENT.x5t, AGENT.digest, dict(AGENT.claims)) == (None, None, None, {})
    assert (ENDED.sub, ENDED.sid) == (None, None)


def test_two_workloads_share_no_claims() -> None:
    assert AGENT.claims is not Workload("spiffe://prod.test/other", "wit", NOW).claims


def test_a_human_has_no_right_but_what_is_given_and_a_workload_none() -> None:
    assert ANN.rights == AGENT.rights == frozenset()
    for nobody in (ANN, AGENT, Holder("tsk_1", "grt_1")):
        with pytest.raises(DeniedError):
            check_right(nobody, Right.OPERATE)
    check_right(replace(ANN, rights=frozenset({Right.OPERATE})), Right.OPERATE)
    check_right(Operator(ANN.subject), Right.OPERATE)
    check_right(Holder("tsk_1", "grt_1"), Right.ACT)


def test_what_a_token_says_is_not_part_of_who_holds_a_grant() -> None:
    claims = Claims("tsk_1", "grt_1", None, "ann", "agent", "key", "tok_1", 0, 600, "remit", None, {})
    assert Holder("tsk_1", "grt_1", claims) == Holder("tsk_1", "grt_1")


@pytest.mark.parametrize(
    ("principal", "name"),
    [
        (Operator(Subject("local:1000", "urn:local")), "local:1000"),
        (ANN, "https://idp.test#ann"),
        (AGENT, "spiffe://prod.test/agent"),
        (Holder("tsk_1", "grt_1"), "grt_1"),
    ],
)
def test_the_audit_has_a_name_for_every_principal(principal: Principal, name: str) -> None:
    assert principal.name == name


def task(subject: Subject, **more: object) -> Task:
    """Return a task of somebody, with a child of its root that is bound to a key."""
    wanted = GrantRequest(scope.parse([SEARCH]), Bounds(timedelta(hours=1), depth=1, fan_out=1), purpose="draft")
    made = nothing("tsk_1").apply(open_task("tsk_1", "root", subject, changed(wanted, more), GrantContext(), NOW))
    child = GrantRequest(wanted.scope, binding=Binding(jkt="key"))
    return made.apply(made.delegate("root", "child", child, GrantContext(), NOW))


OWNER = Operator(Subject("unix://host#1000", LOCAL))


def test_the_operator_looks_at_every_task_and_a_holder_at_what_hangs_below_its_grant() -> None:
    held = task(ANN.subject)
    assert root_in(OWNER, held) == root_in(replace(ANN, rights=frozenset({Right.OPERATE})), held) == "root"
    assert root_in(Holder("tsk_1", "child"), held) == "child"
    assert root_in(Holder("tsk_2", "child"), held) is None
    assert root_in(ANN, held) is root_in(AGENT, held) is None


def test_a_holder_acts_under_its_own_grant_and_under_no_other_that_is_bound() -> None:
    held = task(ANN.subject)
    check_acting(held, Holder("tsk_1", "child"), "child")
    check_acting(held, Holder("tsk_1", "root"), "root")
    with pytest.raises(DeniedError, match="only its holder"):
        check_acting(held, Holder("tsk_1", "root"), "child")
    with pytest.raises(NotFoundError):
        check_acting(held, Holder("tsk_1", "child"), "root")


def test_the_owner_of_the_state_acts_in_its_own_tasks_and_in_those_that_it_brought_a_token_for() -> None:
    check_acting(task(OWNER.subject), OWNER, "root")
    check_acting(task(ANN.subject), OWNER, "root")
    for others in (task(ANN.subject, jkt="key"), task(Subject("unix://host#1001", LOCAL))):
        with pytest.raises(DeniedError, match="somebody else"):
            check_acting(others, OWNER, "root")
    with pytest.raises(DeniedError, match="somebody else"):
        check_acting(task(ANN.subject), replace(ANN, rights=frozenset({Right.OPERATE})), "root")


def test_a_view_of_a_grant_names_who_holds_it() -> None:
    held = task(ANN.subject)
    line = tuple(ancestor(grant) for grant in held.lineage("root"))
    view = GrantView(held.grant("root"), held.id, held.head.subject, held.head.purpose, line)
    assert (view.id, view.holder) == ("root", Holder("tsk_1", "root"))


def test_those_below_a_grant_are_told_who_holds_it_and_what_it_is_called() -> None:
    held = task(ANN.subject, fan_out=2)
    wanted = changed(
        GrantRequest(scope.parse([SEARCH]), label="research"), {"attested": True, "agent": "spiffe://prod.test/reader"}
    )
    known = held.apply(held.delegate("root", "reader", wanted, GrantContext(), NOW)).grant("reader")
    assert ancestor(known) == Ancestor("reader", "spiffe://prod.test/reader", attested=True, label="research")
    assert ancestor(held.grant("child")) == Ancestor("child", "", attested=False, label="")


@pytest.mark.parametrize(
    ("jkt", "x5t", "bearer"), [("key", None, False), (None, "certificate", False), (None, None, True)]
)
def test_claims_that_name_no_key_are_a_bearers(jkt: str | None, x5t: str | None, *, bearer: bool) -> None:
    claims = Claims("t", "g", None, "ann", "agent", jkt, "jti", 0, 1, "https://remit.test", None, {}, x5t)
    assert claims.bearer is bearer


@pytest.mark.parametrize(
    "named", ["spiffe://prod.example/agents/a", "https://ci.test#build", "https://app.test/c.json"]
)
def test_what_was_given_to_whom_had_to_prove_its_name_was_not_given_to_whoever_takes_it(named: str) -> None:
    check_given(named, named, keyed=True, proven=True)
    check_given(named, named, keyed=False, proven=False)
    with pytest.raises(UnauthenticatedError):
        check_given(named, named, keyed=True, proven=False)
    for keyed in (True, False):
        with pytest.raises(GrantTokenError):
            check_given(named, "other", keyed=keyed, proven=True)
