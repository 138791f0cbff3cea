"""The tools of an agent's own authority, spoken to by a client of the official library."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from mcp import Client as McpClient
from mcp import MCPError, types

from remit.integrations import mcp_server
from remit.integrations.mcp_server import TOOLS
from remit.integrations.own_authority import OwnAuthority
from remit.sdk import AsyncClient, Bounds, Client, Place, asking, detail, verbs
from remit.sdk.detail import Wishes
from tests.sdk.plane import Served, served

Talk = Callable[[McpClient], Awaitable[Any]]


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as found:
        yield found


@pytest.fixture
def run(plane: Served, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Return the place of a run whose grant may delegate twice over."""
    return of_run(plane, monkeypatch, depth=2, fan_out=2)


def of_run(plane: Served, monkeypatch: pytest.MonkeyPatch, **bounds: Any) -> Place:
    """Return the place of a run, and set its variables."""
    with Client(plane.place) as client:
        wishes: Wishes = [detail("search", paths=["/v1/search", "/v1/other"]), "warehouse"]
        opened = client.run(verbs.open_task("write the summary", wishes, Bounds(**bounds)))
    place = plane.channel(opened.grant)
    for name in ("REMIT_URL_SEARCH", "SEARCH_BASE_URL"):
        monkeypatch.setenv(name, f"{place.gateway}/search{'/v1' if name == 'SEARCH_BASE_URL' else ''}")
    monkeypatch.setenv("REMIT_KEY_SEARCH", "placeholder-canary")
    return place


def judged(_: Mapping[str, Any], grant: str, would: Mapping[str, Any]) -> dict[str, Any]:
    return {"allowed": False, "reasons": [grant, would["target"]]}


def talk(place: Place, said: Talk) -> Any:
    async def whole() -> Any:
        async with (
            AsyncClient(place) as broker,
            McpClient(mcp_server.of(OwnAuthority(broker, judged))) as client,
        ):
            return await said(client)

    return asyncio.run(whole())


