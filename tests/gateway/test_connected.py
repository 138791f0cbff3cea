"""Resources that humans connect, through the real gateway: whose token goes out, until when, what nobody is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from remit.core import scope
from remit.core.principal import Operator
from remit.core.request import Bounds, GrantRequest
from remit.core.task import Subject
from remit.gateway.server import Channel
from tests.broker.providers import OAUTH, Issuing, connect, reached
from tests.broker.world import OPERATOR
from tests.gateway.mcp.forge import BOUND, JSON, call, forge
from tests.gateway.rig import ALL, PLACEHOLDER, Rig, play, rig
from tests.support.upstream import whole

OTHER = Operator(Subject("unix://host#1001", "local-uid"))


@asynccontextmanager
async def connected(issuing: Issuing, **settings: object) -> AsyncIterator[Rig]:
    given = {"oauth": OAUTH, **settings}
    async with rig(ALL, secret=None, settings=given, providers=reached(issuing)) as r:
        yield r


def test_a_request_goes_out_with_the_token_of_its_tasks_human_renewed_ahead_of_its_end() -> None:
    async def scene() -> None:
        issuing = Issuing()
        async with connected(issuing) as r:
            await connect(r.broker, "api")
            for seconds in (0, 100, 450, 0):
                r.now[0] += timedelta(seconds=seconds)
                reply = await r.get("/api/x", f"Authorization: Bearer {PLACEHOLDER}")
                assert reply.status == 200
            shown = [seen.headers["authorization"] for seen in r.upstream.seen]
            assert shown == [f"Bearer access-token-number-{number}" for number in (0, 0, 1, 1)]
            assert len(issuing.asked) == 2

    play(scene)


def test_who_has_not_connected_is_told_so_and_nothing_goes_out() -> None:
    async def scene() -> None:
        async with connected(Issuing()) as r:
            reply = await r.get("/api/x")
            assert reply.status == 403
            assert reply.json()["code"] == "connect"
            assert reply.json()["help"] == "on the broker's host: `remit connect api`"
            assert not r.upstream.seen
            outcome = (await r.outcomes(1))[0]
            assert (outcome.decision, outcome.code) == ("failed", "connect")
            await connect(r.broker, "api")
            assert (await r.get("/api/x")).status == 200

    play(scene)


SCARCE = 'Bearer error="insufficient_scope", scope="issues:write repo $(id)", resource_metadata="https://api.test/x"'


@pytest.mark.parametrize(
    ("challenge", "more"),
    [(SCARCE, " --scope issues:write --scope repo"), ('DPoP algs="ES256", Bearer error=insufficient_scope', "")],
)
def test_who_is_connected_for_less_than_the_upstream_wants_is_told_what_to_ask_for(challenge: str, more: str) -> None:
    async def scene() -> None:
        async with connected(Issuing()) as r:
            await connect(r.broker, "api")
            r.upstream._routes["/v1/x"] = whole("403 Forbidden", b"no", f"WWW-Authenticate: {challenge}")
            reply = await r.get("/api/v1/x")
            assert (reply.status, reply.json()["code"]) == (403, "connect")
            told = str(reply.json()["help"])
            assert told.endswith(f": `remit connect api{more}`")
            assert "$" not in reply.body.decode()
            outcome = (await r.outcomes(1))[0]
            assert (outcome.decision, outcome.code) == ("failed", "connect")

    play(scene)


@pytest.mark.parametrize("challenge", ["", 'Bearer error="invalid_token"', 'Basic error="insufficient_scope"'])
def test_another_refusal_of_an_upstream_is_its_own(challenge: str) -> None:
    async def scene() -> None:
        async with connected(Issuing()) as r:
            await connect(r.broker, "api")
            r.upstream._routes["/v1/x"] = whole(
                "403 Forbidden", b"no", *([f"WWW-Authenticate: {challenge}"] if challenge else [])
            )
            reply = await r.get("/api/v1/x")
            assert (reply.status, reply.body) == (403, b"no")

    play(scene)


def test_what_an_upstream_says_of_a_key_that_is_no_humans_is_its_own() -> None:
    async def scene() -> None:
        async with rig(ALL) as r:
            r.upstream._routes["/v1/x"] = whole("403 Forbidden", b"no", f"WWW-Authenticate: {SCARCE}")
            reply = await r.get("/api/v1/x")
            assert (reply.status, reply.body) == (403, b"no")

    play(scene)


def test_a_message_that_a_connection_does_not_reach_for_is_a_refusal_that_its_human_can_mend() -> None:
    async def scene() -> None:
        async with forge(BOUND, oauth=OAUTH, providers=reached(Issuing())) as there:
            await connect(there.rig.broker, "forge")
            there.answers(whole("403 Forbidden", b"{}", JSON, f"WWW-Authenticate: {SCARCE}"))
            found: Any = (await there.post(call("open", repo="acme"))).json()
            assert found["result"]["isError"]
            assert "--scope issues:write" in found["result"]["_meta"]["remit/problem"]["help"]

    play(scene)


def test_each_task_is_served_with_its_own_humans_token() -> None:
    async def scene() -> None:
        async with connected(Issuing()) as r:
            await connect(r.broker, "api")
            wanted = GrantRequest(scope.parse([ALL]), Bounds(timedelta(minutes=15)), purpose="of somebody else")
            other = (await r.broker.open(OTHER, wanted)).grant
            port = await r.listen(Channel(other.id, {"api": PLACEHOLDER}))
            assert (await r.get("/api/x")).status == 200
            assert (await r.get("/api/x", port=port)).status == 403
            begun = await r.broker.begin_connection(OTHER, "api", "b")
            back = await r.broker.answer_connection("api", {"state": begun.state, "code": "c"}, "b")
            await r.broker.confirm_connection("api", back.begun, "b")
            assert (await r.get("/api/x", port=port)).status == 200
            assert (await r.get("/api/x")).status == 200
            shown = [seen.headers["authorization"][-1] for seen in r.upstream.seen]
            assert shown == ["0", "1", "0"]

    play(scene)


def test_an_answer_that_repeats_the_token_is_withheld() -> None:
    async def scene() -> None:
        async with connected(Issuing()) as r:
            await connect(r.broker, "api")
            reply = await r.get("/api/echo/plain")
            assert reply.status == 502
            assert b"access-token-number" not in reply.raw

    play(scene)


def test_after_a_disconnect_nothing_more_goes_out() -> None:
    async def scene() -> None:
        async with connected(Issuing()) as r:
            await connect(r.broker, "api")
            assert (await r.get("/api/x")).status == 200
            await r.broker.end_connection(OPERATOR, "api")
            reply = await r.get("/api/x")
            assert (reply.status, reply.json()["code"]) == (403, "connect")
            assert len(r.upstream.seen) == 1

    play(scene)


def test_what_was_lent_is_forgotten_with_its_task() -> None:
    async def scene() -> None:
        async with connected(Issuing()) as r:
            await connect(r.broker, "api")
            await r.get("/api/x")
            assert len(r.gateway.plane.pools._credentials) == 1
            await r.broker.close(OPERATOR, r.broker._tasks.task_of(r.grant.id).id)
            await r.settled(lambda: not r.gateway.plane.pools._credentials)

    play(scene)


def test_the_token_goes_where_the_resource_says_instead_of_as_a_bearers() -> None:
    async def scene() -> None:
        async with connected(Issuing(), inject={"header": "X-Api-Key"}) as r:
            await connect(r.broker, "api")
            await r.get("/api/x")
            assert r.upstream.seen[0].headers["x-api-key"] == "Bearer access-token-number-0"

    play(scene)
