"""What one message can cost: the worst of each kind holds the loop for no longer than others notice."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from remit.core import paths, scope
from remit.errors import InvalidRequestError, UnknownDetailError
from remit.jose.strict import read_json
from remit.web import wire
from tests.broker.world import holder
from tests.oauth.consent_driver import ALICE, App, svid
from tests.oauth.consent_driver import scene as played_on
from tests.oauth.plane import GRANT, Agent, Form, Plane, opening, play

LONGEST = 0.05  # seconds of the thread, the client of the test included

Send = Callable[[], Awaitable[httpx.Response]]
Raw = dict[str, Any]


def details(paths: list[str], **more: object) -> Raw:
    """Return a detail on the search API."""
    return {"type": "http", "resource": "search", "actions": ["GET"], "paths": paths, **more}


def parents() -> list[Raw]:
    """Return details each of which covers all but the last path of each of ``children``, at its last look."""
    return [details(["/v1/*/*/*", *(f"/v1/*/*/x{n}" for n in range(54))]) for _ in range(15)]


def children(last: str = "/v1/z/z/z/z/z") -> list[Raw]:
    """Return as many paths as may be asked for."""
    return [details([f"/v1/{d}/{n}/b" for n in range(54)] + [last]) for d in range(15)]


async def cheapest(send: Send, *status: int) -> float:
    """Return what a message costs this thread at least, when nothing like it came before; it is sent a few times."""
    took = []
    for _ in range(3):
        for forget in (scope.COMPARED.clear, paths.places.cache_clear):
            forget()
        start = time.thread_time()
        answer = await send()
        took.append(time.thread_time() - start)
        assert answer.status_code in status, answer.text[:300]
    return min(took)


async def scene(made: Plane) -> Agent:
    """Open a task whose grant has as many patterns as may be asked for, below a bound that has no fewer."""
    bounds = [{**item, "args": "any"} for item in parents()] + [details(["/v1/**"], args="any")]
    resource = {"kind": "http", "destination": "https://search.test", "bound": bounds}
    put = lambda: made.control.put("/v1/resources/search", json=resource)  # noqa: E731 - sent several times
    assert await cheapest(put, 200) < LONGEST
    agent = Agent()
    await made.opened(agent, authorization_details=json.dumps(parents()))
    return agent


@pytest.mark.attack("DOS-09")
@pytest.mark.parametrize("last", ["/v1/z/z/z/z/z", "/v1/z/z/b"])
def test_the_worst_token_request_is_short(tmp_path: Path, last: str) -> None:
    async def play_(made: Plane) -> None:
        agent, wish = await scene(made), json.dumps(children(last))
        narrow = [await made.exchange(agent, made.delegation(agent, Agent(), authorization_details=wish))]
        assert narrow[0].status_code == (200 if last == "/v1/z/z/b" else 400)
        forms = [made.delegation(agent, Agent(), authorization_details=wish) for _ in range(3)]
        sent = iter(forms)
        assert await cheapest(lambda: made.exchange(agent, next(sent)), 200, 400) < LONGEST

    play(tmp_path, play_)


@pytest.mark.attack("DOS-09")
def test_the_worst_question_to_a_human_is_short_and_what_is_too_large_for_one_is_not_compared(tmp_path: Path) -> None:
    async def play_(made: Plane) -> None:
        agent = await scene(made)
        body = {"parent": agent.grant, "authorization_details": children("/v1/z/z/z/z/z"), "ttl": 300}
        assert await cheapest(lambda: made.call(agent, "POST", "/v1/approvals", json=body), 201, 400, 403) < LONGEST

    play(tmp_path, play_)


@pytest.mark.attack("DOS-09")
def test_details_that_would_take_half_a_minute_to_compare_are_refused_unread(tmp_path: Path) -> None:
    async def play_(made: Plane) -> None:
        agent = await scene(made)
        wish = [details([f"/{n}" for n in range(255)]) for _ in range(30)]
        body = {"parent": agent.grant, "authorization_details": wish, "ttl": 300}
        assert await cheapest(lambda: made.call(agent, "POST", "/v1/approvals", json=body), 400, 413) < LONGEST
        for items in (wish[:4], wish[:12]):
            form = made.delegation(agent, Agent(), authorization_details=json.dumps(items))
            assert (await made.exchange(agent, form)).status_code in {400, 413}
        assert [e.event for e in await made.world.events() if e.decision == "deny"] == []

    play(tmp_path, play_)


@pytest.mark.attack("DOS-09")
def test_the_worst_lease_is_short(tmp_path: Path) -> None:
    async def play_(made: Plane) -> None:
        agent = await scene(made)
        wish = {"grant": agent.grant, "detail": details([f"/v1/a/{n}/b" for n in range(255)] + ["/v1/z/z/z/z/z"])}
        path = f"/v1/tasks/{agent.task}/leases"
        assert await cheapest(lambda: made.call(agent, "POST", path, json=wish), 403) < LONGEST
        wish["detail"]["paths"] *= 8  # type: ignore[index]  # JSON
        assert (await made.call(agent, "POST", path, json=wish)).status_code == 400

    play(tmp_path, play_)


@pytest.mark.attack("DOS-09")
def test_the_worst_delegation_on_a_channel_is_short(tmp_path: Path) -> None:
    async def play_(made: Plane) -> None:
        await scene(made)
        root = await made.opened(authorization_details=json.dumps(parents()))
        channel = await made.channel(holder(made.broker, made.broker._tasks.check(root["grant"]).grant))
        form = {**opening(), "subject_token": root["grant"], "subject_token_type": GRANT}
        form |= {"authorization_details": json.dumps(children()), "depth": "0", "fan_out": "0"}
        del form["purpose"]
        assert await cheapest(lambda: channel.post("/oauth/token", data=form), 400) < LONGEST

    play(tmp_path, play_)


SHAPES = {
    "paths": json.dumps([details([f"/{n}" for n in range(255)], resource=f"r{d}") for d in range(10)]),
    "lists in lists": "[" * 20_000,
    "lists beside lists": "[" + "[]," * 13_000 + "[]]",
    "numbers": "[" + "1," * 19_000 + "1]",
    "objects": "[" + "{}," * 13_000 + "{}]",
    "names": "{" + ",".join(f'"{n}":1' for n in range(5_000)) + "}",
    "arguments": json.dumps([details(["/a"], args={f"query{'.a' * 60}{n}": "any" for n in range(257)})]),
    "escapes": json.dumps([details([f"/{n}" + "%C3%A9" * 160 for n in range(30)], resource="No name")]),
}


ENDPOINTS: dict[str, Callable[[App, str], Form]] = {
    "/oauth/par": lambda app, wish: app.browser_request(authorization_details=wish),
    "/oauth/device_authorization": lambda app, wish: app.polled_request(authorization_details=wish),
    "/oauth/bc-authorize": lambda app, wish: app.polled_request(authorization_details=wish, login_hint=ALICE, **svid()),
    "/oauth/token": lambda app, wish: {**opening(), "authorization_details": wish, "subject_token": app.made.base},
}


@pytest.mark.attack("DOS-12")
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_form_of_a_stranger_is_short_whatever_its_json(tmp_path: Path, endpoint: str) -> None:
    async def played(app: App) -> None:
        for shape, wish in SHAPES.items():
            form = ENDPOINTS[endpoint](app, wish)
            assert await cheapest(partial(app.made.web.post, endpoint, data=form), 400, 401, 413) < LONGEST, shape

    played_on(tmp_path, played)


@pytest.mark.attack("DOS-09")
@pytest.mark.parametrize("endpoint", ["/oauth/par", "/oauth/device_authorization", "/oauth/bc-authorize"])
def test_the_most_that_a_stranger_may_ask_a_human_for_is_short(tmp_path: Path, endpoint: str) -> None:
    async def played(app: App) -> None:
        form = ENDPOINTS[endpoint](app, json.dumps(children()))
        assert await cheapest(partial(app.made.web.post, endpoint, data=form), 200, 201) < LONGEST

    played_on(tmp_path, played)


@pytest.mark.attack("DOS-12")
@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_refused_is_refused_before_it_is_taken_apart(shape: str) -> None:
    took = []
    for _ in range(5):
        start = time.thread_time()
        with pytest.raises((InvalidRequestError, UnknownDetailError)):
            scope.parse(read_json(SHAPES[shape]))
        took.append(time.thread_time() - start)
    assert min(took) < 0.01


async def longest_turn(send: Send) -> float:
    """Return the longest time of the thread that others had to wait for their turn while a message was answered."""
    asked, longest, last = asyncio.ensure_future(send()), 0.0, time.thread_time()
    while not asked.done():
        await asyncio.sleep(0)
        longest, last = max(longest, time.thread_time() - last), time.thread_time()
    assert asked.result().status_code == 200
    return longest


@pytest.mark.attack("DOS-09")
def test_a_list_of_as_many_questions_as_may_wait_lets_others_go_on(tmp_path: Path) -> None:
    async def play_(made: Plane) -> None:
        await scene(made)
        bound = {"kind": "http", "destination": "https://search.test", "bound": [details(["/**"], args="any")]}
        assert (await made.control.put("/v1/resources/search", json=bound)).is_success
        for _ in range(3):
            agent = Agent()
            await made.opened(agent, authorization_details=json.dumps(parents()))
            for n in range(20):
                body = {"parent": agent.grant, "authorization_details": children(f"/v1/z/z/z/{n}"), "ttl": 300}
                assert (await made.call(agent, "POST", "/v1/approvals", json=body)).status_code == 201
        took = []
        for _ in range(3):
            scope.COMPARED.clear()
            took.append(await longest_turn(lambda: made.control.get("/v1/approvals")))
        assert min(took) < LONGEST

    play(tmp_path, play_)


def test_a_list_is_written_a_slice_a_turn() -> None:
    async def body() -> None:
        turn, made = 0, Counter[int]()

        def items() -> Iterator[Raw]:
            for _ in range(50):
                made[turn] += 10_000
                yield {"text": "x" * 10_000}

        async def reading() -> bytes:
            pieces = wire.listing({"a": 1}, none=(), items=items()).body_iterator
            return b"".join([piece async for piece in pieces if isinstance(piece, bytes)])

        asked = asyncio.create_task(reading())
        while not asked.done():
            await asyncio.sleep(0)
            turn += 1
        assert json.loads(asked.result()) == {"a": 1, "none": [], "items": [{"text": "x" * 10_000}] * 50}
        assert max(made.values()) <= wire.SLICE + 10_000

    asyncio.run(body())
