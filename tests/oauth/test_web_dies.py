"""A web worker dies between two requests of a client: what was promised by the one holds with the next."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from remit.compose.app import build
from remit.core.approval import Approval, request_of
from remit.core.principal import Human
from remit.errors import NotFoundError, UsedError
from remit.link import roles
from remit.web.authentication import TokenAuth
from remit.web.listen import serve
from tests.broker.world import TABLE
from tests.link.two_ends import linked
from tests.oauth.consent_driver import CIBA, PLANNER, App, Mesh, browser, decide, scene, svid
from tests.oauth.plane import Agent, claims_of, later
from tests.oauth.test_codes import child_requested


class Believing:
    """Confirms every human: who lets them in is only pretended here."""

    async def confirm(self, human: Human) -> Human:
        return human


@asynccontextmanager
async def web(app: App) -> AsyncIterator[Any]:
    """Serve strangers by a worker with a link of its own, in the place of whoever served them; then it dies."""
    made = app.made
    made.listeners[1].close()
    async with linked(made.world, made.broker, roles.WEB, made.tokens, Mesh(), Believing()) as link:
        remote, host = link.broker, urlsplit(made.base).netloc
        verifier = replace(made.verifier, broker=remote, tokens=remote, pending=remote)
        identity = replace(made.deps.identity, workloads=remote)
        deps = replace(made.deps, broker=remote, verifier=verifier, identity=identity)
        sock = socket.create_server(("127.0.0.1", urlsplit(made.base).port or 0))
        sock.setblocking(False)
        made.listeners[1] = await serve(build(deps), sock, TokenAuth(frozenset({host}), verifier.holder))
        made.web = httpx.AsyncClient(base_url=made.base)
        made.clients.append(made.web)
        yield remote


def test_a_code_that_is_used_again_with_the_next_web_ends_what_the_first_use_opened(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        async with web(app):
            code = await app.code()
            told = (await app.redeem(code)).json()
            app.agent.token = told["access_token"]
            assert (await app.made.call(app.agent, "GET", "/v1/self")).status_code == 200
        async with web(app):
            assert (await app.redeem(code)).json()["error"] == "invalid_grant"
            assert (await app.made.call(app.agent, "GET", "/v1/self")).status_code in {401, 403}
        events = await app.made.world.events()
        assert ("resource.use", "redeem", "used") in {(e.event, e.action, e.code) for e in events}
        assert [e.grant for e in events if e.event == "grant.revoke"] == [told["grant"]]

    scene(tmp_path, played)


def test_an_agent_goes_on_by_the_name_of_its_approval_with_the_next_web(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        child = Agent()
        async with web(app):
            item = await child_requested(app, child)
            form: dict[str, str | None] = {"grant_type": CIBA, "auth_req_id": item["approval"]}
            assert (await app.token(child, **form)).json()["error"] == "authorization_pending"
        async with web(app):
            visitor = browser(app.made)
            shown = await visitor.get(f"/approvals/{item['approval']}")
            assert (await decide(visitor, app.issuer, shown)).status_code == 200
        later(app.made, 5)
        async with web(app) as remote:
            assert (await app.token(Agent(), **form)).json()["error"] == "invalid_grant"
            told = (await app.token(child, **form)).json()
            assert told["authorization_details"] == [TABLE]
            child.token = told["access_token"]
            assert (await app.made.call(child, "GET", "/v1/self")).status_code == 200
            with pytest.raises(NotFoundError):  # what it is told of is the child, and nothing above it
                await remote.grant(claims_of(app.made.verifier, app.agent.token).grant)
            later(app.made, 5)
            assert (await app.token(child, **form)).json()["error"] == "invalid_grant"

    scene(tmp_path, played)


def test_a_workload_that_asked_from_afar_is_answered_by_the_next_web(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        async with web(app):
            body = await app.afar()
            told = body.json()
            visitor = browser(app.made)
            page = await visitor.get(told["verification_uri"])
            assert (await decide(visitor, app.issuer, page)).status_code == 200
        later(app.made, 5)
        async with web(app):
            polled = {"grant_type": CIBA, "auth_req_id": told["auth_req_id"]}
            other = await app.token(**{**polled, **svid("spiffe://prod.test/other")})
            assert other.json()["error"] == "invalid_grant"
            answer = await app.token(**{**polled, **svid()})
            assert answer.status_code == 200, answer.text
            view = await app.made.broker.grant(answer.json()["grant"])
            assert (view.grant.agent, view.grant.attested) == (PLANNER, True)

    scene(tmp_path, played)


def test_what_was_not_opened_by_an_approval_is_not_ended_as_if_it_were(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        async with web(app) as remote:
            item = await child_requested(app, Agent())
            for name in (item["approval"], "apr_guess"):
                with pytest.raises(NotFoundError):
                    await remote.revoke_opened(name, UsedError())
            for name in (item["approval"], "apr_guess"):
                with pytest.raises(NotFoundError):
                    await remote.delegate_approved(name, "k" * 43)

    scene(tmp_path, played)


def test_an_approval_is_what_the_authority_knows_of_it_whatever_a_worker_says(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        child = Agent()
        async with web(app) as remote:
            item = await child_requested(app, child)
            visitor = browser(app.made)
            shown = await visitor.get(f"/approvals/{item['approval']}")
            assert (await decide(visitor, app.issuer, shown)).status_code == 200
            approval: Approval = (await remote.look(item["approval"])).approval
            forged = replace(approval, verb="task.open", task=None, grant=None)
            with pytest.raises(NotFoundError):
                await remote.open(forged, request_of(approval))
            app.agent.token, app.agent.grant, app.agent.task = "", "", ""
            told = (await app.redeem(await app.code(depth="2", fan_out="2", purpose="another task"))).json()
            other = await remote.grant(told["grant"])
            moved = replace(approval, task=other.task, grant=other.id)
            with pytest.raises(NotFoundError):
                await remote.delegate(other.holder, other.id, request_of(approval), moved)

    scene(tmp_path, played)
