"""Asking from a device without a browser: its codes, the page where one is typed, and guessing."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from remit.core.legible import TYPED
from remit.core.principal import Workload
from remit.errors import AudienceError
from remit.oauth.authorization_requests import GUESSES
from tests.broker.asking import kept
from tests.oauth.consent_driver import APP, DEVICE, PURPOSE, App, browser, decide, form_of, press, scene
from tests.oauth.plane import Agent, later
from tests.oauth.test_authorize import SPIFFE, SVID, Spire

GATEWAY = "http://127.0.0.1:8471"


async def begun(app: App, signer: Agent | None = None, /, **more: str | None) -> httpx.Response:
    """Ask as a device."""
    headers = {"dpop": app.proof("/oauth/device_authorization", signer)} if signer else {}
    return await app.made.web.post("/oauth/device_authorization", data=app.polled_request(**more), headers=headers)


def test_the_answer_is_as_the_standard_has_it(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        answer = await begun(app)
        told = answer.json()
        assert re.fullmatch(f"[{TYPED}]{{4}}-[{TYPED}]{{4}}-[{TYPED}]{{4}}", told["user_code"])
        assert told["verification_uri"] == f"{app.made.base}/oauth/device"
        assert told["verification_uri_complete"] == f"{told['verification_uri']}?user_code={told['user_code']}"
        assert (told["expires_in"], told["interval"]) == (600, 5)
        assert answer.headers["cache-control"] == "no-store"
        known = (await app.made.web.get("/.well-known/oauth-authorization-server")).json()
        assert known["device_authorization_endpoint"] == f"{app.made.base}/oauth/device_authorization"

    scene(tmp_path, played)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"client_id": "nobody"}, "invalid_client"),
        ({"client_id": None}, "invalid_request"),
        ({"client_id": SPIFFE}, "invalid_client"),
        ({"purpose": None}, "invalid_request"),
        ({"authorization_details": "[]"}, "invalid_authorization_details"),
        ({"scope": "openid"}, "invalid_scope"),
        ({"resource": "https://elsewhere.test"}, "invalid_target"),
        ({"dpop_jkt": "x"}, "invalid_request"),
    ],
)
def test_what_is_wrong_asks_nobody(tmp_path: Path, wrong: dict[str, str | None], error: str) -> None:
    async def played(app: App) -> None:
        answer = await begun(app, **wrong)
        assert answer.json()["error"] == error
        assert kept(app.made.broker) == []

    scene(tmp_path, played)


def test_a_code_that_came_in_the_link_is_shown_and_still_to_be_confirmed(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        told = (await begun(app)).json()
        visitor = browser(app.made)
        typed = await visitor.get(told["verification_uri_complete"])
        assert form_of(typed) == {"user_code": told["user_code"]}
        assert PURPOSE not in typed.text
        shown = await visitor.post("/oauth/device", data=form_of(typed))
        for text in (PURPOSE, "calls itself “ConsentPage App” asks for access", told["user_code"]):
            assert text in shown.text
        done = await decide(visitor, app.issuer, shown)
        assert "Approved" in done.text

    scene(tmp_path, played)


@pytest.mark.parametrize("bend", [str.lower, lambda code: code.replace("-", ""), lambda code: f" {code} "])
def test_a_code_is_read_as_people_type_it(tmp_path: Path, bend: object) -> None:
    async def played(app: App) -> None:
        assert callable(bend)
        code = bend((await begun(app)).json()["user_code"])
        assert PURPOSE in (await browser(app.made).post("/oauth/device", data={"user_code": code})).text

    scene(tmp_path, played)


def test_a_wrong_code_is_said_and_shows_nothing(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        await begun(app)
        answer = await browser(app.made).post("/oauth/device", data={"user_code": '"><script>x'})
        assert answer.status_code == 400
        assert "This code is not one that waits" in answer.text
        assert PURPOSE not in answer.text
        assert "<script>" not in answer.text

    scene(tmp_path, played)


def other(letters: str, by: int = 1) -> str:
    """Return letters none of which is as it was."""
    return "".join(TYPED[(TYPED.index(letter) + by) % len(TYPED)] for letter in letters)


def test_so_many_guesses_at_a_request_and_no_more(tmp_path: Path) -> None:
    """The first letters find a request, the others are its secret: of 20^8, in ten minutes, three hundred are tried."""

    async def played(app: App) -> None:
        name, _, secret = (await begun(app)).json()["user_code"].partition("-")
        visitor = browser(app.made)
        for number in range(GUESSES):
            wrong = f"{name}{other(secret.replace('-', ''), 1 + number % 19)}"
            assert (await visitor.post("/oauth/device", data={"user_code": wrong})).status_code == 400
        refused = await visitor.post("/oauth/device", data={"user_code": f"{name}{secret}"})
        assert refused.status_code == 429
        assert PURPOSE not in refused.text
        later(app.made, 60)
        assert PURPOSE in (await visitor.post("/oauth/device", data={"user_code": f"{name}{secret}"})).text

    scene(tmp_path, played)


def test_nobody_locks_out_a_code_whose_first_letters_they_do_not_know(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        first, second = [(await begun(app)).json()["user_code"] for _ in range(2)]
        stranger = browser(app.made)
        for number in range(GUESSES + 1):
            wrong = other(first[:4], 1 + number % 19) + first[4:]
            assert (await stranger.post("/oauth/device", data={"user_code": wrong})).status_code in {400, 429}
            await stranger.post("/oauth/device", data={"user_code": second[:4] + other(second[5:9]) + second[9:]})
        assert (await stranger.post("/oauth/device", data={"user_code": second})).status_code == 429
        assert PURPOSE in (await browser(app.made).post("/oauth/device", data={"user_code": first})).text

    scene(tmp_path, played)


def test_a_login_that_does_not_count_leads_back_to_the_code(tmp_path: Path) -> None:
    """Nothing else leads to what a device asks for: a link would, for whomever it is sent to (RFC 8628 §5.4)."""

    async def played(app: App) -> None:
        told, visitor = (await begun(app)).json(), browser(app.made)
        page = await visitor.post("/oauth/device", data={"user_code": told["user_code"]})
        back = app.issuer.back(await press(visitor, page))
        answer = await visitor.get(back.replace("of-the-issuer", "wrong"))
        assert "the issuer did not let the human in" in answer.text.lower()
        assert '<a class="go" href="/oauth/device">Log in again</a>' in answer.text
        (item,) = kept(app.made.broker)
        assert item.id not in answer.text
        assert (await visitor.get(f"/approvals/{item.id}")).status_code == 404

    scene(tmp_path, played)


def test_a_code_is_over_in_ten_minutes_and_decided_on_once(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        told, visitor = (await begun(app)).json(), browser(app.made)
        typed = {"user_code": told["user_code"]}
        await decide(visitor, app.issuer, await visitor.post("/oauth/device", data=typed))
        again = await visitor.post("/oauth/device", data=typed)
        assert "This was approved" in again.text
        assert form_of(again) == {}
        later(app.made, 600)
        assert (await visitor.post("/oauth/device", data=typed)).status_code == 400

    scene(tmp_path, played)


def test_the_page_is_for_forms_of_our_own(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        told = (await begun(app)).json()
        foreign = {"origin": "https://evil.test"}
        answer = await browser(app.made).post("/oauth/device", data={"user_code": told["user_code"]}, headers=foreign)
        assert answer.status_code == 403
        assert PURPOSE not in answer.text

    scene(tmp_path, played)


def test_a_key_named_at_the_start_is_shown_and_alone_redeems(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        told, visitor = (await begun(app, app.agent)).json(), browser(app.made)
        shown = await visitor.post("/oauth/device", data={"user_code": told["user_code"]})
        assert app.agent.signer.kid in shown.text
        await decide(visitor, app.issuer, shown)
        form: dict[str, str | None] = {"grant_type": DEVICE, "device_code": told["device_code"]}
        assert (await app.token(Agent(), **form)).json()["error"] == "invalid_dpop_proof"
        later(app.made, 5)
        assert (await app.token(**form)).status_code == 200

    scene(tmp_path, played)


def test_a_workload_that_proves_itself_needs_no_registration(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        told = (await begun(app, client_id=None, **SVID)).json()
        visitor = browser(app.made)
        shown = await visitor.post("/oauth/device", data={"user_code": told["user_code"]})
        assert f"{SPIFFE} asks for access" in shown.text
        await decide(visitor, app.issuer, shown)
        form: dict[str, str | None] = {"grant_type": DEVICE, "device_code": told["device_code"]}
        assert (await app.token(client_id=SPIFFE, **form)).json()["error"] == "invalid_client"
        redeemed = (await app.token(client_id=None, **form, **SVID)).json()
        grant = app.made.broker._tasks.task_of(redeemed["grant"]).grant(redeemed["grant"])
        assert (grant.agent, grant.attested) == (SPIFFE, True)

    scene(tmp_path, played, workloads=Spire())


@pytest.mark.parametrize("path", ["/oauth/device_authorization", "/oauth/bc-authorize", "/oauth/par", "/oauth/revoke"])
def test_a_client_that_is_refused_is_in_the_audit_wherever_it_asks(tmp_path: Path, path: str) -> None:
    class Elsewhere(Spire):
        async def assertion(self, token: str, kind: str) -> Workload:
            raise AudienceError(f"{token}{kind}")

    async def played(app: App) -> None:
        form = {**SVID, "token": "a.b.c"} if path.endswith("revoke") else app.polled_request(client_id=None, **SVID)
        answer = await app.made.web.post(path, data=form)
        assert answer.json()["error"] == "invalid_client"
        entry = (await app.made.world.events())[-1]
        assert (entry.resource, entry.decision, entry.code) == ("remit", "deny", "audience")

    scene(tmp_path, played, workloads=Elsewhere())


def test_the_token_is_for_the_audience_of_the_start(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        told, visitor = (await begun(app, resource=GATEWAY)).json(), browser(app.made)
        await decide(visitor, app.issuer, await visitor.post("/oauth/device", data={"user_code": told["user_code"]}))
        form: dict[str, str | None] = {"grant_type": DEVICE, "device_code": told["device_code"], "client_id": APP}
        token = (await app.token(**form)).json()["access_token"]
        assert app.made.verifier.signed(token).all["aud"] == GATEWAY

    scene(tmp_path, played, gateway=GATEWAY)
