from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from remit.compose.explain import Request, explained
from remit.errors import InvalidRequestError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = (NOW + timedelta(minutes=5)).isoformat()
SEARCH: dict[str, Any] = {"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/v1/**"]}
GET = Request("GET", "/search/v1/x")


def grant(name: str, parent: str | None, *details: dict[str, Any], **more: object) -> dict[str, Any]:
    plain = {"grant": name, "parent": parent, "revoked": False, "exercise": True, "expires_at": LATER}
    return {**plain, "authorization_details": list(details or [SEARCH]), "used": [0] * (len(details) or 1), **more}


def task(*grants: dict[str, Any], closed: bool = False) -> dict[str, Any]:
    return {"task": "task_1", "closed": closed, "grants": list(grants)}


def test_a_covered_request_of_a_live_grant_is_allowed_by_its_detail() -> None:
    answer = explained(task(grant("grt_1", None)), "grt_1", GET, NOW)
    assert (answer.allowed, answer.by) == (True, SEARCH)


def test_the_end_of_an_ancestor_is_named() -> None:
    found = task(grant("grt_1", None, revoked=True), grant("grt_2", "grt_1"))
    assert explained(found, "grt_2", GET, NOW).reasons == ("grt_1 was revoked",)


def test_expiry_is_told_apart_from_revocation() -> None:
    found = task(grant("grt_1", None, expires_at=NOW.isoformat()))
    assert explained(found, "grt_1", GET, NOW).reasons == ("grt_1 has expired",)


def test_the_budget_of_an_ancestor_counts_too() -> None:
    counted = {**SEARCH, "uses": 5}
    other = {**SEARCH, "resource": "docs"}
    found = task(
        grant("grt_1", None, other, counted, used=[0, 5]),
        grant("grt_2", "grt_1", {**counted, "uses": 3}, used=[1]),
    )
    answer = explained(found, "grt_2", GET, NOW)
    assert answer.reasons == ("the budget of grt_1 is used up (5 uses)",)


def test_what_a_holder_may_not_see_above_it_is_left_out() -> None:
    assert explained(task(grant("grt_2", "grt_unseen")), "grt_2", GET, NOW).allowed


def test_arguments_are_judged_by_name() -> None:
    named = {**SEARCH, "args": {"query.q": "any", "query.limit": {"at_most": 20}}}
    found = task(grant("grt_1", None, named))
    assert explained(found, "grt_1", Request("GET", "/search/v1/x?q=a&limit=20"), NOW).allowed
    refused = explained(found, "grt_1", Request("GET", "/search/v1/x?q=a&limit=21"), NOW)
    assert refused.enough is not None
    assert refused.enough["args"] == {"query.q": "a", "query.limit": "21"}


def test_what_would_be_enough_is_enough() -> None:
    what = Request("POST", "/search/v1/a%20b/c?q=x%2Fy", '{"to": ["a", {"b": 7}]}')
    refused = explained(task(grant("grt_1", None)), "grt_1", what, NOW)
    assert refused.enough is not None
    widened = task(grant("grt_1", None, dict(refused.enough)))
    assert explained(widened, "grt_1", what, NOW).allowed


def test_what_mints_standing_credentials_must_be_granted_by_its_path() -> None:
    keys: dict[str, Any] = {"type": "http", "resource": "github", "actions": ["POST"], "paths": ["/**"], "args": "any"}
    github = {"resource": "github", "destination": "https://api.github.com", "settings": {"provider": "github"}}
    what = Request("POST", "/github/user/keys")
    refused = explained(task(grant("grt_1", None, keys)), "grt_1", what, NOW, github)
    assert "standing credential" in refused.reasons[0]
    named = {**keys, "paths": ["/user/keys"]}
    assert explained(task(grant("grt_1", None, named)), "grt_1", what, NOW, github).allowed


def test_what_a_human_approved_has_a_budget_of_its_own_and_is_said_to_rest_on_them() -> None:
    above = {**SEARCH, "paths": ["/v1/x"], "uses": 5}
    found = task(
        grant("grt_1", None, above, used=[5], agent="spiffe://prod.test/ci", attested=True),
        grant("grt_2", "grt_1", {**SEARCH, "uses": 3}, used=[1], approval="apr_1", approved=[0]),
        grant("grt_3", "grt_2", {**SEARCH, "uses": 3}, used=[1], agent="spiffe://remit.local/x", attested=False),
    )
    answer = explained(found, "grt_3", GET, NOW)
    assert answer.allowed
    assert answer.rests_on == ("held by spiffe://remit.local/x (not attested)", "grt_2 was approved by a human: apr_1")
    assert explained(found, "grt_1", GET, NOW).rests_on == ("held by spiffe://prod.test/ci (attested)",)


