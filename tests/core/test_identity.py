"""Who somebody was proven to be: values that cannot be changed once an adapter has made them."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from datetime import UTC, datetime

import pytest

from remit.core.grant import Subject
from remit.core.principal import Human, Signal, Workload

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
