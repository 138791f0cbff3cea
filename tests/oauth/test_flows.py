"""The flows in which a human decides are there as a whole, or not at all; and what discovery says of them is true."""

from __future__ import annotations

from pathlib import Path

from remit.compose.app import routes
from remit.core.principal import Holder
from tests.oauth.consent_driver import ALICE, APP, CIBA, DEVICE, App, browser, scene
from tests.oauth.plane import access

ENDPOINTS = {
    "authorization_endpoint": "/oauth/authorize",
    "pushed_authorization_request_endpoint": "/oauth/par",
    "device_authorization_endpoint": "/oauth/device_authorization",
    "backchannel_authentication_endpoint": "/oauth/bc-authorize",
}
FLOWS = {*ENDPOINTS.values(), "/oauth/consent", "/oauth/callback", "/oauth/callback/{number}", "/oauth/device"}
WAYS = {"authorization_code", DEVICE, CIBA, "refresh_token"}


def test_every_endpoint_that_is_named_is_there_and_every_grant_type_is_taken(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        known = (await app.made.web.get("/.well-known/oauth-authorization-server")).json()
        for name, path in ENDPOINTS.items():
            assert known[name] == app.made.base + path
            ask = app.made.web.get if name == "authorization_endpoint" else app.made.web.post
            assert (await ask(path)).status_code == 400, name
        assert set(known["grant_types_supported"]) >= WAYS
        for way in known["grant_types_supported"]:
            assert (await app.token(grant_type=way)).json()["error"] != "unsupported_grant_type"
        assert known["response_types_supported"] == ["code"]
        assert known["code_challenge_methods_supported"] == ["S256"]
        assert known["authorization_response_iss_parameter_supported"] is True
        assert known["client_id_metadata_document_supported"] is False

    scene(tmp_path, played)


def test_without_anywhere_to_log_in_there_is_none_of_them(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        assert {row.path for row in routes(app.made.deps)} & FLOWS == set()
        known = (await app.made.web.get("/.well-known/oauth-authorization-server")).json()
        assert set(known["grant_types_supported"]) & WAYS == set()
        for way in WAYS:
            assert (await app.token(grant_type=way)).json()["error"] == "unsupported_grant_type"
        assert (await browser(app.made).get("/approvals/apr_x")).status_code == 404

    scene(tmp_path, played, logins=None)


def test_no_flow_begins_on_a_socket(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        channel = await app.made.channel(Holder("task_x", "grt_x"))
        for client in (channel, app.made.control):
            for path in ENDPOINTS.values():
                ask = client.get if path == "/oauth/authorize" else client.post
                assert (await ask(path)).status_code in {400, 404}, path
            answer = await client.post("/oauth/device_authorization", data=app.polled_request())
            assert answer.json()["code"] == "not-found"

    scene(tmp_path, played)


def test_only_pages_are_for_anybody(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        found = {row.path: access(row) for row in routes(app.made.deps) if row.path in FLOWS}
        proving = {"/oauth/par", "/oauth/device_authorization", "/oauth/bc-authorize"}
        assert found == {path: "proving" if path in proving else "public" for path in FLOWS}

    scene(tmp_path, played)


def test_the_audit_leads_from_the_task_to_the_human_and_the_client(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        told = (await app.redeem(await app.code())).json()
        events = await app.made.world.events()
        (opened,) = [one for one in events if one.event == "task.open" and one.decision == "allow"]
        assert (opened.grant, opened.subject, opened.key) == (told["grant"], ALICE, app.agent.signer.kid)
        asked, approved = (
            next(one for one in events if one.event == name and one.approval == opened.approval)
            for name in ("approval.ask", "approval.approve")
        )
        assert (opened.client, asked.client, asked.cause) == (APP, APP, None)
        assert (approved.subject, approved.detail_s256) == (ALICE, asked.detail_s256)

    scene(tmp_path, played)
