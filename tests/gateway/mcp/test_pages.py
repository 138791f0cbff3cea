"""A resource that its human has not connected: how the agent's client is asked to bring them to remit's page."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from remit.core import scope
from remit.core.principal import Operator
from remit.core.request import Bounds, GrantRequest
from remit.core.task import Subject
from remit.gateway.mcp.pages import KEY, URL_REQUIRED
from remit.gateway.server import Channel
from tests.broker.asking import everybody
from tests.broker.providers import HERE, OAUTH, Issuing, reached
from tests.gateway.mcp.forge import ASKED, CALLS, Forge, call, forge, message, result
from tests.gateway.rig import PLACEHOLDER, play

ANN = Operator(Subject("https://id.test#ann", "urn:test:mfa"))
META = "io.modelcontextprotocol/"
PAGE = f"{HERE}/connections/forge"
SHOWS: Mapping[str, object] = {"elicitation": {"form": {}, "url": {}}}
NEWEST = ("MCP-Protocol-Version: 2026-07-28", "Mcp-Method: tools/call", "Mcp-Name: open")


@asynccontextmanager
async def unconnected(*details: Mapping[str, object]) -> AsyncIterator[Forge]:
    """Start a gateway for a task of Ann's, who has connected nothing."""
    async with forge(oauth=OAUTH, providers=reached(Issuing()), decide=everybody) as there:
        wanted = GrantRequest(scope.parse(list(details or (CALLS,))), Bounds(timedelta(minutes=15)), purpose="p")
        there.rig.grant = (await there.rig.broker.open(ANN, wanted)).grant
        there.rig.port = await there.rig.listen(Channel(there.rig.grant.id, {"forge": PLACEHOLDER}))
        yield there


async def connect(there: Forge) -> None:
    begun = await there.rig.broker.begin_connection(ANN, "forge", "b")
    back = await there.rig.broker.answer_connection("forge", {"state": begun.state, "code": "c"}, "b")
    await there.rig.broker.confirm_connection("forge", back.begun, "b")


def initialize(**capabilities: object) -> bytes:
    params = {
        "protocolVersion": "2025-11-25",
        "capabilities": capabilities,
        "clientInfo": {"name": "c", "version": "1"},
    }
    return message("initialize", params)


def newest(capabilities: object = SHOWS, **more: object) -> bytes:
    meta = {f"{META}protocolVersion": "2026-07-28", f"{META}clientCapabilities": capabilities}
    return message("tools/call", {"name": "open", "arguments": {"repo": "acme"}, "_meta": meta, **more})


def page_of(found: Any) -> Any:
    """Return the one page that a client is asked to show."""
    assert found["error"]["code"] == URL_REQUIRED
    [page] = found["error"]["data"]["elicitations"]
    return page


def test_a_client_that_shows_pages_is_asked_to_show_the_one_where_its_human_connects() -> None:
    async def scene() -> None:
        async with unconnected() as there:
            page = page_of((await there.post(initialize(**SHOWS))).json())
            assert (page["mode"], page["url"]) == ("url", PAGE)
            assert "has not been connected for this human" in page["message"]
            again = page_of((await there.post(initialize(**SHOWS))).json())
            assert page["elicitationId"] != again["elicitationId"]
            assert there.seen == []
            await connect(there)
            assert "result" in (await there.post(initialize(**SHOWS))).json()
            assert [seen.headers["authorization"] for seen in there.seen] == ["Bearer access-token-number-0"]
            sent = json.loads(there.seen[0].body)
            assert sent["params"]["capabilities"] == {}  # what remit may ask no server may that was not granted it

    play(scene)


