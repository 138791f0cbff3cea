"""What a set of policies was asked before is not asked again, and nothing that a policy can see is left out of that."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from remit.core import scope as scopes
from remit.core.grant import Posture
from remit.core.policy import Question
from remit.policies import sets
from remit.policies.sets import CedarPolicies
from tests.policies.questions import ADA, ALL, SEARCH, TABLE, policies, question, when


@dataclass
class Counting:
    """Cedar, with a count of the requests that it decides."""

    cedar: Any
    counts: list[int] = field(default_factory=list)

    def is_authorized_batch(self, requests: list[Any], *more: object) -> Any:
        self.counts.append(len(requests))
        return self.cedar.is_authorized_batch(requests, *more)


def counted(found: CedarPolicies) -> list[int]:
    """Count from now on how many requests each decision takes."""
    counting = Counting(found._cedar)
    found._cedar = counting  # type: ignore[assignment]  # stands in for a module
    return counting.counts


@pytest.mark.attack("DOS-10")
def test_copies_of_a_detail_and_grants_that_no_policy_tells_apart_are_asked_about_once() -> None:
    found = policies(ALL)
    counts = counted(found)
    many = question(*[SEARCH] * 16, TABLE)
    assert found(many).allowed
    for number in range(20):
        assert found(replace(many, agent=f"spiffe://remit.local/task/t/{number}", level=number % 3)).allowed
    assert sum(counts) == 2


OTHERS: dict[str, tuple[str, Question]] = {
    "purpose": ('context.purpose == "report"', question(purpose="spam")),
    "details": ("context.details == 1", question(TABLE, SEARCH)),
    "agent": ('context.agent == ""', question(agent="spiffe://a.test/x")),
    "agent by index": ('context["agent"] == ""', question(agent="spiffe://a.test/x")),
    "agent by an escape": ('context["\\u{61}gent"] == ""', question(agent="spiffe://a.test/x")),
    "attested": ("!context.attested", question(attested=True)),
    "trust_domain": ('context.trust_domain == ""', question(agent="spiffe://a.test/x")),
    "claims": ('!context.claims.hasTag("a")', question(claims={"a": "1"})),
    "level": ("context.level == 0", question(level=1)),
    "depth": ("context.depth == 0", question(depth=1)),
    "fan_out": ("context.fan_out == 0", question(fan_out=1)),
    "exercise": ("context.exercise", question(exercise=False)),
    "unattested": ("context.unattested", question(unattested=False)),
    "ttl": ("context.ttl == 28800", question(ttl=timedelta(seconds=5))),
    "posture": ('context.posture.isolation == "namespace"', question(posture=Posture("none"))),
    "approval": ("!context.approval", question(approval="apr_1")),
    "detail": ("context.detail has ttl && context.detail.ttl == 600", question({**TABLE, "ttl": 5})),
    "action": ('action == Action::"open"', question(verb="delegate")),
    "subject": ('principal.sub == "ada"', question(subject=replace(ADA, sub="https://idp.example.com#bob"))),
    "groups": ('principal in Group::"https://idp.example.com#analysts"', question(subject=replace(ADA, groups=()))),
    "acr": ('principal.acr == "urn:example:mfa"', question(subject=replace(ADA, acr="pwd"))),
    "auth_time": (
        "!(principal has auth_time)",
        question(subject=replace(ADA, auth_time=datetime(2026, 1, 1, tzinfo=UTC))),
    ),
    "another resource": ('Resource::"warehouse".type == "postgres"', question(SEARCH)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_question_that_differs_in_what_a_policy_can_see_is_another(name: str) -> None:
    condition, other = OTHERS[name]
    found = policies(when(condition))
    for _ in range(2):
        assert found(question()).allowed
        assert not found(other).allowed


def test_a_part_of_a_question_is_decided_as_in_the_whole() -> None:
    found = policies(when('context.details == 2 && Resource::"search".type == "http"'))
    whole = question(TABLE, SEARCH)
    assert found(whole).allowed
    for detail in whole.scope:
        assert found(replace(whole, scope=(detail,), whole=whole.scope)).allowed
        assert not found(replace(whole, scope=(detail,))).allowed


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sets, "REMEMBERED", 2)
    found = policies(ALL)
    counts = counted(found)
    first, *rest = (replace(question(), scope=scopes.parse([{**TABLE, "ttl": ttl}])) for ttl in range(1, 5))
    for one in (first, *rest, first):
        assert found(one).allowed
    assert sum(counts) == 5
    assert len(found._remembered) == 2


def test_a_policy_that_fails_is_counted_each_time() -> None:
    found = policies(when("context.ttl + 9223372036854775807 > 0"))
    for _ in range(3):
        assert not found(question()).allowed
    assert found.failing["it"].times == 3
