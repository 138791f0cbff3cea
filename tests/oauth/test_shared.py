"""What pages of any origin may call and read (CORS): discovery, tokens, revocation; never `/v1`, no page of ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.oauth.consent_driver import App, scene

ORIGIN = {"origin": "https://page.test"}
SHARED = (
    ("GET", "/.well-known/oauth-authorization-server"),
    ("GET", "/.well-known/oauth-protected-resource"),
    ("GET", "/.well-known/oauth-protected-resource/v1/self"),
    ("GET", "/oauth/jwks"),
    ("GET", "/oauth/status/1"),
    ("POST", "/oauth/token"),
    ("POST", "/oauth/par"),
    ("POST", "/oauth/revoke"),
)
OWN = (("POST", "/oauth/consent"), ("POST", "/v1/approvals"), ("POST", "/oauth/device"), ("POST", "/oauth/introspect"))


@pytest.mark.parametrize(("method", "path"), SHARED)
def test_a_page_of_any_origin_may_call_and_read(tmp_path: Path, method: str, path: str) -> None:
    async def played(app: App) -> None:
        asked = {**ORIGIN, "access-control-request-method": method, "access-control-request-headers": "dpop"}
        preflight = await app.made.web.options(path, headers=asked)
        assert preflight.status_code == 204
        assert "DPoP" in preflight.headers["access-control-allow-headers"]
        answer = await app.made.web.request(method, path, headers=ORIGIN)
        assert answer.json().get("code") != "denied" if path != "/oauth/status/1" else answer.status_code == 200
        for each in (preflight, answer):
            assert each.headers["access-control-allow-origin"] == "*"
            assert "DPoP-Nonce" in each.headers["access-control-expose-headers"]
            assert "access-control-allow-credentials" not in each.headers
        foreign = await app.made.web.request(method, path, headers={**ORIGIN, "host": "rebound.test"})
        assert foreign.status_code == 421

    scene(tmp_path, played)


@pytest.mark.parametrize(("method", "path"), OWN)
def test_nothing_else_is_shared(tmp_path: Path, method: str, path: str) -> None:
    async def played(app: App) -> None:
        asked = {**ORIGIN, "access-control-request-method": method}
        for answer in (
            await app.made.web.options(path, headers=asked),
            await app.made.web.request(method, path, headers=ORIGIN),
        ):
            assert answer.status_code >= 400
            assert not any(name.startswith("access-control-") for name in answer.headers)

    scene(tmp_path, played)


def test_a_browser_redeems_a_code_from_a_page_of_its_own(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        form = {"client_id": app.client_id, **app.redeeming(await app.code())}
        headers = {**ORIGIN, "dpop": app.proof("/oauth/token")}
        answer = await app.made.web.post("/oauth/token", data=form, headers=headers)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "*")

    scene(tmp_path, played)
