"""Who somebody was proven to be: values that cannot be changed once an adapter has made them."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime

import pytest

from remit.core.grant import Subject
from remit.core.principal import Claims, Holder, Human, Operator, Principal, Right, Signal, Workload, check_right
from remit.errors import DeniedError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ANN = Human(Subject("https://idp.test#ann", "urn:mfa"), "digest", NOW, NOW, "remit")
AGENT = Workload("spiffe://prod.test/agent", "jwt-svid", NOW)
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
