"""``POST /v1/tasks/{task}/renew``: the operator's, at the control socket, and nobody else's anywhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest

from remit.compose.app import build
from remit.core.principal import Holder, IdToken, Operator
from remit.errors import PolicyError
from remit.web.authentication import SocketAuth, TokenAuth
from remit.web.listen import serve
from tests.broker.world import OPERATOR
from tests.oauth.plane import Agent, Plane, _tcp, _unix, play

ENDS = datetime.fromisoformat("2026-11-25T20:00:00+00:00")
PATH = "/v1/tasks/task_1/renew"

Asked = tuple[Operator, str, timedelta, IdToken | None]


def at(
    directory: Path, body: object, who: Operator | Holder = OPERATOR, error: Exception | None = None
) -> tuple[httpx.Response, list[Asked]]:
    """Ask on the socket of somebody; return the answer, and what became a request."""
    asked, answers = list[Asked](), list[httpx.Response]()

    async def renew(operator: Operator, task: str, ttl: timedelta, token: IdToken | None) -> datetime:
        asked.append((operator, task, ttl, token))
        if error is not None:
            raise error
        return ENDS

    async def scene(plane: Plane) -> None:
        path = plane.directory / "own.sock"
        plane.listeners.append(await serve(build(replace(plane.deps, renew_task=renew)), _unix(path), SocketAuth(who)))
        answers.append(await plane._client(path).post(PATH, json=body))

    play(directory, scene)
    return answers[0], asked


@pytest.mark.parametrize("token", [None, "ey.an.id-token"])
def test_the_operator_renews_a_task_for_themselves_or_a_human(tmp_path: Path, token: str | None) -> None:
    answer, asked = at(tmp_path, {"ttl": 3_600, **({} if token is None else {"id_token": token})})
    assert (answer.status_code, answer.json()) == (200, {"task": "task_1", "expires_at": "2026-11-25T20:00:00.000Z"})
    assert asked == [(OPERATOR, "task_1", timedelta(hours=1), None if token is None else IdToken(token))]


@pytest.mark.parametrize(
    "wrong",
    [
        *({}, [], "x", {"ttl": 0}, {"ttl": -1}, {"ttl": 1.5}, {"ttl": "60"}, {"ttl": True}, {"ttl": 10**12}),
        *({"ttl": 60, "id_token": ""}, {"ttl": 60, "id_token": None}, {"ttl": 60, "id_token": 1}),
        *({"ttl": 60, "more": 1}, {"ttl": 60, "expires_at": "2030-01-01T00:00:00Z"}),
    ],
)
def test_a_malformed_request_renews_nothing(tmp_path: Path, wrong: object) -> None:
    answer, asked = at(tmp_path, wrong)
    assert (answer.status_code, asked) == (400, [])


def test_a_refusal_is_told_as_any_other(tmp_path: Path) -> None:
    answer, _ = at(tmp_path, {"ttl": 60}, error=PolicyError("`day` forbids it"))
    assert (answer.status_code, answer.json()["code"], answer.json()["detail"]) == (403, "policy", "`day` forbids it")


@pytest.mark.attack("REN-02")
def test_no_agent_renews_a_task_where_there_is_such_a_route(tmp_path: Path) -> None:
    answer, asked = at(tmp_path, {"ttl": 60}, Holder("task_1", "grt_1"))
    assert (answer.status_code, asked) == (403, [])


async def _over_tcp(plane: Plane) -> httpx.Response:
    agent = Agent()
    await plane.opened(agent)
    sock = _tcp()
    host = f"127.0.0.1:{sock.getsockname()[1]}"
    who = TokenAuth(frozenset({host, plane.base.removeprefix("http://")}), plane.verifier.holder)
    plane.listeners.append(await serve(build(plane.deps), sock, who))
    path = f"/v1/tasks/{agent.task}/renew"
    own = {"host": plane.base.removeprefix("http://"), **plane.headers(agent, "POST", path)}
    return await plane.web.post(f"http://{host}{path}", json={"ttl": 60}, headers=own)


async def _in_a_run(plane: Plane) -> httpx.Response:
    opened = await plane.opened()
    path = plane.directory / "run.sock"
    who = SocketAuth(Holder(str(opened["task"]), str(opened["grant"])))
    plane.listeners.append(await serve(build(plane.deps), _unix(path), who))
    return await plane._client(path).post(f"/v1/tasks/{opened['task']}/renew", json={"ttl": 60})


@pytest.mark.attack("REN-02")
@pytest.mark.parametrize("ask", [_over_tcp, _in_a_run])
def test_elsewhere_there_is_no_such_route(tmp_path: Path, ask: Callable[[Plane], Awaitable[httpx.Response]]) -> None:
    async def scene(plane: Plane) -> None:
        answer = await ask(plane)
        assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
        assert [event for event in await plane.world.events() if event.event == "task.renew"] == []

    play(tmp_path, scene)
