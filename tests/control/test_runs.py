from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from remit.compose.app import build
from remit.core.principal import Holder, Operator
from remit.core.request import Bounds
from remit.core.secret import Secret
from remit.ports.runs import (
    DelegatedToRun,
    HeldByRun,
    LaunchRequest,
    OpenedForRun,
    ReachedHost,
    RunListener,
    RunOffer,
    RunReach,
)
from remit.web.authentication import SocketAuth, TokenAuth
from remit.web.listen import serve
from tests.broker.world import OPERATOR, SEARCH, details
from tests.oauth.plane import Agent, Plane, _tcp, _unix, play

WHERE = {"isolation": "namespace", "folder": "/run/remit"}
TICKET = "c" * 43
OFFER = RunOffer(
    "run_1",
    "task_1",
    "grt_1",
    datetime(2026, 11, 25, 12, tzinfo=UTC),
    (RunListener("gateway", port=8471), RunListener("channel", path="/run/remit/channel.sock")),
    Secret(TICKET),
    "/run/1.sock",
    RunReach({"api.search.test": ReachedHost("search")}, "its certificate", Secret("the key of its authority")),
)
ASKED = {"authorization_details": [SEARCH], "ttl": 60}

Asked = tuple[Operator | Holder, LaunchRequest, str | None]


