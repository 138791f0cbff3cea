"""``POST /v1/connections``: for whom, and what is asked for beside what the resource says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from remit.compose.app import build
from remit.core.principal import IdToken, Operator
from remit.ports.connections import BegunConnection
from remit.web.authentication import SocketAuth
from remit.web.listen import serve
from tests.broker.world import OPERATOR
from tests.oauth.plane import Plane, _unix, play

Asked = tuple[Operator, str, IdToken | None, tuple[str, ...]]
BEGUN = BegunConnection("https://auth.test/authorize", "state", "https://auth.test", "https://search.test", "read")


def at(directory: Path, body: object) -> tuple[httpx.Response, list[Asked]]:
    """Ask at the control socket; return the answer, and what became a request."""
    asked, answers = list[Asked](), list[httpx.Response]()

    async def begin(operator: Operator, name: str, token: IdToken | None, more: tuple[str, ...]) -> BegunConnection:
        asked.append((operator, name, token, more))
        return BEGUN

    async def scene(plane: Plane) -> None:
        path, deps = plane.directory / "own.sock", replace(plane.deps, begin_connection=begin)
        plane.listeners.append(await serve(build(deps), _unix(path), SocketAuth(OPERATOR)))
        answers.append(await plane._client(path).post("/v1/connections", json=body))

    play(directory, scene)
    return answers[0], asked


@pytest.mark.parametrize("scopes", [None, [], ["issues:write", "repo"]])
def test_the_operator_asks_for_what_they_name(tmp_path: Path, scopes: list[str] | None) -> None:
    answer, asked = at(tmp_path, {"resource": "search", **({} if scopes is None else {"scopes": scopes})})
    assert (answer.status_code, answer.json()["scope"]) == (201, "read")
    assert asked == [(OPERATOR, "search", None, tuple(scopes or ()))]


@pytest.mark.parametrize("scopes", ["read", [1], ["a b"], [""], ['"'], ["x" * 201], {"a": 1}, None])
def test_what_is_no_scope_asks_nobody(tmp_path: Path, scopes: object) -> None:
    answer, asked = at(tmp_path, {"resource": "search", "scopes": scopes})
    assert (answer.status_code, asked) == (400, [])
