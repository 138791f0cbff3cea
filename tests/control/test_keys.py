from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from remit.compose.app import build
from remit.core.principal import Holder, Principal
from remit.errors import ConflictError, NotFoundError
from remit.jose.keys import PublishedKey
from remit.web.authentication import SocketAuth, TokenAuth
from tests.broker.world import OPERATOR
from tests.oauth.plane import Agent, Plane, play

CALLS = [("GET", "/v1/keys"), ("POST", "/v1/keys/token/rotate"), ("POST", "/v1/keys/token/old/revoke")]


@dataclass
class Book:
    """Rings that write down what they are told to do."""

    done: list[tuple[str, ...]] = field(default_factory=list)

    def published(self) -> Mapping[str, Sequence[PublishedKey]]:
        old = PublishedKey("old", "ES256", signing=False, until=datetime(2026, 11, 25, 12, 10, 5, tzinfo=UTC))
        return {"token": [PublishedKey("new", "ES256"), old]}

    async def rotate(self, operator: Principal, ring: str) -> str:
        if self.done:
            raise ConflictError("the key was rotated a moment ago")
        self.done.append((operator.name, "rotate", ring))
        return "new"

    async def revoke(self, operator: Principal, ring: str, kid: str) -> str:
        if kid != "old":
            raise NotFoundError
        self.done.append((operator.name, "revoke", ring, kid))
        return "new"


def client(plane: Plane, book: Book, authority: SocketAuth | TokenAuth) -> httpx.AsyncClient:
    """Return a client of a control plane with these rings, on a listener that stands for ``authority``."""
    app = build(replace(plane.deps, rings=book))

    async def listened(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {"listener": authority}}, receive, send)

    return httpx.AsyncClient(transport=httpx.ASGITransport(listened), base_url=plane.base)


def test_the_operator_lists_rotates_and_revokes(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        book = Book()
        async with client(plane, book, SocketAuth(OPERATOR)) as control:
            told = (await control.get("/v1/keys")).json()
            assert told["rings"]["token"] == [
                {"kid": "new", "alg": "ES256", "signing": True, "until": None},
                {"kid": "old", "alg": "ES256", "signing": False, "until": "2026-11-25T12:10:05.000Z"},
            ]
            answers = [(await control.request(*call)).json() for call in CALLS[1:]]
        assert answers == [{"ring": "token", "signing": "new"}, {"ring": "token", "revoked": "old", "signing": "new"}]
        sub = OPERATOR.subject.sub
        assert book.done == [(sub, "rotate", "token"), (sub, "revoke", "token", "old")]

    play(tmp_path, scene)


@pytest.mark.parametrize("call", CALLS)
def test_nobody_else_does(tmp_path: Path, call: tuple[str, str]) -> None:
    async def scene(plane: Plane) -> None:
        book, agent = Book(), Agent()
        opened = await plane.opened(agent)
        host = plane.base.removeprefix("http://")
        async with client(plane, book, SocketAuth(Holder(opened["task"], opened["grant"]))) as channel:
            assert (await channel.request(*call)).json()["code"] == "denied"
        async with client(plane, book, TokenAuth(frozenset({host}), plane.verifier.holder)) as web:
            assert (await web.request(*call)).status_code == 401
            assert (await web.request(*call, headers=plane.headers(agent, *call))).status_code == 403
        assert book.done == []

    play(tmp_path, scene)


def test_what_does_not_work_is_a_problem(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        book = Book(done=[("somebody", "rotate", "token")])
        async with client(plane, book, SocketAuth(OPERATOR)) as control:
            assert (await control.post("/v1/keys/token/rotate")).status_code == 409
            assert (await control.post("/v1/keys/token/none/revoke")).status_code == 404
            assert (await control.post("/v1/keys/token/old/revoke", json={"now": True})).status_code == 400
        assert len(book.done) == 1

    play(tmp_path, scene)


def test_where_no_keys_are_nobody_finds_any(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        assert [(await plane.control.request(*call)).status_code for call in CALLS] == [404, 404, 404]

    play(tmp_path, scene)