def call(place: Place, *calls: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Call tools in order; return what each said, which is the same as text and as data, and fits its schema."""

    async def said(client: McpClient) -> list[dict[str, Any]]:
        return [_told(name, await client.call_tool(name, arguments)) for name, arguments in calls]

    found: list[dict[str, Any]] = talk(place, said)
    return found


def _told(name: str, result: types.CallToolResult) -> dict[str, Any]:
    [text] = result.content
    assert isinstance(text, types.TextContent)
    told: dict[str, Any] = json.loads(text.text)
    assert told == result.structured_content
    assert result.is_error is ("error" in told)
    [schema] = [tool.output_schema for tool in mcp_server.listed() if tool.name == name]
    jsonschema.validate(told, schema or {})
    return told


def refused(place: Place, name: str, **arguments: Any) -> str:
    [told] = call(place, (name, arguments))
    assert told.keys() == {"error"}, told
    return str(told["error"]["code"])


NARROW = {"resource": "search", "paths": ["/v1/search"]}
WIDE = {"resource": "search", "paths": ["/v1/**"]}


def test_schemas_are_strict_and_say_what_a_tool_does(run: Place) -> None:
    tools = {tool.name: tool for tool in talk(run, lambda client: client.list_tools()).tools}
    assert list(tools) == ["my_authority", "delegate", "ask_for_access", "revoke_child"]
    for tool in tools.values():
        jsonschema.Draft202012Validator.check_schema(tool.input_schema)
        assert tool.input_schema["additionalProperties"] is False
    hints = {name: tool.annotations for name, tool in tools.items()}
    assert [name for name, hint in hints.items() if hint.read_only_hint] == ["my_authority"]
    assert [name for name, hint in hints.items() if hint.destructive_hint] == ["revoke_child"]


def test_an_agent_sees_its_scope_its_time_its_budgets_and_what_would_be_refused(run: Place) -> None:
    [told] = call(run, ("my_authority", {"would": {"method": "DELETE", "target": "/search/v1/search"}}))
    assert (told["grant"], told["purpose"]) == (run.grant, "write the summary")
    assert [each["resource"] for each in told["authorization_details"]] == ["search", "warehouse"]
    assert 0 < told["seconds_left"] <= 900
    assert told["base_urls"] == {"search": f"{run.gateway}/@{run.grant}/search"}  # the database has no URL
    assert told["would"] == {"allowed": False, "reasons": [run.grant, "/search/v1/search"]}
    assert told["children"] == told["asked"] == []
    assert any("wider" in line for line in told["refused"])


def test_a_child_is_named_by_its_id_and_has_base_urls_of_its_own(run: Place) -> None:
    made, told = call(
        run,
        ("delegate", {"label": "reader", "grants": [{**NARROW, "uses": 5}], "ttl": "60s", "depth": 1, "fan_out": 1}),
        ("my_authority", {}),
    )
    child = made["grant"]
    assert made["base_urls"] == {"search": f"{run.gateway}/@{child}/search"}
    assert (
        made["environ"]
        == {
            "REMIT_GRANT": child,
            "REMIT_GATEWAY": f"{run.gateway}/@{child}",
            "REMIT_URL_SEARCH": f"{run.gateway}/@{child}/search",
            "SEARCH_BASE_URL": f"{run.gateway}/@{child}/search/v1",
        }
        or "REMIT_GATEWAY" not in made["environ"]
    )
    assert child in made["tell"]
    assert made["seconds_left"] <= 60
    [shown] = told["children"]
    assert (shown["grant"], shown["label"], shown["children"]) == (child, "reader", [])
    assert shown["authorization_details"][0]["paths"] == ["/v1/search"]
    assert shown["budgets"] == [{"resource": "search", "uses": 5, "left": 5}]


def test_children_are_a_tree(run: Place) -> None:
    below = {"grants": [NARROW], "depth": 1, "fan_out": 1}
    [first] = call(run, ("delegate", {"label": "one", **below}))
    inner = Place(run.socket, first["grant"], run.gateway)
    [second] = call(inner, ("delegate", {"label": "two", "grants": [NARROW]}))
    [told], [seen] = call(run, ("my_authority", {})), call(inner, ("my_authority", {}))
    [child] = told["children"]
    assert [child["grant"], child["children"][0]["grant"]] == [first["grant"], second["grant"]]
    assert (seen["grant"], [each["grant"] for each in seen["children"]]) == (first["grant"], [second["grant"]])


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"grants": [{"resource": "search", "paths": ["/**"]}]}, "attenuation"),
        ({"grants": [{"resource": "nothing"}]}, "scope"),
        ({"grants": [NARROW], "ttl": "9h"}, "invalid-request"),
        ({"grants": [NARROW], "ttl": "1h"}, "attenuation"),
        ({"grants": [NARROW], "depth": 9}, "depth"),
        ({}, "invalid-request"),
        ({"grants": []}, "invalid-request"),
        ({"grants": [NARROW], "approval": "apr_0123456789abcdef"}, "invalid-request"),
        ({"grants": [NARROW], "token": "give it to me"}, "invalid-request"),
        ({"grants": [NARROW], "ttl": "soon"}, "invalid-request"),
        ({"grants": [NARROW], "label": "as placeholder-canary"}, "invalid-request"),
        ({"grants": [{**NARROW, "args": {"query.q": "eyJhbGciOiJFUzI1NiJ9.e30.c2ln"}}]}, "invalid-request"),
        ({"approval": "apr_0123456789abcdef"}, "not-found"),
    ],
)
def test_what_would_widen_or_is_not_well_formed_is_refused_and_makes_no_child(
    run: Place, arguments: dict[str, Any], code: str
) -> None:
    assert refused(run, "delegate", **arguments) == code
    assert call(run, ("my_authority", {}))[0]["children"] == []


def test_a_refusal_says_what_would_be_enough(run: Place) -> None:
    [told] = call(run, ("delegate", {"grants": [{"resource": "search", "paths": ["/**"]}]}))
    assert told["error"]["offending"][0]["paths"] == ["/**"]
    assert told["error"]["help"]


def test_a_tool_that_is_none_of_ours_is_an_error_of_the_protocol(run: Place) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(MCPError, match="there is no tool"), flatten_subgroups=True):
        talk(run, lambda client: client.call_tool("get_token", {}))


def test_asking_grants_nothing_says_who_asks_and_where_a_human_decides(plane: Served, run: Place) -> None:
    wide = [WIDE]
    asked, told = call(run, ("ask_for_access", {"label": "refunds", "grants": wide}), ("my_authority", {}))
    assert (asked["state"], asked["initiated_by"]) == ("pending", "agent")
    assert asked["where"] == f"{plane.base}/approvals/{asked['approval']}"
    assert asked["command"] == f"remit approve {asked['approval']}"
    assert "digest" not in json.dumps(asked)
    assert (told["children"], [each["approval"] for each in told["asked"]]) == ([], [asked["approval"]])
    assert refused(run, "delegate", approval=asked["approval"]) == "pending"


def test_what_a_human_approved_is_delegated_once(plane: Served, run: Place) -> None:
    wide = [WIDE]
    [asked] = call(run, ("ask_for_access", {"label": "refunds", "grants": wide}))
    with Client(plane.place) as owner:
        digest = owner.run(asking.approval(asked["approval"]))["digest"]
        owner.run(asking.decide(asked["approval"], "approve", digest))
    [made] = call(run, ("delegate", {"approval": asked["approval"], "wait": 1}))
    assert made["label"] == "refunds"
    assert made["authorization_details"][0]["paths"] == ["/v1/**"]
    assert refused(run, "delegate", approval=asked["approval"]) == "used"


def test_a_flood_of_questions_is_refused(run: Place) -> None:
    asks = [
        ("ask_for_access", {"label": f"n{n}", "grants": [{"resource": "search", "paths": [f"/v1/n{n}"]}]})
        for n in range(30)
    ]
    codes = [told.get("error", {}).get("code", "") for told in call(run, *asks)]
    assert codes == [""] * 20 + ["limit"] * 10


def test_no_grant_ends_but_one_below_the_own(plane: Served, run: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    below = {"grants": [NARROW], "depth": 1, "fan_out": 1}
    first, second = call(run, ("delegate", {"label": "a", **below}), ("delegate", {"label": "b", **below}))
    inner = Place(run.socket, first["grant"], run.gateway)  # as a sub-agent that names its grant
    other = of_run(plane, monkeypatch, depth=1, fan_out=1)
    codes = [refused(inner, "revoke_child", grant=str(place)) for place in (first["grant"], second["grant"], run.grant)]
    assert codes == ["denied", "not-found", "not-found"]
    assert refused(run, "revoke_child", grant=str(run.grant)) == "denied"
    assert refused(run, "revoke_child", grant=str(other.grant)) == "not-found"
    done, told = call(run, ("revoke_child", {"grant": second["grant"]}), ("my_authority", {}))
    assert (done["state"], done["revoked"]) == ("closed", 1)
    assert {each["grant"]: each["revoked"] for each in told["children"]} == {
        first["grant"]: False,
        second["grant"]: True,
    }


def test_of_what_is_left_a_refusal_is_foretold(plane: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    leaf = of_run(plane, monkeypatch)
    assert any("depth 0" in line for line in call(leaf, ("my_authority", {}))[0]["refused"])
    full = of_run(plane, monkeypatch, depth=1, fan_out=1)
    _, told = call(full, ("delegate", {"grants": [NARROW]}), ("my_authority", {}))
    assert any("1 may live at once" in line for line in told["refused"])


def test_outside_a_run_every_tool_says_how_to_be_in_one(plane: Served) -> None:
    told = call(plane.place, ("my_authority", {}), ("delegate", {"grants": [NARROW]}))
    assert {each["error"]["code"] for each in told} == {"denied"}
    assert all("remit run" in each["error"]["help"] for each in told)
    with Client(plane.place) as client:
        assert client.run(verbs.tasks()) == []


def test_no_answer_has_a_placeholder_or_a_key_in_it(run: Place) -> None:
    answers = call(
        run,
        ("my_authority", {}),
        ("delegate", {"label": "a", "grants": [NARROW]}),
        ("ask_for_access", {"label": "b", "grants": [{"resource": "search", "paths": ["/**"]}]}),
        ("delegate", {"grants": [NARROW], "token": "x"}),
    )
    said = json.dumps(answers)
    assert [
        word for word in ("placeholder-canary", "sk-search-0123456789ab", "pg-login", "DPoP", "jkt") if word in said
    ] == []
    assert len(TOOLS) == 4