@pytest.mark.parametrize("says", ["binding", "advisory"])
def test_how_far_it_holds_that_a_grant_is_not_to_be_used_is_said(says: str) -> None:
    found = task(grant("grt_1", None, exercise=False, unusable=says))
    [reason] = explained(found, "grt_1", GET, NOW).reasons
    assert reason == f"the grant may delegate, but not be used itself ({says})"


def test_a_url_that_names_another_grant_is_not_explained_as_of_this_one() -> None:
    found = task(grant("grt_1", None))
    assert explained(found, "grt_1", Request("GET", "/@grt_1/search/v1/x"), NOW).allowed
    with pytest.raises(InvalidRequestError, match="another grant: grt_2"):
        explained(found, "grt_1", Request("GET", "/@grt_2/search/v1/x"), NOW)


FORGE: dict[str, Any] = {
    "type": "mcp",
    "resource": "forge",
    "actions": ["tools/call"],
    "tools": {"search": {"q": "any", "limit": {"at_most": 20}}},
}


def said(method: str, target: str = "/forge", **params: Any) -> Request:
    return Request("POST", target, json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))


def test_of_a_server_that_speaks_messages_the_message_is_judged() -> None:
    found = task(grant("grt_1", None, FORGE))
    allowed = explained(found, "grt_1", said("tools/call", name="search", arguments={"q": "a", "limit": 20}), NOW)
    assert (allowed.allowed, allowed.by) == (True, FORGE)
    assert explained(found, "grt_1", said("tools/list"), NOW).allowed
    for place in ("mcp+https://forge.example/mcp", "mcp+stdio:forge"):
        there = {"resource": "forge", "destination": place, "settings": {"bearer": True}}
        assert explained(found, "grt_1", said("tools/list"), NOW, there).allowed
    assert explained(found, "grt_1", Request("GET", "/@grt_1/forge"), NOW).allowed


@pytest.mark.parametrize(
    "what",
    [
        said("tools/call", name="search", arguments={"q": "a", "limit": 21}),
        said("tools/call", name="delete_file", arguments={"path": "/a"}),
        said("resources/read", uri="file:///a"),
    ],
)
def test_of_a_message_what_would_be_enough_is_enough(what: Request) -> None:
    refused = explained(task(grant("grt_1", None, FORGE)), "grt_1", what, NOW)
    assert not refused.allowed
    assert refused.enough is not None
    assert refused.enough["actions"] == [json.loads(what.body or "")["method"]]
    assert explained(task(grant("grt_1", None, dict(refused.enough))), "grt_1", what, NOW).allowed


@pytest.mark.parametrize(
    ("what", "why"),
    [
        (said("tools/call", "/forge/search", name="search", arguments={}), "one endpoint"),
        (Request("PUT", "/forge", "{}"), "POST, GET and DELETE"),
        (said("admin/wipe"), "no method that a grant can have"),
    ],
)
def test_what_no_grant_permits_at_such_a_server_is_refused_with_the_reason(what: Request, why: str) -> None:
    refused = explained(task(grant("grt_1", None, FORGE)), "grt_1", what, NOW)
    assert (refused.allowed, refused.enough) == (False, None)
    assert why in refused.reasons[0]


@pytest.mark.parametrize(
    "what",
    [
        Request("POST", "/forge"),
        Request("POST", "/forge", '{"q": 1}'),
        said("tools/call", name="search", Name="delete_file", arguments={}),
        said("tools/call", name="search", arguments={"q": "a", "limit": 1}, requestState="of an answer"),
    ],
)
def test_what_cannot_be_judged_as_a_message_is_said_to_be_so(what: Request) -> None:
    with pytest.raises(InvalidRequestError):
        explained(task(grant("grt_1", None, FORGE)), "grt_1", what, NOW)


def test_the_budget_of_messages_is_that_of_the_detail_that_permits_them() -> None:
    found = task(grant("grt_1", None, {**FORGE, "uses": 2}, used=[2]))
    answer = explained(found, "grt_1", said("tools/call", name="search", arguments={"q": "a", "limit": 1}), NOW)
    assert answer.reasons == ("the budget of grt_1 is used up (2 uses)",)


def test_of_what_is_not_reached_by_requests_none_is_judged() -> None:
    tables = {"type": "postgres", "resource": "warehouse", "actions": ["select"], "tables": ["sales"]}
    found = task(grant("grt_1", None, tables))
    with pytest.raises(InvalidRequestError, match="no requests"):
        explained(found, "grt_1", Request("GET", "/warehouse/sales"), NOW)
