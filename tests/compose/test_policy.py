"""Policies from a configured directory decide, over a real state, and say why."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from remit.compose.policy import PolicyDirectory
from remit.compose.wiring import Application
from remit.config import settings
from remit.core import scope
from remit.core.policy import VERSION, Decision, Question, within_bounds
from remit.core.request import Bounds, GrantRequest
from remit.core.scope import Access
from remit.core.task import Subject
from remit.errors import InvalidRequestError, NotFoundError, PolicyError
from tests.compose.policies import (
    BARE,
    BOOM,
    KEPT,
    MAIL,
    NO_MAIL,
    OPEN,
    SEARCH,
    Deployment,
    delegated,
    events,
    listed,
    opened,
    resources,
    version,
)
from tests.uses import permitted_use


def test_without_policies_the_owner_of_the_state_decides_and_nothing_is_reloaded(deployment: Deployment) -> None:
    async def body(app: Application) -> None:
        assert app.policies.decide is within_bounds
        assert app.policies.shown() == {
            "directory": None, "version": VERSION, "policies": [], "failing": [], "problems": [],
        }  # fmt: skip
        with pytest.raises(NotFoundError):
            await app.policies.reload(app.operator)

    deployment.up(body, policies=False)
    assert not (deployment.state / "policies.json").exists()


def test_the_owner_of_the_state_needs_a_policy_too_once_there_are_some(deployment: Deployment) -> None:
    deployment.write('@id("x")\npermit (principal, action, resource == Resource::"search");\n')

    async def body(app: Application) -> None:
        await resources(app)
        assert (await opened(app, SEARCH)).policy == version(app)
        with pytest.raises(PolicyError, match="no policy permits to open `mail`"):
            await opened(app, MAIL)

    deployment.up(body)


def test_what_holds_is_shown_with_where_it_is_written(deployment: Deployment) -> None:
    deployment.write(NO_MAIL)

    async def body(app: Application) -> None:
        shown = app.policies.shown()
        assert shown["policies"] == [
            {"id": "all", "effect": "permit", "file": "main.cedar", "line": 1},
            {"id": "no-mail", "effect": "forbid", "file": "main.cedar", "line": 3},
        ]
        assert str(shown["version"]).startswith("cedar-")
        assert (shown["directory"], shown["problems"]) == (str(deployment.directory), [])

    deployment.up(body)


def test_no_policy_widens_what_a_resource_is_bounded_to(deployment: Deployment) -> None:
    deployment.write(OPEN)

    async def body(app: Application) -> None:
        await resources(app)
        wide = scope.parse([{**scope.dump(SEARCH)[0], "actions": ["GET", "POST"]}])
        with pytest.raises(PolicyError, match="wider than the bound of `search`"):
            await opened(app, wide)

    deployment.up(body)


def test_a_policy_that_could_not_be_evaluated_is_named_in_the_refusal_in_the_audit_and_where_policies_are_shown(
    deployment: Deployment,
) -> None:
    deployment.write(BOOM)

    async def body(app: Application) -> None:
        await resources(app)
        with pytest.raises(PolicyError, match="`boom` could not be evaluated: integer overflow"):
            await opened(app, SEARCH)
        [denied] = await events(app, "task.open")
        assert denied.decision == "deny"
        assert (denied.cause or "").startswith("`boom` could not be evaluated")
        assert denied.policy == version(app)
        [failing] = listed(app.policies.shown()["failing"])
        assert (failing["policy"], failing["times"]) == ("boom", 1)
        assert failing["why"].startswith("integer overflow")

    deployment.up(body)


def test_a_request_through_the_gateway_asks_no_policy(deployment: Deployment) -> None:
    deployment.write(OPEN)

    async def body(app: Application) -> None:
        await resources(app)
        grant, questions = await opened(app, SEARCH), list[Question]()
        inner = app.broker.policy.deciding

        def counting(question: Question) -> Decision:
            questions.append(question)
            return inner(question)

        await app.broker.policy.reload(app.operator, counting, "counting")
        after = len(questions)
        assert after == 1
        for number in range(100):
            await permitted_use(app.broker, grant.id, Access("search", "GET", f"/{number}"), f"r{number}")
        assert len(questions) == after
        await opened(app, SEARCH)
        assert len(questions) == after + 1

    deployment.up(body)


@pytest.mark.parametrize(
    ("condition", "refused", "allowed"),
    [
        ('context.posture.isolation == "namespace"', {"posture": BARE}, {"posture": KEPT}),
        ("context.level < 2", {"depth": 0}, None),
        ("context.depth <= 1", {"depth": 2}, {"depth": 1}),
        ("context.fan_out <= 3", {"fan_out": 4}, {"fan_out": 3}),
        ("context.ttl <= 60", {"ttl": timedelta(seconds=61)}, {"ttl": timedelta(seconds=60)}),
        ("context.attested", {"attested": False}, {"attested": True, "agent": "spiffe://prod.example/a"}),
        (
            'context.agent like "spiffe://prod.example/*" && context.trust_domain == "prod.example"',
            {"attested": True, "agent": "spiffe://test.example/a"},
            {"attested": True, "agent": "spiffe://prod.example/a"},
        ),
        (
            'context.claims.hasTag("env") && context.claims.getTag("env") == "prod"',
            {"claims": (("env", "test"),)},
            {"claims": (("env", "prod"),)},
        ),
        ("context.exercise", {"exercise": False}, {"exercise": True}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_a_policy_demands_is_demanded_of_every_child(
    deployment: Deployment, condition: str, refused: dict[str, Any], allowed: dict[str, Any] | None
) -> None:
    """The root and its child stand anyway; a grandchild, at level 2, is what the policy is about."""
    demand = f"when {{ context.level == 2 }} unless {{ {condition} }};"
    deployment.write(f'{OPEN}@id("demand") forbid (principal, action, resource) {demand}')

    async def body(app: Application) -> None:
        await resources(app)
        root = (
            await app.broker.open(
                app.operator, GrantRequest(SEARCH, Bounds(timedelta(minutes=5), depth=4, fan_out=9), purpose="why")
            )
        ).grant
        child = (
            await app.broker.delegate(app.operator, root.id, GrantRequest(SEARCH, Bounds(None, depth=3, fan_out=9)))
        ).grant
        with pytest.raises(PolicyError, match="`demand` forbids `search`"):
            await delegated(app, child.id, refused)
        if allowed is not None:
            await delegated(app, child.id, allowed)

    deployment.up(body)


def test_a_question_is_explained_by_what_decides_now(deployment: Deployment) -> None:
    deployment.write(NO_MAIL)

    async def body(app: Application) -> None:
        await resources(app)
        grant = await opened(app, SEARCH)
        told = app.policies.explained(await app.broker.question(grant.id))
        assert (told["allowed"], told["version"], told["verb"]) == (True, version(app), "open")
        assert told["reasons"] == ["`all` permits `search`"]
        [detail] = listed(told["details"])
        assert [step["outcome"] for step in detail["policies"]] == ["permits", "does not apply"]

    deployment.up(body)


def test_what_exceeds_a_bound_is_explained_by_the_bound_alone() -> None:
    question = Question(Subject("unix://a#1", ""), "", SEARCH, {})
    told = PolicyDirectory(None).explained(question)
    assert told == {
        "allowed": False,
        "reasons": ["there is no resource `search`"],
        "version": VERSION,
        "verb": "open",
        "details": [{"type": "http", "resource": "search", "policies": []}],
    }


@pytest.mark.parametrize(
    "raw", [{}, [], {"directory": "relative"}, {"directory": 1}, {"directory": "/a", "more": 1}, {"Directory": "/a"}, 3]
)
def test_what_is_no_setting_is_refused(tmp_path: Path, raw: object) -> None:
    with pytest.raises(InvalidRequestError, match="policy"):
        settings.read(settings.places({"REMIT_STATE_DIR": str(tmp_path)}), {"policy": raw})
