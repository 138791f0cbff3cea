"""Asking one human from afar: who is meant, what they are told, and that nobody else can answer."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from remit.api.registry import Registered, Registry
from remit.core.policy import in_bounds
from tests.api.desk import ALICE, APP, BOB, CIBA, PURPOSE, STRONG, App, Issuer, browser, decide, form_of, scene
from tests.api.plane import later
from tests.broker.asking import kept
from tests.broker.world import World

STRANGER = "https://evil.test/app"


async def begun(app: App, **more: str | None) -> httpx.Response:
    """Ask from afar; Alice unless told otherwise."""
    asked = app.wanted(**{"login_hint": ALICE, **more})
    return await app.made.web.post("/oauth/bc-authorize", data=asked)


async def polled(app: App, told: dict[str, str], **more: str | None) -> httpx.Response:
    """Poll for the decision."""
    return await app.token(grant_type=CIBA, auth_req_id=told["auth_req_id"], **more)


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
        assert app.made.broker.task_of(answer.json()["grant"]).head.subject.sub == ALICE
        later(app.made, 5)
        assert (await polled(app, told)).json()["error"] == "invalid_grant"

    scene(tmp_path, played)


def test_a_client_that_nobody_set_up_is_shown_as_such(tmp_path: Path) -> None:
    world = World(now=datetime(2026, 11, 25, 12, tzinfo=UTC), decide=in_bounds)
    document = {"client_id": STRANGER, "client_name": "Payroll", "redirect_uris": ["https://evil.test/cb"]}

    async def fetch(url: str) -> bytes:
        assert url == STRANGER
        return json.dumps(document).encode()

    async def played(app: App) -> None:
        stranger = App(app.made, app.issuer, client_id=STRANGER)
        told = (await begun(stranger)).json()
        for minutes in (0, 9):  # also when the document is not kept any more
            later(app.made, 60 * minutes)
            page = await shown(browser(app.made), told)
            assert "not one that your operator set up" in page.text
            assert "evil.test publishes it" in page.text
        codes = (await app.made.web.post("/oauth/device_authorization", data=stranger.wanted())).json()
        page = await browser(app.made).post("/oauth/device", data={"user_code": codes["user_code"]})
        assert "not one that your operator set up" in page.text
        known = await shown(browser(app.made), (await begun(app)).json())
        assert "Desk App asks for access" in known.text
        assert "not one that your operator set up" not in known.text

    scene(tmp_path, played, world=world, registry=Registry([Registered(APP, "Desk App", ())], fetch, lambda: world.now))


def test_what_the_human_refused_they_are_not_asked_again(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        told, visitor = (await begun(app)).json(), browser(app.made)
        await decide(visitor, app.issuer, await shown(visitor, told), "deny")
        refused = await begun(app)
        assert (refused.status_code, refused.json()["error"]) == (400, "access_denied")
        assert "refused this before" in refused.json()["error_description"]
        short = {"purpose": "in a hurry", "requested_expiry": "60"}
        told = (await begun(app, **short)).json()
        await decide(visitor, app.issuer, await shown(visitor, told), "deny")
        later(app.made, 61)  # it does not make the human forget sooner that it was not to wait for long
        assert (await begun(app, **short)).json()["error"] == "access_denied"
        assert (await begun(app, purpose="something else")).status_code == 200
        assert (await begun(app, login_hint=BOB)).status_code == 200
        assert (await begun(app, client_id="tv")).status_code == 200

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
        ({"login_hint": None, "id_token_hint": "of-bob"}, "invalid_grant"),
        ({"client_id": "nobody"}, "invalid_client"),
        ({"client_id": None}, "invalid_request"),
        ({"scope": "openid email"}, "invalid_scope"),
        ({"user_code": "1234"}, "invalid_request"),
        ({"client_notification_token": "x"}, "invalid_request"),
        ({"binding_message": "x" * 101}, "invalid_binding_message"),
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
        assert (await polled(app, told, client_id="tv")).json()["error"] == "invalid_grant"

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
        assert CIBA in known["grant_types_supported"]

    scene(tmp_path, played)


def test_the_pretended_issuer_is_asked_for_a_fresh_login(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        assert isinstance(app.issuer, Issuer)
        told, visitor = (await begun(app)).json(), browser(app.made)
        await decide(visitor, app.issuer, await shown(visitor, told))
        assert [(one.since is not None, one.issuer) for one in app.issuer.begun] == [(True, "https://idp.test")]

    scene(tmp_path, played)
