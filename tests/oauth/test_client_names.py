"""``client_id`` names the OAuth client that obtained a grant: in tokens, introspection, the tree and the audit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.forge import parts
from tests.broker.world import SEARCH
from tests.oauth.consent_driver import APP, CIBA, DEVICE, App, browser, decide, pushed, scene, svid
from tests.oauth.plane import ACCESS_TOKEN, EXCHANGE, Agent, Form, Plane
from tests.oauth.test_exchange import JWT, opened, opening, refused, staged
from tests.oauth.test_federation import asserting, bound
from tests.oauth.test_handed_out import device_code, documented, refreshing, signed
from tests.oauth.test_private_key_jwt import URL, redeemed
from tests.web.fake_identity import CLIENT, PLANNER, READER, FakeIdentity, assertion_of

NESTED: Form = {"depth": "2", "fan_out": "3"}


def named(token: str) -> tuple[object, object]:
    """Return whom a token names: the client, and who acts."""
    claims: dict[str, Any] = dict(parts(token)[1])
    return claims["client_id"], claims["act"]["sub"]


def test_a_configured_client_is_named_wherever_its_grant_is(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        told = (await app.redeem(await app.code(depth="2", fan_out="3"))).json()
        agent = app.agent
        app.made.taken(told, agent)
        client, actor = named(told["access_token"])
        assert (client, str(actor).startswith("spiffe://")) == (APP, True)
        seen = (await app.made.call(agent, "POST", "/oauth/introspect", data={"token": agent.token})).json()
        assert (seen["client_id"], seen["act"]["sub"]) == (APP, actor)
        tree = (await app.made.control.get(f"/v1/tasks/{told['task']}")).json()
        assert [(each["client"], each["agent"]) for each in tree["grants"]] == [(APP, actor)]
        again = (await app.token(**refreshing(told))).json()
        assert named(again["access_token"]) == (APP, actor)
        by = {each.event: each.client for each in await app.made.world.events() if each.decision != "deny"}
        events = {"approval.ask", "approval.approve", "task.open", "token.begin", "token.refresh"}
        assert {name: client for name, client in by.items() if name in events} == dict.fromkeys(events, APP)

    scene(tmp_path, played)


def test_a_device_and_a_request_from_afar_name_whoever_asked(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        code = await device_code(app, client_id="tv")
        told = (await app.token(grant_type=DEVICE, device_code=code, client_id="tv")).json()
        assert named(told["access_token"])[0] == "tv"
        asked = (await app.afar()).json()
        visitor = browser(app.made)
        await decide(visitor, app.issuer, await visitor.get(asked["verification_uri"]))
        told = (await app.token(grant_type=CIBA, auth_req_id=asked["auth_req_id"], **svid())).json()
        assert named(told["access_token"]) == (str(svid()["client_assertion"]),) * 2

    scene(tmp_path, played)


def test_a_client_known_by_a_document_is_named_by_its_url(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        push = await pushed(app, **signed(app))
        told = (await redeemed(app, push.json(), **signed(app))).json()
        client, actor = named(told["access_token"])
        assert (client, str(actor).startswith("spiffe://")) == (URL, True)
        form = {**opening("of-alice"), **signed(app)}  # which needs no human at a page
        brought = (await app.token(Agent(), **form)).json()
        assert named(brought["access_token"])[0] == URL

    documented(tmp_path, played)


def test_a_public_clients_word_is_not_taken_where_nothing_was_registered_for_it(tmp_path: Path) -> None:
    async def played(plane: Plane, _: FakeIdentity) -> None:
        agent = Agent()
        await opened(plane, agent, client_id="somebody")
        client, actor = named(agent.token)
        assert client == actor
        tree = (await plane.control.get(f"/v1/tasks/{parts(agent.token)[1]['task']['id']}")).json()  # type: ignore[index]
        assert [each["client"] for each in tree["grants"]] == [None]

    staged(tmp_path, played)


def test_an_assertion_is_of_the_client_that_it_was_made_for(tmp_path: Path) -> None:
    async def played(plane: Plane, _: FakeIdentity) -> None:
        agent = Agent()
        form = asserting(bound(agent), CLIENT, authorization_details=json.dumps([SEARCH]))
        told = (await plane.exchange(agent, form)).json()
        assert named(told["access_token"])[0] == CLIENT

    staged(tmp_path, played)


def test_a_sub_agent_is_of_its_parents_client_unless_somebody_attests_it(tmp_path: Path) -> None:
    async def played(plane: Plane, _: FakeIdentity) -> None:
        root, child, reader = Agent(), Agent(), Agent()
        await opened(plane, root, "id-token-of-alice", **assertion_of(PLANNER), **NESTED)
        await plane.delegated(root, child)
        client, actor = named(child.token)
        assert (client, str(actor).startswith("spiffe://remit")) == (PLANNER, True)
        shown = assertion_of(READER)["client_assertion"]
        await plane.delegated(root, reader, actor_token=shown, actor_token_type=JWT)
        assert named(reader.token) == (READER, READER)

    staged(tmp_path, played)


@pytest.mark.attack("DEL-03")
def test_a_client_that_a_sub_agents_token_names_is_not_its_holder(tmp_path: Path) -> None:
    """Whoever authenticates has to be who acts under the grant, and not the client that it came from."""

    async def played(plane: Plane, _: FakeIdentity) -> None:
        root, child = Agent(), Agent()
        await opened(plane, root, "id-token-of-alice", **assertion_of(PLANNER), **NESTED)
        await plane.delegated(root, child)
        again: Form = {"grant_type": EXCHANGE, "subject_token": child.token, "subject_token_type": ACCESS_TOKEN}
        assert refused(await plane.exchange(child, {**again, **assertion_of(PLANNER)}))[2] == "spliced"
        assert (await plane.exchange(child, again)).status_code == 200

    staged(tmp_path, played)