def test_what_a_client_said_at_first_counts_for_its_session() -> None:
    async def scene() -> None:
        async with unconnected() as there:
            await connect(there)
            sessions = []
            plain_form: Mapping[str, object] = {"elicitation": {}}
            for capabilities in (SHOWS, plain_form):
                there.answers(result_in("s-1"))
                sessions.append((await there.post(initialize(**capabilities))).headers["mcp-session-id"])
            there.answers(result())
            await there.rig.broker.end_connection(ANN, "forge", ANN.name)
            shows, plain = [f"Mcp-Session-Id: {session}" for session in sessions]
            assert page_of((await there.post(call("open", repo="acme"), shows)).json())["url"] == PAGE
            told: Any = (await there.post(call("open", repo="acme"), plain)).json()
            assert told["result"]["isError"]
            assert PAGE in told["result"]["content"][0]["text"]
            assert told["result"]["_meta"]["remit/problem"]["url"] == PAGE
            await connect(there)
            for session in (shows, plain):
                assert (await there.post(call("open", repo="acme"), session)).json()["result"] == {}
                assert there.seen[-1].headers["mcp-session-id"] == "s-1"

    play(scene)


def result_in(session: str) -> bytes:
    return result().replace(b"\r\n", f"\r\nMcp-Session-Id: {session}\r\n".encode(), 1)


def test_in_the_newest_revision_the_call_is_made_again_and_its_answer_to_remit_goes_no_further() -> None:
    async def scene() -> None:
        async with unconnected() as there:
            found: Any = (await there.post(newest(), *NEWEST)).json()
            assert found["result"]["resultType"] == "input_required"
            asked = found["result"]["inputRequests"][KEY]
            assert (asked["method"], asked["params"]["url"]) == ("elicitation/create", PAGE)
            again = newest(inputResponses={KEY: {"action": "accept"}})
            told: Any = (await there.post(again, *NEWEST)).json()  # it did not wait: it is told so, and not asked again
            assert told["result"]["isError"]
            await connect(there)
            assert (await there.post(again, *NEWEST)).json()["result"] == {}
            assert "inputResponses" not in json.loads(there.seen[-1].body)["params"]

    play(scene)


def test_what_answers_a_server_beside_goes_on_and_its_state_is_not_lost() -> None:
    async def scene() -> None:
        async with unconnected(ASKED) as there:
            await connect(there)
            there.answers(result(resultType="input_required", requestState="half"))
            asked: Any = (await there.post(newest(), *NEWEST)).json()
            state = asked["result"]["requestState"]
            await there.rig.broker.end_connection(ANN, "forge", ANN.name)
            found: Any = (await there.post(newest(requestState=state), *NEWEST)).json()
            assert found["result"]["requestState"] == state
            await connect(there)
            answers = {KEY: {"action": "accept"}, "theirs": {"action": "decline"}}
            await there.post(newest(requestState=state, inputResponses=answers), *NEWEST)
            sent = json.loads(there.seen[-1].body)["params"]
            assert (sent["requestState"], sent["inputResponses"]) == ("half", {"theirs": {"action": "decline"}})

    play(scene)


@pytest.mark.parametrize("capabilities", [{}, {"elicitation": {}}, {"elicitation": {"url": True}}, {"elicitation": []}])
def test_a_client_that_shows_none_is_told_where_to_go(capabilities: object) -> None:
    async def scene() -> None:
        async with unconnected() as there:
            found: Any = (await there.post(newest(capabilities), *NEWEST)).json()
            assert (found["result"]["isError"], found["result"]["resultType"]) == (True, "complete")
            assert PAGE in found["result"]["content"][0]["text"]

    play(scene)


def test_what_cannot_be_made_again_is_refused_in_words() -> None:
    async def scene() -> None:
        async with unconnected() as there:
            meta = {f"{META}protocolVersion": "2026-07-28", f"{META}clientCapabilities": SHOWS}
            lines = ("MCP-Protocol-Version: 2026-07-28", "Mcp-Method: tools/list")
            found: Any = (await there.post(message("tools/list", {"_meta": meta}), *lines)).json()
            assert PAGE in found["error"]["message"]

    play(scene)


def test_who_has_no_page_is_told_the_command() -> None:
    async def scene() -> None:
        async with unconnected() as there:
            own = await there.rig.opened(CALLS)  # the operator's own
            port = await there.rig.listen(Channel(own.id, {"forge": PLACEHOLDER}))
            found: Any = (await there.post(newest(), *NEWEST, port=port)).json()
            assert found["result"]["isError"]
            assert "`remit connect forge`" in found["result"]["content"][0]["text"]

    play(scene)
