"""What is handed out once and redeemed later: by whom it was handed to, for what was asked or less, or not used up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from remit.errors import UnavailableError
from tests.attacks.forge import parts
from tests.broker.world import OPERATOR, SEARCH, TABLE
from tests.identity.issuing import ec, public
from tests.oauth.consent_driver import (
    DEVICE,
    App,
    Scene,
    answer_of,
    authorization_page,
    browser,
    clients,
    decide,
    pushed,
    scene,
)
from tests.oauth.plane import Agent, later
from tests.oauth.test_exchange import refused
from tests.oauth.test_private_key_jwt import URL, Web, assertion, play, redeemed

GATEWAY = "http://127.0.0.1:8471"
ENDPOINT, ELSEWHERE = f"{GATEWAY}/search", f"{GATEWAY}/warehouse"
BOTH = json.dumps([SEARCH, TABLE])
JWT = "urn:ietf:params:oauth:token-type:jwt"


def documented(tmp_path: Path, played: Scene) -> None:
    """Run a scene with a client whose document has its key."""

    async def whole(app: App) -> None:
        app.client_id = URL
        await played(app)

    play(tmp_path, whole, Web(jwks={"keys": [public(ec("d-1"))]}))


def signed(app: App) -> dict[str, str | None]:
    """Return what that client authenticates with."""
    return assertion(app, URL, "d-1")


def at_gateway(tmp_path: Path, played: Scene) -> None:
    scene(tmp_path, played, gateway=GATEWAY, registry=clients())


async def device_code(app: App, **more: str | None) -> str:
    """Have the human approve of what a device asks for."""
    asked = await app.made.web.post("/oauth/device_authorization", data=app.polled_request(**more))
    assert asked.status_code == 200, asked.text
    visitor = browser(app.made)
    await decide(
        visitor, app.issuer, await visitor.post("/oauth/device", data={"user_code": asked.json()["user_code"]})
    )
    return str(asked.json()["device_code"])


def refreshing(told: Any, **more: str | None) -> dict[str, str | None]:
    return {"grant_type": "refresh_token", "refresh_token": told["refresh_token"], **more}


def _fails(*_: object) -> None:
    raise UnavailableError


async def open_tasks(app: App) -> int:
    return sum(not task.closed for task in await app.made.broker.tasks(OPERATOR))


def audience(answer: httpx.Response) -> object:
    assert answer.status_code == 200, answer.text
    return parts(answer.json()["access_token"])[1]["aud"]


# -- to whom it was handed --------------------------------------------------------------------------------------------


def test_a_client_that_had_to_authenticate_has_to_when_it_polls_and_when_it_refreshes(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        code = await device_code(app, **signed(app))
        form = {"grant_type": DEVICE, "device_code": code}
        assert refused(await app.token(**form))[:2] == (401, "invalid_client")
        told = await app.token(**form, **signed(app))  # the refusal was no poll
        assert told.status_code == 200, told.text
        for _ in range(2):
            assert refused(await app.token(**refreshing(told.json())))[:2] == (401, "invalid_client")
            told = await app.token(**refreshing(told.json()), **signed(app))
            assert told.status_code == 200, told.text

    documented(tmp_path, played)


def test_it_has_to_when_it_refreshes_what_came_of_a_code_and_when_it_revokes_that(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        push = await pushed(app, **signed(app))
        told = (await redeemed(app, push.json(), **signed(app))).json()
        assert refused(await app.token(**refreshing(told)))[:2] == (401, "invalid_client")
        event = (await app.made.world.events())[-1]
        assert (event.event, event.decision, event.code) == ("token.refresh", "deny", "unauthenticated")
        form = {"token": told["refresh_token"], "client_id": URL}
        assert (await app.made.web.post("/oauth/revoke", data=form)).json() == {}
        assert await open_tasks(app) == 1
        assert (await app.made.web.post("/oauth/revoke", data={**form, **signed(app)})).json() != {}
        assert await open_tasks(app) == 0

    documented(tmp_path, played)


def test_what_a_client_signs_to_authenticate_says_not_who_a_child_is(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        parent, child = Agent(), Agent()
        await app.made.opened(parent)
        token = assertion(app)["client_assertion"] or ""
        form = app.made.delegation(parent, child, actor_token=token, actor_token_type=JWT)
        assert refused(await app.made.exchange(parent, form))[1] == "invalid_client"
        assert len(app.made.broker._tasks.task_of(parent.grant).grants) == 1
        # it used nothing up: the client itself authenticates by it
        answer = await pushed(app, **{**assertion(app), "client_assertion": token})
        assert answer.status_code == 201, answer.text

    play(tmp_path, played)


# -- for what was asked, or less ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("meant", "named", "got"),
    [
        (ENDPOINT, None, ENDPOINT),
        (ENDPOINT, ENDPOINT, ENDPOINT),
        (ENDPOINT, ELSEWHERE, None),
        (ENDPOINT, GATEWAY, None),
        (ENDPOINT, "issuer", None),
        (GATEWAY, ENDPOINT, ENDPOINT),
        (GATEWAY, "issuer", None),
        (None, ELSEWHERE, ELSEWHERE),
        (None, GATEWAY, GATEWAY),
        (None, f"{GATEWAY}/nothing", None),
    ],
)
def test_a_code_a_poll_and_a_refresh_are_for_what_was_asked_or_less(
    tmp_path: Path, meant: str | None, named: str | None, got: str | None
) -> None:
    async def played(app: App) -> None:
        asked = {"resource": meant, "authorization_details": BOTH}
        said = app.made.base if named == "issuer" else named
        code, polled = await app.code(None, **asked), await device_code(app, client_id="tv", **asked)
        device = {"grant_type": DEVICE, "device_code": polled, "client_id": "tv"}
        answers = [await app.redeem(code, resource=said), await app.token(**device, resource=said)]
        if got is None:
            assert [each.json()["error"] for each in answers] == ["invalid_target"] * 2
            later(app.made, 5)
            answers = [await app.redeem(code), await app.token(**device)]  # nothing was used up
        for answer, client in zip(answers, (app.client_id, "tv"), strict=True):
            told = answer.json()
            fresh = await app.token(**refreshing(told, resource=said, client_id=client))
            if got is None:
                assert fresh.json()["error"] == "invalid_target"
                fresh = await app.token(**refreshing(told, client_id=client))  # it was not spent
                assert audience(fresh) == audience(answer)
            else:
                assert audience(fresh) == audience(answer) == got
        assert await open_tasks(app) == 2

    at_gateway(tmp_path, played)


@pytest.mark.parametrize("way", ["authorize", "par", "device", "afar"])
def test_what_no_token_can_be_made_for_is_refused_before_a_human_is_asked(tmp_path: Path, way: str) -> None:
    async def played(app: App) -> None:
        more: dict[str, str | None] = {"resource": ELSEWHERE}
        if way == "authorize":
            assert answer_of(await authorization_page(app, **more))["error"] == "invalid_target"
            return
        if way == "par":
            answer = await pushed(app, **more)
        elif way == "afar":
            answer = await app.afar(**more)
        else:
            asked = app.polled_request(client_id="tv", **more)
            answer = await app.made.web.post("/oauth/device_authorization", data=asked)
        assert refused(answer)[:2] == (400, "invalid_target")
        assert not app.made.broker._approvals._kept

    at_gateway(tmp_path, played)


# -- or it is not used up ---------------------------------------------------------------------------------------------


def test_a_code_for_what_its_grant_has_not_is_not_used_up_and_opens_nothing(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        code = await app.code()
        assert refused(await app.redeem(code, resource=ELSEWHERE))[1] == "invalid_target"
        assert await open_tasks(app) == 0
        assert (await app.redeem(code)).status_code == 200
        assert await open_tasks(app) == 1
        again = await app.redeem(code, resource=ELSEWHERE)  # whatever it asks for, a second use ends it
        assert refused(again)[2] == "used"
        assert await open_tasks(app) == 0

    at_gateway(tmp_path, played)


@pytest.mark.parametrize("way", ["code", "device"])
def test_what_fails_after_a_task_was_opened_ends_the_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    async def played(app: App) -> None:
        code = await app.code() if way == "code" else await device_code(app, client_id="tv")
        device = {"grant_type": DEVICE, "device_code": code, "client_id": "tv"}
        monkeypatch.setattr("remit.broker.tokens.tokens.claims", _fails)
        answer = await (app.redeem(code) if way == "code" else app.token(**device))
        assert answer.status_code == 503
        assert [task.closed for task in await app.made.broker.tasks(OPERATOR)] == [True]

    at_gateway(tmp_path, played)