class Beginning:
    """Begins every run with the same offer, and remembers who asked for what."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []

    async def begin_run(self, caller: Operator | Holder, launch: LaunchRequest, within: str | None = None) -> RunOffer:
        self.asked.append((caller, launch, within))
        return OFFER


async def served(plane: Plane, runs: Beginning, who: SocketAuth) -> httpx.AsyncClient:
    path = plane.directory / f"{len(plane.listeners)}.sock"
    app = build(replace(plane.deps, begin_run=runs.begin_run))
    plane.listeners.append(await serve(app, _unix(path), who))
    return plane._client(path)


def at(directory: Path, who: SocketAuth, body: object) -> tuple[httpx.Response, list[Asked]]:
    """Ask for a run on the socket of somebody; return the answer, and what became a request."""
    directory.mkdir(exist_ok=True)
    runs, answers = Beginning(), list[httpx.Response]()

    async def scene(plane: Plane) -> None:
        answers.append(await (await served(plane, runs, who)).post("/v1/runs", json=body))

    play(directory, scene)
    return answers[0], runs.asked


def test_the_offer_is_what_a_launcher_needs(tmp_path: Path) -> None:
    answer, asked = at(tmp_path, SocketAuth(OPERATOR), {"grant": "grt_1", **WHERE})
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json() == {
        "run": "run_1",
        "task": "task_1",
        "grant": "grt_1",
        "expires_at": "2026-11-25T12:00:00.000Z",
        "listeners": [
            {"name": "gateway", "port": 8471},
            {"name": "channel", "path": "/run/remit/channel.sock"},
        ],
        "ticket": TICKET,
        "handover": "/run/1.sock",
        "hosts": ["api.search.test"],
        "certificate": "its certificate",
    }
    assert asked == [(OPERATOR, LaunchRequest(HeldByRun("grt_1"), "namespace", "/run/remit"), None)]


def test_a_launcher_says_whether_it_starts_servers(tmp_path: Path) -> None:
    for number, said in enumerate((True, False)):
        asked = {"grant": "grt_1", "servers": said, **WHERE}
        _, [(_, launch, _)] = at(tmp_path / str(number), SocketAuth(OPERATOR), asked)
        assert launch.servers is said
    answer, none = at(tmp_path / "x", SocketAuth(OPERATOR), {"grant": "grt_1", "servers": "yes", **WHERE})
    assert (answer.status_code, none) == (400, [])


def test_on_a_channel_the_run_is_named_whose_it_is(tmp_path: Path) -> None:
    holder = Holder("task_1", "grt_1")
    answer, asked = at(tmp_path, SocketAuth(holder, run="run_7"), {"delegate": ASKED, **WHERE})
    assert answer.status_code == 201
    assert [(caller, within) for caller, _, within in asked] == [(holder, "run_7")]


def test_what_a_run_shall_have_is_read_like_any_request(tmp_path: Path) -> None:
    _, [(_, launch, _)] = at(tmp_path / "a", SocketAuth(OPERATOR), {"open": {**ASKED, "purpose": "p"}, **WHERE})
    match launch.authority:
        case OpenedForRun(request, None):
            assert (request.scope, request.bounds, request.purpose) == (
                details(SEARCH),
                Bounds(timedelta(seconds=60)),
                "p",
            )
        case other:
            pytest.fail(str(other))
    _, [(_, launch, _)] = at(tmp_path / "b", SocketAuth(OPERATOR), {"delegate": {**ASKED, "parent": "grt_9"}, **WHERE})
    assert isinstance(launch.authority, DelegatedToRun)
    assert launch.authority.parent == "grt_9"


def test_how_long_a_run_goes_on_is_said_of_a_task_that_it_opens_alone(tmp_path: Path) -> None:
    month = 30 * 86_400
    opened = {"open": {**ASKED, "purpose": "p"}, **WHERE, "lasts": month}
    _, [(_, launch, _)] = at(tmp_path / "a", SocketAuth(OPERATOR), opened)
    assert launch.lasts == timedelta(days=30)
    for wrong in ({**opened, "lasts": month + 1}, {**opened, "lasts": 0}, {**opened, "lasts": "7d"}):
        answer, asked = at(tmp_path / str(wrong["lasts"]), SocketAuth(OPERATOR), wrong)
        assert (answer.status_code, asked) == (400, [])
    for name, other in (("delegate", ASKED), ("grant", "grt_1")):
        answer, asked = at(tmp_path / name, SocketAuth(OPERATOR), {name: other, **WHERE, "lasts": 60})
        assert (answer.status_code, asked) == (400, [])
        assert "at most 2592000 seconds" in answer.json()["detail"]


def test_an_id_token_is_kept_as_a_secret(tmp_path: Path) -> None:
    _, [(_, launch, _)] = at(tmp_path, SocketAuth(OPERATOR), {"open": {**ASKED, "id_token": "ey.j"}, **WHERE})
    assert isinstance(launch.authority, OpenedForRun)
    assert launch.authority.id_token == Secret("ey.j")


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        [],
        {"grant": "grt_1"},
        {"grant": "grt_1", "isolation": "namespace"},
        {"grant": "grt_1", "folder": "/f"},
        {"grant": 7, **WHERE},
        {"grant": "grt_1", "open": ASKED, **WHERE},
        {"open": 7, **WHERE},
        {"open": {"ttl": 60}, **WHERE},
        {"open": {**ASKED, "parent": "grt_1"}, **WHERE},
        {"open": {**ASKED, "surprise": 1}, **WHERE},
        {"open": {**ASKED, "id_token": 7}, **WHERE},
        {"delegate": {**ASKED, "id_token": "x"}, **WHERE},
        {"delegate": {**ASKED, "parent": 7}, **WHERE},
        {"grant": "grt_1", "isolation": ["namespace"], "folder": "/f"},
        {"grant": "grt_1", "surprise": 1, **WHERE},
        {"grant": "grt_1", "ticket": TICKET, **WHERE},
    ],
    ids=str,
)
def test_a_malformed_request_begins_nothing(tmp_path: Path, wrong: Any) -> None:
    answer, asked = at(tmp_path, SocketAuth(OPERATOR), wrong)
    assert (answer.status_code, answer.headers["content-type"], asked) == (400, "application/problem+json", [])


@pytest.mark.parametrize(
    ("who", "status"), [(OPERATOR, 200), (Holder("task_1", "grt_1"), 403)], ids=["operator", "run"]
)
def test_the_operator_ends_every_run_and_nobody_else(tmp_path: Path, who: Operator | Holder, status: int) -> None:
    async def end_all() -> int:
        return 3

    async def scene(plane: Plane) -> None:
        path, runs = plane.directory / "own.sock", Beginning()
        app = build(replace(plane.deps, begin_run=runs.begin_run, end_runs=end_all))
        plane.listeners.append(await serve(app, _unix(path), SocketAuth(who)))
        answer = await plane._client(path).post("/v1/runs/end")
        assert (answer.status_code, answer.json().get("ended")) == (status, 3 if status == 200 else None)

    play(tmp_path, scene)


def test_over_tcp_there_is_no_such_route(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        runs, agent = Beginning(), Agent()
        await plane.opened(agent)
        sock = _tcp()
        host = f"127.0.0.1:{sock.getsockname()[1]}"
        app = build(replace(plane.deps, begin_run=runs.begin_run))
        who = TokenAuth(frozenset({host, plane.base.removeprefix("http://")}), plane.verifier.holder)
        plane.listeners.append(await serve(app, sock, who))
        own = {"host": plane.base.removeprefix("http://"), **plane.headers(agent, "POST", "/v1/runs")}
        known = await plane.web.post(f"http://{host}/v1/runs", json={"grant": agent.grant, **WHERE}, headers=own)
        assert (known.status_code, known.json()["code"]) == (404, "not-found")
        unknown = await plane.web.post(f"http://{host}/v1/runs", json={"grant": agent.grant, **WHERE})
        assert unknown.status_code == 401
        assert runs.asked == []

    play(tmp_path, scene)


def test_a_broker_that_begins_no_runs_has_no_such_route(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        answer = await plane.control.post("/v1/runs", json={"grant": "grt_1", **WHERE})
        assert answer.status_code == 404

    play(tmp_path, scene)


def test_a_ticket_is_in_no_log_and_in_no_representation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        at(tmp_path, SocketAuth(OPERATOR), {"grant": "grt_1", **WHERE})
    assert TICKET not in caplog.text
    assert TICKET not in repr(OFFER)
