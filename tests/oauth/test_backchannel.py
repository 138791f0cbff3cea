"""Asking one human from afar: who is meant, what they are told, and that nobody else can answer."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from remit.core.policy import in_bounds
from remit.core.principal import JWT_SPIFFE
from remit.oauth.clients import Registry
from remit.ports.identity import Registered
from tests.broker.asking import kept
from tests.broker.world import SEARCH, World
from tests.oauth.consent_driver import (
    ALICE,
    APP,
    BOB,
    CIBA,
    PLANNER,
    PURPOSE,
    STRONG,
    App,
    Issuer,
    browser,
    decide,
    form_of,
    scene,
    svid,
)
from tests.oauth.plane import later

STRANGER = "https://evil.test/app"


async def begun(app: App, **more: str | None) -> httpx.Response:
    """Ask from afar; Alice unless told otherwise."""
    return await app.afar(**more)


async def polled(app: App, told: dict[str, str], **more: str | None) -> httpx.Response:
    """Poll for the decision."""
    return await app.token(grant_type=CIBA, auth_req_id=told["auth_req_id"], **{**svid(), **more})


async def shown(visitor: httpx.AsyncClient, told: dict[str, str]) -> httpx.Response:
    """Open the page of the link."""
    return await visitor.get(told["verification_uri"])


def test_the_human_who_is_meant_logs_in_and_decides(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        told = (await begun(app, binding_message="W4SH")).json()
        assert (told["expires_in"], told["interval"]) == (600, 5)
        assert (await polled(app, told)).json()["error"] == "authorization_pending"
        visitor = browser(app.made)
        page = await shown(visitor, told)
        for text in (PURPOSE, "W4SH", ALICE):
            assert text in page.text
        assert "Approved" in (await decide(visitor, app.issuer, page)).text
        later(app.made, 5)
        answer = await polled(app, told)
        assert app.made.broker._tasks.task_of(answer.json()["grant"]).head.subject.sub == ALICE
        later(app.made, 5)
        assert (await polled(app, told)).json()["error"] == "invalid_grant"

    scene(tmp_path, played)


STRANGERS: dict[str, dict[str, str | None]] = {
    "a client that an operator set up": {"client_id": APP},
    "a client that names itself by a document": {"client_id": STRANGER},
    "nobody in particular": {"client_id": None},
    "a name that nobody knows": {"client_id": "nobody"},
    "a workload's name without proof": {"client_id": PLANNER},
    "somebody else's proof": {"client_id": APP, "client_assertion": PLANNER, "client_assertion_type": JWT_SPIFFE},
    "a proof of nobody": {"client_assertion": "x", "client_assertion_type": JWT_SPIFFE},
}


@pytest.mark.attack("OAU-09")
@pytest.mark.parametrize("who", STRANGERS)
def test_whoever_proves_nothing_asks_nobody_from_afar(tmp_path: Path, who: str) -> None:
    """CIBA Core §7.1: the client authenticates. Its name alone is anybody's to say."""

    async def fetch(url: str) -> bytes:
        return json.dumps({"client_id": url, "redirect_uris": ["https://evil.test/cb"]}).encode()

    async def played(app: App) -> None:
        asked = app.polled_request(**{"login_hint": ALICE, **STRANGERS[who]})
        answer = await app.made.web.post("/oauth/bc-authorize", data=asked)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
        assert kept(app.made.broker) == []

    world = World(now=datetime(2026, 11, 25, 12, tzinfo=UTC), decide=in_bounds)
    registry = Registry([Registered(APP, "ConsentPage App", ())], fetch, lambda: world.now)
    scene(tmp_path, played, world=world, registry=registry)


