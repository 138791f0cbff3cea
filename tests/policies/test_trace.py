"""Why a question was decided as it was: each policy, and the first part of it that did not hold."""

from __future__ import annotations

from datetime import timedelta

import pytest

from remit.policies import trace
from remit.policies.trace import Step
from tests.policies.questions import ALL, IDP, SEARCH, TABLE, policies, question, when


def step(text: str, **more: object) -> Step:
    """Return what one policy came to on the table."""
    [[found]] = trace.traced(policies(text), question(**more))
    return found


def test_a_policy_that_applies_says_what_it_does() -> None:
    assert (step(ALL).outcome, step(ALL).because) == ("permits", "")
    assert step(when("true", "forbid")).outcome == "forbids"


def test_a_step_says_where_its_policy_stands() -> None:
    found = step(f"\n\n{ALL}")
    assert (found.policy, found.place, found.effect) == ("all", "1.cedar:3", "permit")


@pytest.mark.parametrize(
    ("policy", "because"),
    [
        (f'permit (principal in Group::"{IDP}#bosses", action, resource);', f'principal in Group::"{IDP}#bosses"'),
        ('permit (principal, action == Action::"issue", resource);', 'action == Action::"issue"'),
        ('permit (principal, action in [Action::"issue", Action::"renew"], resource);',
         'action in [Action::"issue", Action::"renew"]'),
        ('permit (principal, action, resource == Resource::"search");', 'resource == Resource::"search"'),
        ("permit (principal is Workload, action, resource);", "principal is Workload"),
        ("permit (principal, action, resource) when { context.attested };", "context.attested"),
        ("permit (principal, action, resource) when { true && context.ttl <= 60 && context.level == 9 };",
         "context.ttl <= 60"),
        ("permit (principal, action, resource) when { true } when { context.level > 3 };", "context.level > 3"),
        ('permit (principal, action, resource) unless { context.posture.isolation == "namespace" };',
         'context.posture.isolation == "namespace"'),
        ('permit (principal, action, resource) when { context.agent like "spiffe://*" };',
         'context.agent like "spiffe://*"'),
    ],
)  # fmt: skip
def test_the_first_part_that_does_not_hold_is_named(policy: str, because: str) -> None:
    found = step(f'@id("it") {policy}', ttl=timedelta(minutes=5))
    verdict = "true" if "unless" in policy else "false"
    assert (found.outcome, found.because) == ("does not apply", f"{because} is {verdict}")


def test_what_a_policy_looks_at_is_shown_with_its_value() -> None:
    found = step(
        when(
            'context.ttl <= 60 && context.posture.custody == "channel" && context.claims.hasTag("env") && '
            'context.claims.getTag("env") == "prod" && resource.type == "postgres" && principal.acr == "x" && '
            "context.detail has uses && context.detail.uses == 1"
        ),
        claims={"env": "dev"},
    )
    assert found.attributes == {
        "context.ttl": 28800,
        "context.posture.custody": "channel",
        "context.claims.env": "dev",
        "resource.type": "postgres",
        "principal.acr": "urn:example:mfa",
        "context.detail.uses": None,
    }


def test_a_claim_that_is_not_there_is_shown_as_such() -> None:
    assert step(when('context.claims.hasTag("env")')).attributes == {"context.claims.env": None}


def test_a_policy_that_failed_says_why() -> None:
    found = step(when("context.ttl + 9223372036854775807 > 0", "forbid"))
    assert found.outcome == "failed"
    assert found.because.startswith("integer overflow")


def test_each_detail_has_steps_of_its_own() -> None:
    found = trace.traced(policies(when('resource.name == "search"'), when("true", name="all")), question(SEARCH, TABLE))
    assert [[one.outcome for one in steps] for steps in found] == [
        ["permits", "permits"],
        ["does not apply", "permits"],
    ]


def test_the_trace_and_the_decision_agree() -> None:
    texts = (
        when("context.level == 0"),
        when("context.ttl < 60", "forbid", "short"),
        when("context.attested", name="x"),
    )
    for level in (0, 1):
        for seconds in (30, 90):
            query = question(level=level, ttl=timedelta(seconds=seconds))
            found = policies(*texts)
            [steps] = trace.traced(found, query)
            outcomes = {one.outcome for one in steps}
            assert found(query).allowed == ("permits" in outcomes and "forbids" not in outcomes)
