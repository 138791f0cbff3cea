"""Clients under whichever grant is current, teams, and generators whose context stays their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Iterator
from pathlib import Path

import httpx
import pytest

from remit.errors import AttenuationError, DeniedError
from remit.integrations import astepped, auth, held, stepped, team
from remit.sdk import Bounds, Client, Place, detail
from remit.sdk.detail import Wishes
from remit.sdk.grant import HEADER, GrantHandle, current_grant
from remit.sdk.verbs import TokenResponse
from tests.sdk.plane import Served, served

GATEWAY = "http://127.0.0.1:8471"


def handle(name: str) -> GrantHandle:
    return GrantHandle(Place(Path("/run/channel"), "grt_run", GATEWAY), TokenResponse("task_1", name, None, []))


def echo(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, text=request.headers[HEADER])


def test_one_client_makes_each_request_under_the_grant_that_is_current_then() -> None:
    seen = []
    with httpx.Client(auth=auth("httpx"), transport=httpx.MockTransport(echo)) as client:
        for name in ("grt_a", "grt_b"):
            token = current_grant.set(handle(name))
            seen.append(client.get(f"{GATEWAY}/search").text)
            current_grant.reset(token)
    assert seen == ["grt_a", "grt_b"]


async def _at_once(*names: str) -> list[str]:
    async with httpx.AsyncClient(auth=auth("httpx"), transport=httpx.MockTransport(echo)) as client:

        async def one(name: str) -> str:
            current_grant.set(handle(name))
            await asyncio.sleep(0)
            return (await client.get(f"{GATEWAY}/search")).text

        return list(await asyncio.gather(*map(one, names)))


def test_tasks_at_once_do_not_mix_in_one_client() -> None:
    names = [f"grt_{n}" for n in range(8)]
    assert asyncio.run(_at_once(*names)) == names


def test_nothing_is_sent_where_no_agents_grant_is_current() -> None:
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200)

    with httpx.Client(auth=auth("httpx"), transport=httpx.MockTransport(answer)) as client, pytest.raises(DeniedError):
        client.get(f"{GATEWAY}/search")
    assert sent == []


def _steps(name: str) -> Generator[str, None, None]:
    token = current_grant.set(handle(name))
    for _ in range(2):
        yield held().id
    current_grant.reset(token)


def test_generators_that_take_turns_keep_their_own_grant_and_leave_the_callers_alone() -> None:
    seen = [item for pair in zip(stepped(_steps("grt_a")), stepped(_steps("grt_b")), strict=True) for item in pair]
    assert seen == ["grt_a", "grt_b", "grt_a", "grt_b"]
    assert current_grant.get() is None


async def _asteps(name: str, ended: list[str]) -> AsyncGenerator[str, None]:
    token = current_grant.set(handle(name))
    try:
        for _ in range(2):
            yield held().id
    finally:
        current_grant.reset(token)  # ValueError in another context
        ended.append(name)


async def _in_turns() -> tuple[list[str], list[str]]:
    ended: list[str] = []
    first, second = astepped(_asteps("grt_a", ended)), astepped(_asteps("grt_b", ended))
    seen = [await anext(first), await anext(second), await anext(first)]
    await first.aclose()
    await second.aclose()
    assert current_grant.get() is None
    return seen, ended


def test_async_generators_that_take_turns_keep_theirs_and_end_in_their_own_context() -> None:
    assert asyncio.run(_in_turns()) == (["grt_a", "grt_b", "grt_a"], ["grt_a", "grt_b"])


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Served]:
    """Serve a broker."""
    with served(tmp_path) as found:
        yield found


def test_a_team_has_a_grant_for_each_of_its_agents_until_its_block_ends(plane: Served) -> None:
    with Client(plane.place) as client, client.task("x", grants=["search"], bounds=Bounds("15m", 1, 2)) as task:
        with team({"lead": ["search"], "other": ["search"]}) as grants:
            assert current_grant.get() is None
            grants.enter("lead")
            lead = held().id
            grants.enter("other")
            other = held().id
            assert {plane.broker._tasks.check(name).grant.label for name in (lead, other)} == {"lead", "other"}
            with pytest.raises(DeniedError, match="the agent `stranger` has no grant"):
                grants.enter("stranger")
            assert current_grant.get() is None
        assert held().id == task.id
        assert all(plane.broker._tasks.task_of(name).grant(name).revoked for name in (lead, other))


def test_a_team_of_which_one_would_get_too_much_has_no_grants(plane: Served) -> None:
    wide: Wishes = [detail("search", paths=["/v2/**"])]
    with Client(plane.place) as client, client.task("x", grants=["search"], bounds=Bounds("15m", 1, 2)) as task:
        with pytest.raises(AttenuationError), team({"lead": ["search"], "other": wide}):
            raise AssertionError
        assert held().id == task.id
        grants = plane.broker._tasks.task_of(task.id).grants.values()
        assert [grant.label for grant in grants if not grant.revoked and grant.id != task.id] == []
