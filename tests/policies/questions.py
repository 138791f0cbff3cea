"""Questions and sets of policies, as the tests here put them."""

from __future__ import annotations

from typing import Any

from remit.core import scope as scopes
from remit.core.grant import Posture, Subject
from remit.core.policy import Question
from remit.core.request import GrantRequest
from remit.policies import sets
from remit.policies.sets import CedarPolicies
from tests.grant_requests import MEMBERS, changed

IDP = "https://idp.example.com"
ADA = Subject(f"{IDP}#ada", "urn:example:mfa", None, ("pwd", "otp"), ("analysts",))
TABLE: dict[str, object] = {
    "type": "postgres",
    "resource": "warehouse",
    "actions": ["select"],
    "tables": ["sales.revenue"],
    "columns": {"sales.revenue": ["amount", "quarter"]},
    "ttl": 600,
}
SEARCH: dict[str, object] = {
    "type": "http",
    "resource": "search",
    "actions": ["GET", "POST"],
    "paths": ["/v1/search", "/v1/*/items", "/v2/**"],
    "args": {"query.q": "any", "query.limit": {"at_most": 20}},
    "uses": 3,
}
ALL = '@id("all")\npermit (principal, action, resource);\n'


def question(*details: dict[str, object], **more: Any) -> Question:
    """Return a question of Ada's, about the table if nothing is said."""
    fields: dict[str, Any] = {"subject": ADA, "purpose": "report", "posture": Posture("namespace", "channel"), **more}
    scope = scopes.parse(list(details or (TABLE,)))
    made = changed(GrantRequest(scope), {name: fields.pop(name) for name in MEMBERS & fields.keys()})
    agent = {"agent": more["agent"]} if "agent" in more else {}
    return Question(scope=scope, bounds=made.bounds, binding=made.binding, **agent, **fields)


def policies(*texts: str) -> CedarPolicies:
    """Return the set of these files, which are good."""
    found, problems = sets.read({f"{number}.cedar": text for number, text in enumerate(texts, 1)})
    assert found is not None, problems
    return found


def when(condition: str, effect: str = "permit", name: str = "it") -> str:
    """Return a policy for everybody and everything, under one condition."""
    return f'@id("{name}")\n{effect} (principal, action, resource)\nwhen {{ {condition} }};\n'


def holds(condition: str, query: Question) -> bool:
    """Whether a condition holds for a question, by a policy that permits under it alone."""
    return policies(when(condition))(query).allowed
