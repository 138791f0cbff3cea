"""Completeness of the audit, the clock, and what an operator can and cannot do."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from remit.config import settings
from remit.core.request import Bounds, GrantRequest
from remit.errors import ExpiredError, InvalidRequestError, NotFoundError, RemitError, UnavailableError
from tests.broker.world import OPERATOR, SEARCH, TABLE, World, details, run
from tests.gateway.rig import Rig, http, play, rig
from tests.oauth import plane

CANARY = "rmt-canary-0123456789abcdef0123456789abcdef"


async def _one(r: Rig, kind: str, number: int) -> None:
    """Make one call of a kind, whatever comes of it."""
    match kind:
        case "allowed":
            await r.get(f"/api/v1/public/{number}")
        case "failed":
            await r.get("/api/status/503")
        case "denied":
            await r.get(f"/api/v1/private/{number}")
        case "unknown":
            await r.get(f"/nowhere/{number}")
        case "dropped":
            await r.get("/api/drop")
        case "streamed":
            wire = await r.wire()
            await wire.send(r.request("/api/forever"))
            await wire.reader.readuntil(b"tick")
            wire.close()


@pytest.mark.attack("AUD-03")
def test_every_request_that_reached_the_upstream_has_exactly_one_record_with_its_human() -> None:
    kinds = ["allowed", "allowed", "denied", "unknown", "failed", "dropped", "streamed"]

    async def scene() -> None:
        async with rig(http(paths=["/v1/public/**", "/status/*", "/drop", "/forever"])) as r:
            order = random.Random(7).choices(kinds, k=400)  # noqa: S311 - a fixed order, no secret
            for start in range(0, len(order), 20):
                await asyncio.gather(*(_one(r, kind, start + i) for i, kind in enumerate(order[start : start + 20])))
            await r.settled(lambda: not r.gateway.plane.tasks)
            uses = [event for event in await r.events("resource.use") if event.decision == "allow"]
            await r.outcomes(len(uses))
            ended = Counter(event.request for event in await r.events("resource.outcome"))
            assert len(uses) == len(r.upstream.seen)
            assert ended == Counter({event.request: 1 for event in uses})
            assert {event.subject for event in uses} == {OPERATOR.subject.sub}
            assert all(event.lineage and event.agent and event.task and event.resource == "api" for event in uses)
            counted = Counter(order)
            again = sum(event.request is not None and event.request.endswith(".again") for event in uses)
            assert len(uses) == len(order) + again - counted["denied"] - counted["unknown"]

    play(scene)


@pytest.mark.attack("CLK-01")
@pytest.mark.parametrize("back", [timedelta(hours=1), timedelta(days=1)])
def test_a_clock_set_back_revives_nothing_extends_nothing_and_keeps_the_log_in_order(
    world: World, back: timedelta
) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        issued = await broker.issue(OPERATOR, root.id, details(TABLE)[0])
        world.later(901)
        await broker.sweep()
        assert world.target.accounts == {}
        world.now -= back
        for again in (broker, world.broker()):
            await again.start()
            with pytest.raises(ExpiredError):
                again._tasks.check(root.id)
            with pytest.raises(UnavailableError, match="clock"):
                await world.opened(again)
            with pytest.raises(RemitError):
                await again.issue(OPERATOR, root.id, details(TABLE)[0])
            with pytest.raises((NotFoundError, UnavailableError)):
                await again.renew(OPERATOR, issued.lease.id, timedelta(seconds=60))
        times = [event.at for event in await world.events()]
        assert times == sorted(times)

    run(body())


@pytest.mark.attack("OPS-01")
def test_no_route_gives_an_operator_a_stored_secret(tmp_path: Path) -> None:
    from remit.compose.app import routes

    async def scene(made: plane.Plane) -> None:
        put = await made.control.put("/v1/secrets/search", json={"resource": "search", "value": CANARY})
        assert put.is_success, put.text
        root = (
            await made.broker.open(OPERATOR, GrantRequest(details(SEARCH), Bounds(timedelta(minutes=5)), purpose="why"))
        ).grant
        task = made.broker._tasks.task_of(root.id).id
        named = {
            "task": task,
            "grant": root.id,
            "lease": "lse_x",
            "resource": "search",
            "secret": "search",
            "code": "x",
        }
        answers = []
        for row in routes(made.deps):
            for method in (row.method, "GET", "OPTIONS"):
                path = re.sub(r"\{(\w+)\}", lambda found: named.get(found[1], "x"), row.path)
                answers.append(await made.control.request(method, path))
                answers.append(await made.control.request(method, f"{path}?reveal=true"))
        assert len(answers) > 100
        assert all(CANARY not in answer.text and CANARY not in str(answer.headers) for answer in answers)
        listed = json.dumps((await made.control.get("/v1/resources/search")).json())
        assert "search" in listed
        assert CANARY not in listed

    plane.play(tmp_path, scene)


@pytest.mark.attack("OPS-03")
@pytest.mark.parametrize("listen", ["0.0.0.0:8470", "[::]:8470", "10.0.0.1:8470", "example.test:8470"])
def test_a_listener_that_others_could_reach_is_refused(tmp_path: Path, listen: str) -> None:
    where = settings.places({"REMIT_STATE_DIR": str(tmp_path)})
    for name in ("api", "gateway"):
        with pytest.raises(InvalidRequestError, match="loopback"):
            settings.read(where, {"listen": {name: listen}})


@pytest.fixture
def world() -> World:
    """Return a fresh world."""
    return World()
