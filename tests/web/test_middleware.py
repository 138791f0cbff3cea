"""What the log is told of a call: enough to find a fault of ours, and never so much that a stranger fills it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import Response

from remit.core.audit import LOUD
from remit.core.grant import Subject
from remit.core.principal import Human, Principal, Right
from remit.errors import UnavailableError
from remit.web import middleware
from remit.web.authentication import SocketAuth
from remit.web.middleware import Middleware
from remit.web.routes import Route
from tests.broker.world import OPERATOR, World
from tests.oauth import consent_driver
from tests.oauth.plane import Plane, later, play

MANY = 200
FORM = {"content-type": "application/x-www-form-urlencoded"}


@contextmanager
def logged() -> Iterator[StringIO]:
    """Yield what the log of the API is told, as the state's file has it."""
    told = StringIO()
    handler, log = logging.StreamHandler(told), logging.getLogger("remit.web")
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield told
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


@pytest.mark.attack("DOS-14")
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/oauth/token", b"a&b=%zz"),
        ("POST", "/oauth/revoke", b"\xff=1"),
        ("POST", "/oauth/revoke", b"a&b"),
        ("GET", "/v1/audit?a&b", b""),
    ],
)
def test_what_strangers_send_wrong_is_told_without_a_traceback_and_a_flood_of_it_is_counted(
    tmp_path: Path, method: str, path: str, body: bytes
) -> None:
    async def scene(plane: Plane) -> None:
        with logged() as told:
            for _ in range(MANY):
                assert (await plane.web.request(method, path, content=body, headers=FORM)).status_code < 500
        lines = told.getvalue().splitlines()
        assert "Traceback" not in told.getvalue()
        assert len(lines) <= LOUD + 3
        assert lines[-1].endswith("(128 times this minute)")

    play(tmp_path, scene)


@pytest.mark.attack("DOS-14")
@pytest.mark.parametrize("error", [RuntimeError("x"), UnavailableError("the issuer cannot be asked")])
def test_a_fault_of_ours_has_its_traceback_and_a_flood_of_it_is_counted_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*_: object) -> None:
        raise error from ValueError("the cause")

    monkeypatch.setattr(middleware, "_admit", fails)

    async def scene(plane: Plane) -> None:
        with logged() as told:
            for _ in range(MANY):
                assert (await plane.web.get("/oauth/jwks")).status_code >= 500
            assert told.getvalue().count("ValueError: the cause") == LOUD + 3
            later(plane, 60)
            await plane.web.get("/oauth/jwks")
            assert told.getvalue().count("ValueError: the cause") == LOUD + 4

    play(tmp_path, scene)


@pytest.mark.parametrize("path", ["/oauth/token", "/oauth/par", "/oauth/device_authorization", "/oauth/bc-authorize"])
def test_an_endpoint_for_clients_says_that_it_has_another_method(tmp_path: Path, path: str) -> None:
    """RFC 9126 §2.3."""
    world = World()

    async def scene(plane: Plane) -> None:
        answer = await plane.web.get(path)
        assert (answer.status_code, answer.json()["code"]) == (405, "method")
        assert (await plane.web.get("/v1/tasks/x/close")).status_code == 401

    play(tmp_path, scene, world, consent_driver.identity(consent_driver.Issuer(world)))


@dataclass(frozen=True)
class Session(SocketAuth):
    """A listener whose principal is a human with a session, as the console's will be."""

    human: Human | None = None

    async def principal(self, _: Request) -> Principal | None:
        return self.human


def test_a_human_is_let_in_by_the_right_that_the_route_names(tmp_path: Path) -> None:
    async def answered(plane: Plane, right: Right, human: Human | None) -> int:
        async def told(_: Request, principal: Principal) -> Response:
            assert principal is human
            return Response(status_code=204)

        endpoint = Middleware(plane.verifier).endpoint(Route("GET", "/v1/x", told, right))
        scope = {"type": "http", "method": "GET", "path": "/v1/x", "raw_path": b"/v1/x", "query_string": b""}
        listener = Session(OPERATOR, human=human)
        return (await endpoint(Request({**scope, "headers": [], "state": {"listener": listener}}))).status_code

    async def scene(plane: Plane) -> None:
        now = plane.world.now
        ann = Human(Subject("https://idp.test#ann", "urn:mfa"), "digest", now, now, "remit", session="ses_1")
        admin = replace(ann, rights=frozenset({Right.OPERATE}))
        assert [await answered(plane, Right.OPERATE, who) for who in (None, ann, admin)] == [401, 403, 204]
        assert await answered(plane, Right.ACT, admin) == 403

    play(tmp_path, scene)
