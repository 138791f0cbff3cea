"""What a policy can see of a question: every attribute of the schema, with what it is."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from remit.core.grant import WORKLOAD, Posture, Subject
from remit.core.request import MAX_TTL
from remit.policies import model
from tests.policies.questions import ADA, ALL, IDP, SEARCH, TABLE, holds, policies, question, when

MCP: dict[str, object] = {
    "type": "calls", "resource": "github", "actions": ["tools/call"], "tools": {"create_issue": "any", "list": "any"},
}  # fmt: skip
FORGE: dict[str, object] = {
    "type": "mcp", "resource": "forge", "actions": ["prompts/get"], "prompts": "any", "resources": ["repo://acme/*"],
}  # fmt: skip
HOSTS: dict[str, object] = {"type": "egress", "resource": "files", "hosts": ["a.example", "*.b.example"]}
ORDERS: dict[str, object] = {
    "type": "elsewhere", "resource": "orders", "actions": ["read"], "datatypes": ["order"], "locations": ["eu"],
    "privileges": ["clerk"],
}  # fmt: skip
SVID: dict[str, object] = {"type": "spiffe", "resource": "own", "actions": ["jwt"], "audiences": ["https://a.test"]}
AGENT = "spiffe://prod.example/ns/agents/sa/planner"
FULL = question(
    verb="delegate",
    agent=AGENT,
    attested=True,
    claims={"repository": "acme/app", "env": "prod"},
    level=2,
    depth=3,
    fan_out=4,
    exercise=False,
    unattested=False,
    ttl=timedelta(minutes=10),
    posture=Posture("namespace", "channel", "kek-file"),
    approval="apr_1",
)


@pytest.mark.parametrize(
    "condition",
    [
        f'principal == Human::"{IDP}#ada"',
        f'principal in Group::"{IDP}#analysts"',
        "principal is Human",
        f'principal.sub == "ada" && principal.issuer == "{IDP}"',
        'principal.acr == "urn:example:mfa"',
        'principal.amr.contains("otp") && !principal.amr.contains("hwk")',
        "!(principal has auth_time)",
        'action == Action::"delegate"',
        'resource == Resource::"warehouse" && resource.name == "warehouse" && resource.type == "postgres"',
        'context.purpose == "report"',
        "context.details == 1",
        f'context.agent == "{AGENT}" && context.agent like "spiffe://prod.example/ns/*"',
        "context.attested",
        'context.trust_domain == "prod.example"',
        'context.claims.hasTag("repository") && context.claims.getTag("repository") == "acme/app"',
        '!context.claims.hasTag("other")',
        "context.level == 2 && context.depth == 3 && context.fan_out == 4",
        "!context.exercise && !context.unattested",
        "context.ttl == 600",
        'context.posture.isolation == "namespace" && context.posture.custody == "channel"',
        'context.posture.at_rest == "kek-file"',
        "context.approval",
        'context.detail.actions == ["select"]',
        'context.detail has tables && context.detail.tables == ["sales.revenue"]',
        'context.detail has table_schemas && context.detail.table_schemas == ["sales"]',
        'context.detail has columns && context.detail.columns == ["sales.revenue.amount", "sales.revenue.quarter"]',
        "context.detail has ttl && context.detail.ttl == 600",
        "!(context.detail has uses) && !(context.detail has paths) && !(context.detail has tools)",
    ],
)
def test_every_attribute_can_be_asked_for(condition: str) -> None:
    assert holds(condition, FULL)
    assert not holds(f"!({condition})", FULL)


@pytest.mark.parametrize(
    "condition",
    [
        'resource.type == "http"',
        'context.detail.actions.containsAll(["GET", "POST"])',
        'context.detail has paths && context.detail.paths.contains("/v1/*/items")',
        'context.detail has path_roots && context.detail.path_roots == ["v1", "v2"]',
        'context.detail has args && context.detail.args == ["query.limit", "query.q"]',
        "context.detail has uses && context.detail.uses == 3",
        "!(context.detail has ttl) && !(context.detail has tables)",
    ],
)
def test_what_an_http_detail_shows(condition: str) -> None:
    assert holds(condition, question(SEARCH))


@pytest.mark.parametrize(
    ("detail", "condition"),
    [
        ({**SEARCH, "paths": ["/**"]}, 'context.detail has path_roots && context.detail.path_roots == ["**"]'),
        ({**SEARCH, "paths": ["/*/x"]}, 'context.detail has path_roots && context.detail.path_roots == ["*"]'),
        ({**SEARCH, "args": "any"}, 'context.detail has args && context.detail.args == ["*"]'),
        (
            {name: value for name, value in SEARCH.items() if name != "args"},
            "context.detail has args && context.detail.args.isEmpty()",
        ),
        (
            {name: value for name, value in TABLE.items() if name != "columns"},
            'context.detail has columns && context.detail.columns == ["sales.revenue.*"]',
        ),
        (MCP, 'context.detail has tools && context.detail.tools == ["create_issue", "list"]'),
        (FORGE, 'context.detail has resources && context.detail.resources == ["repo://acme/*"]'),
        (FORGE, 'context.detail has prompts && context.detail.prompts == ["*"]'),
        (FORGE, "context.detail has tools && context.detail.tools.isEmpty()"),
        (ORDERS, 'context.detail has datatypes && context.detail.datatypes == ["order"]'),
        (HOSTS, 'context.detail has hosts && context.detail.hosts.contains("*.b.example")'),
        (SVID, 'context.detail has audiences && context.detail.audiences == ["https://a.test"]'),
    ],
)
def test_what_is_not_bounded_shows_as_a_star(detail: dict[str, object], condition: str) -> None:
    assert holds(condition, question(detail))


def test_a_question_of_which_nothing_is_said_promises_nothing() -> None:
    bare = question(posture=Posture())
    assert holds('context.posture.isolation == "none" && context.posture.custody == "holder"', bare)
    assert holds('!context.attested && context.agent == "" && context.trust_domain == "" && !context.approval', bare)
    assert holds(f"context.ttl == {int(MAX_TTL.total_seconds())}", bare)  # nothing said is the longest there is


def test_when_a_human_was_proven_can_be_asked() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    proven = question(subject=Subject(f"{IDP}#ada", "", at))
    assert holds(f"principal has auth_time && principal.auth_time == {int(at.timestamp())}", proven)


def test_a_workload_that_acts_for_itself_is_no_human() -> None:
    query = question(subject=Subject(AGENT, WORKLOAD))
    assert holds(f'principal is Workload && principal == Workload::"{AGENT}"', query)
    assert holds(f'principal.issuer == "spiffe://prod.example" && principal.sub == "{AGENT}"', query)
    assert not holds("principal is Human", query)


@pytest.mark.attack("DEL-08")
@pytest.mark.parametrize("scheme", ["spiffe", "wimse"])
def test_what_is_said_of_a_trust_domain_is_said_of_its_workloads_whatever_the_scheme_of_their_names(
    scheme: str,
) -> None:
    name = f"{scheme}://prod.example/ns/agents/writer"
    acting = question(agent=name, attested=True)
    opening = question(subject=Subject(name, WORKLOAD), agent=name, attested=True)
    forbidden = 'context.trust_domain == "prod.example"'
    for query in (acting, opening):
        assert not policies(ALL, when(forbidden, "forbid"))(query).allowed
    assert not policies(ALL, when('principal.issuer == "spiffe://prod.example"', "forbid"))(opening).allowed
    assert holds(f'principal == Workload::"{name}" && principal.sub == "{name}"', opening)


@pytest.mark.attack("DEL-08")
@pytest.mark.parametrize(
    "name", ["", f"{IDP}#ada", "wimse:prod.example/x", "urn:wimse://prod.example/x", "https://prod.example/x"]
)
def test_a_name_without_a_trust_domain_has_none(name: str) -> None:
    assert holds('context.trust_domain == ""', question(agent=name))


def test_a_group_of_one_issuer_is_not_that_of_another() -> None:
    there = question(subject=Subject("https://other.example#ada", "", groups=("analysts",)))
    assert not holds(f'principal in Group::"{IDP}#analysts"', there)


@pytest.mark.parametrize("sub", ["a", "a#b#c", 'x"#y', "#", "spiffe://", "unix://host#1000"])
def test_any_name_of_a_subject_is_asked_about_as_it_is(sub: str) -> None:
    query = question(subject=Subject(sub, "", groups=('g"',)))
    issuer, rest = model.split(sub)
    text = json.dumps(rest)
    assert holds(f"principal.sub == {text} && principal.issuer == {json.dumps(issuer)}", query)


def test_claims_of_two_workloads_are_not_mixed_up() -> None:
    condition = 'context.claims.hasTag("a") && context.claims.getTag("a") == "1"'
    found = policies(f'@id("it") permit (principal, action, resource) when {{ {condition} }};')
    seen = [found(question(claims=claims)).allowed for claims in ({"a": "1"}, {"a": "2"}, {}, {"a": "1"})]
    assert seen == [True, False, False, True]


def test_there_is_one_request_for_each_detail_in_order() -> None:
    found = model.requests(question(SEARCH, TABLE, MCP))
    assert [item["resource"]["id"] for item in found] == ["search", "warehouse", "github"]
    assert {item["context"]["details"] for item in found} == {3}


def test_the_model_says_what_the_schema_says_and_no_more() -> None:
    schema = model.schema_text()
    declared = dict(re.findall(r"^type (\w+) = \{\n(.*?)^\};", schema, re.MULTILINE | re.DOTALL))

    def names(of: str, *, optional: bool = True) -> set[str]:
        found = re.findall(r"^  (\w+)(\??):", declared[of], re.MULTILINE)
        return {name for name, mark in found if optional or not mark}

    shown = [item["context"] for item in model.requests(question(SEARCH, TABLE, MCP, SVID, HOSTS, FORGE, ORDERS))]
    assert all(context.keys() == names("Asked") for context in shown)
    assert all(context["posture"].keys() == names("Posture") for context in shown)
    details = [set(context["detail"]) for context in shown]
    assert set.union(*details) == names("Detail")
    assert set.intersection(*details) == names("Detail", optional=False)


def test_entities_are_those_that_requests_name() -> None:
    found = model.entities(ADA, {"a": "1"}, [("warehouse", "postgres")])
    assert [item["uid"]["type"] for item in found] == ["Human", "Claims", "Resource"]
    assert found[0]["parents"] == [{"type": "Group", "id": f"{IDP}#analysts"}]
    assert found[1]["tags"] == {"a": "1"}