@pytest.mark.attack("OAU-09")
def test_one_human_is_asked_only_so_much_by_all_together_and_one_client_takes_not_all_of_it(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        async def asks(client: str, human: str, number: int) -> int:
            return (await begun(app, login_hint=human, purpose=f"number {number}", **svid(client))).status_code

        one, two, three = (f"spiffe://prod.test/{name}" for name in ("a", "b", "c"))
        assert [await asks(one, ALICE, n) for n in range(5)] == [200, 200, 200, 429, 429]
        assert [await asks(two, ALICE, n) for n in range(3)] == [200, 200, 429]
        assert await asks(three, ALICE, 0) == 429
        assert await asks(one, BOB, 0) == 200
        later(app.made, 600)
        assert await asks(three, ALICE, 0) == 200

    scene(tmp_path, played)


@pytest.mark.attack("OAU-09")
@pytest.mark.parametrize(
    "more",
    [{}, {"purpose": "found another reason"}, {"ttl": "61"}, {"dpop_jkt": "k" * 43}, {"binding_message": "W4SI"},
     {"authorization_details": json.dumps([{**SEARCH, "uses": 1}])}, {"requested_expiry": "60"}],
    ids=lambda more: next(iter(more), "the same"),
)  # fmt: skip
def test_a_client_that_a_human_refused_asks_them_for_nothing_for_a_while(
    tmp_path: Path, more: dict[str, str | None]
) -> None:
    async def played(app: App) -> None:
        told, visitor = (await begun(app, requested_expiry="60")).json(), browser(app.made)
        await decide(visitor, app.issuer, await shown(visitor, told), "deny")
        later(app.made, 61)  # it does not make the human forget sooner that it was not to wait for long
        refused = await begun(app, **more)
        assert (refused.status_code, refused.json()["error"]) == (400, "access_denied")
        assert "refused this before" in refused.json()["error_description"]
        assert (await begun(app, **svid("spiffe://prod.test/other"))).status_code == 200
        assert (await begun(app, login_hint=BOB)).status_code == 200
        later(app.made, 540)
        assert (await begun(app, **more)).status_code == 200

    scene(tmp_path, played)


def test_another_human_cannot_answer(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        told, visitor = (await begun(app)).json(), browser(app.made)
        app.issuer.sub = BOB
        answer = await decide(visitor, app.issuer, await shown(visitor, told))
        assert answer.status_code == 404
        assert (await polled(app, told)).json()["error"] == "authorization_pending"
        denied = await decide(visitor, app.issuer, await shown(visitor, told), "deny")
        assert denied.status_code == 404

    scene(tmp_path, played)


@pytest.mark.parametrize(
    ("hint", "sub"), [({"login_hint": "alice"}, ALICE), ({"login_hint": None, "id_token_hint": "of-alice"}, ALICE)]
)
def test_there_are_other_ways_to_name_a_human(tmp_path: Path, hint: dict[str, str | None], sub: str) -> None:
    async def played(app: App) -> None:
        assert (await begun(app, **hint)).status_code == 200
        (item,) = kept(app.made.broker)
        assert item.approver == sub

    scene(tmp_path, played)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"login_hint": "https://other.test#alice"}, "unknown_user_id"),
        ({"login_hint": "https://idp.test#"}, "unknown_user_id"),
        ({"login_hint": "unix://host#1000"}, "unknown_user_id"),
        ({"login_hint": None}, "invalid_request"),
        ({"id_token_hint": "of-alice"}, "invalid_request"),
        ({"login_hint": None, "login_hint_token": "x"}, "invalid_request"),
        ({"login_hint": None, "id_token_hint": "of-bob"}, "unknown_user_id"),
        ({"request": "e30.e30."}, "invalid_request"),
        ({"client_id": "nobody"}, "invalid_client"),
        ({"scope": "openid email"}, "invalid_scope"),
        ({"binding_message": "x" * 201}, "invalid_binding_message"),
        ({"requested_expiry": "soon"}, "invalid_request"),
        ({"purpose": None}, "invalid_request"),
        ({"resource": "https://elsewhere.test"}, "invalid_target"),
    ],
)
def test_what_is_wrong_asks_nobody(tmp_path: Path, wrong: dict[str, str | None], error: str) -> None:
    async def played(app: App) -> None:
        answer = await begun(app, **wrong)
        assert (answer.status_code, answer.json()["error"]) == (401 if error == "invalid_client" else 400, error)
        assert kept(app.made.broker) == []

    scene(tmp_path, played)


def test_a_client_may_want_less_time(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        told = (await begun(app, requested_expiry="60", scope="openid")).json()
        assert told["expires_in"] == 60
        later(app.made, 60)
        assert (await polled(app, told)).json()["error"] == "expired_token"
        page = await browser(app.made).get(told["verification_uri"])
        assert "Nobody decided on this in time." in page.text  # so nobody approves of what the client does not wait for
        assert form_of(page) == {}
        assert (await begun(app, requested_expiry="6000")).json()["expires_in"] == 600

    scene(tmp_path, played)


def test_another_client_gets_nothing(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        told = (await begun(app)).json()
        assert (await polled(app, told, **svid("spiffe://prod.test/other"))).json()["error"] == "invalid_grant"
        assert (
            await polled(app, told, client_id="tv", client_assertion=None, client_assertion_type=None)
        ).status_code == 400

    scene(tmp_path, played)


def test_a_login_that_is_too_weak_does_not_count_and_the_page_says_how_to_go_on(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        told, visitor = (await begun(app)).json(), browser(app.made)
        answer = await decide(visitor, app.issuer, await shown(visitor, told))
        assert answer.status_code == 403
        assert f"Log in again with {STRONG}." in answer.text
        again = told["verification_uri"].removeprefix(app.made.base)
        assert f'href="{again}"' in answer.text
        assert [one.acr for one in app.issuer.begun] == [(STRONG,)]
        app.issuer.acr = STRONG
        assert "Approved" in (await decide(visitor, app.issuer, await visitor.get(again))).text

    world = World(now=datetime(2026, 11, 25, 12, tzinfo=UTC), decide=in_bounds, step_up={ALICE: (STRONG,)})
    scene(tmp_path, played, world=world)


def test_discovery_says_what_there_is(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        known = (await app.made.web.get("/.well-known/oauth-authorization-server")).json()
        assert known["backchannel_authentication_endpoint"] == f"{app.made.base}/oauth/bc-authorize"
        assert known["backchannel_token_delivery_modes_supported"] == ["poll"]
        assert known["backchannel_user_code_parameter_supported"] is False
        assert "backchannel_authentication_request_signing_alg_values_supported" not in known  # none is taken
        assert CIBA in known["grant_types_supported"]

    scene(tmp_path, played)


def test_where_no_client_can_authenticate_nobody_asks_from_afar_and_discovery_says_so(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        known = (await app.made.web.get("/.well-known/oauth-authorization-server")).json()
        assert [name for name in known if name.startswith("backchannel")] == []
        assert (await begun(app)).status_code == 401  # there is no such place
        assert "not-found" in (await app.made.control.post("/oauth/bc-authorize")).text
        assert CIBA in known["grant_types_supported"]  # of approvals that grants ask for

    scene(tmp_path, played, workloads=None)


def test_the_pretended_issuer_is_asked_for_a_fresh_login(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        assert isinstance(app.issuer, Issuer)
        told, visitor = (await begun(app)).json(), browser(app.made)
        await decide(visitor, app.issuer, await shown(visitor, told))
        assert [(one.since is not None, one.issuer) for one in app.issuer.begun] == [(True, "https://idp.test")]

    scene(tmp_path, played)
