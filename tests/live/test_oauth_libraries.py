"""OAuth libraries that make no proofs, as most are: a token where a resource takes bearers, else the reason why not."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit
from uuid import uuid4

import httpx
import pytest
import requests
import requests_oauthlib
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.requests_client import OAuth2Session
from google.auth import identity_pool, pluggable
from google.auth.exceptions import OAuthError
from google.auth.transport.requests import Request as Transport
from httpx_oauth.oauth2 import BaseOAuth2, OAuth2RequestError
from oauthlib.oauth2 import OAuth2Error, WebApplicationClient

from remit import jose
from remit.core.secret import Secret
from remit.ports import Resource
from tests.broker.world import search
from tests.live import idp
from tests.live.fleet import ACCESS_TOKEN, EXCHANGE, SEARCH, claims_of
from tests.live.idp import Provider
from tests.live.test_clients import APP, KEYED, OWN, Stage, stage
from tests.support.upstream import Upstream

pytestmark = pytest.mark.live

SCOPES: Mapping[str, object] = {"search": {"authorization_details": [SEARCH], "purpose": "find things", "ttl": 900}}
REDIRECT = "http://127.0.0.1:8123/cb"
VERIFIER = "v" * 43
LIBRARIES = ["@badgateway/oauth2-client", "client-oauth2", "oidc-client-ts", "passport-oauth2", "simple-oauth2"]
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"
FORM = {"content-type": "application/x-www-form-urlencoded"}
Source = Callable[[Path], Mapping[str, object]]
WHY = "there is no DPoP proof and no client certificate"


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    """Serve a real identity provider."""
    with idp.served() as found:
        yield found


def play(directory: Path, provider: Provider, scene: Callable[[Stage], Awaitable[None]], *, bear: bool = True) -> None:
    """Run a scene at a broker whose resource `search` takes bearers, or does not."""

    async def main() -> None:
        async with stage(directory, provider, SCOPES) as found, Upstream() as up:
            application = found.edges.application
            resource = Resource("search", "http", up.url, search().bound, None, {"bearer": bear})
            await application.broker.put_resource(application.operator, resource, Secret("sk-canary-0123456789"))
            await scene(found)

    asyncio.run(main())


async def _used(found: Stage, told: Mapping[str, Any]) -> int:
    """Use a token as a bearer does; return the status."""
    assert (str(told["token_type"]).lower(), told["scope"]) == ("bearer", "search")
    gateway = found.edges.application.settings.gateway
    assert gateway is not None
    assert claims_of(told["access_token"])["aud"] == f"{gateway.url}/search"
    async with httpx.AsyncClient(trust_env=False) as client:
        headers = {"authorization": f"Bearer {told['access_token']}"}
        return (await client.get(f"{gateway.url}/search/v1/items", headers=headers)).status_code


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_of_javascript_gets_a_token_that_works_and_refreshes_it(
    tmp_path: Path, provider: Provider, library: str
) -> None:
    async def scene(found: Stage) -> None:
        said = await found.flow("libraries", library, scope="search", redirect=REDIRECT)
        assert "done" in said, said
        assert await _used(found, said["done"]["first"]) == 200
        assert await _used(found, {"scope": "search", **said["done"]["again"]}) == 200

    play(tmp_path, provider, scene)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_of_javascript_is_told_why_not(tmp_path: Path, provider: Provider, library: str) -> None:
    async def scene(found: Stage) -> None:
        said = await found.flow("libraries", library, scope="search", redirect=REDIRECT)
        assert WHY in said["failed"], said
        unknown = await found.flow("libraries", library, scope="mail", redirect=REDIRECT)
        assert "is not a scope that this client can ask for" in unknown["failed"], unknown

    play(tmp_path, provider, scene, bear=False)


def _code(found: Stage, url: str) -> str:
    return dict(parse_qsl(urlsplit(found.human.visit(url)).query))["code"]


def _authlib(found: Stage) -> Mapping[str, Any]:
    session = OAuth2Session(APP, redirect_uri=REDIRECT, scope="search", code_challenge_method="S256")
    session.trust_env = False
    url, _ = session.create_authorization_url(f"{found.issuer}/oauth/authorize", code_verifier=VERIFIER)
    session.fetch_token(f"{found.issuer}/oauth/token", code=_code(found, url), code_verifier=VERIFIER)
    return dict(session.refresh_token(f"{found.issuer}/oauth/token"))


def _requests_oauthlib(found: Stage) -> Mapping[str, Any]:
    session = requests_oauthlib.OAuth2Session(APP, redirect_uri=REDIRECT, scope=["search"], pkce="S256")
    session.trust_env = False
    url, _ = session.authorization_url(f"{found.issuer}/oauth/authorize")
    session.fetch_token(f"{found.issuer}/oauth/token", code=_code(found, url), include_client_id=True)
    told = session.refresh_token(f"{found.issuer}/oauth/token", client_id=APP)
    return {**told, "scope": " ".join(told["scope"])}


def _httpx_oauth(found: Stage) -> Mapping[str, Any]:
    client: BaseOAuth2[Any] = BaseOAuth2(
        APP, "none", f"{found.issuer}/oauth/authorize", f"{found.issuer}/oauth/token", f"{found.issuer}/oauth/token"
    )

    async def flow() -> Mapping[str, Any]:
        url = await client.get_authorization_url(
            REDIRECT, scope=["search"], code_challenge=jose.digest(VERIFIER), code_challenge_method="S256"
        )
        code = await asyncio.to_thread(_code, found, url)
        first = await client.get_access_token(code, REDIRECT, VERIFIER)
        return dict(await client.refresh_token(first["refresh_token"]))

    return asyncio.run(flow())


def _oauthlib(found: Stage) -> Mapping[str, Any]:
    client = WebApplicationClient(APP)
    url = client.prepare_request_uri(
        f"{found.issuer}/oauth/authorize", REDIRECT, ["search"], "a-state",
        code_challenge=jose.digest(VERIFIER), code_challenge_method="S256",
    )  # fmt: skip
    with httpx.Client(trust_env=False, headers=FORM) as http:
        body = client.prepare_request_body(_code(found, url), REDIRECT, code_verifier=VERIFIER)
        client.parse_request_body_response(http.post(f"{found.issuer}/oauth/token", content=body).text)
        again = client.prepare_refresh_body(client_id=APP)
        told = client.parse_request_body_response(http.post(f"{found.issuer}/oauth/token", content=again).text)
    return {**told, "scope": " ".join(told["scope"])}


PYTHON = {
    "oauthlib": _oauthlib,
    "authlib": _authlib,
    "requests-oauthlib": _requests_oauthlib,
    "httpx-oauth": _httpx_oauth,
}


@pytest.mark.parametrize("library", PYTHON)
def test_a_library_of_python_gets_a_token_that_works_and_refreshes_it(
    tmp_path: Path, provider: Provider, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")  # an issuer on loopback, without TLS

    async def scene(found: Stage) -> None:
        assert await _used(found, await asyncio.to_thread(PYTHON[library], found)) == 200

    play(tmp_path, provider, scene)


@pytest.mark.parametrize("library", PYTHON)
def test_a_library_of_python_is_told_why_not(
    tmp_path: Path, provider: Provider, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")

    async def scene(found: Stage) -> None:
        with pytest.raises((AuthlibBaseError, OAuth2Error, OAuth2RequestError)) as caught:
            await asyncio.to_thread(PYTHON[library], found)
        answer = getattr(caught.value, "response", None)  # of which httpx-oauth says nothing by itself
        assert WHY in (str(caught.value) if answer is None else answer.text)

    play(tmp_path, provider, scene, bear=False)


# -- libraries of other languages, by the very requests that they send; they were not run ------------------------------


def _authorized(found: Stage, **more: str) -> str:
    """Return the code that a browser comes back with from the authorization request that these libraries make."""
    asked = {"response_type": "code", "client_id": APP, "redirect_uri": REDIRECT, "scope": "search", "state": "a-state"}
    pkce = {"code_challenge": jose.digest(VERIFIER), "code_challenge_method": "S256"}
    return _code(found, str(httpx.URL(f"{found.issuer}/oauth/authorize", params={**asked, **pkce, **more})))


def _go(found: Stage) -> httpx.Response:
    """Go's x/oauth2, which finds out how the client authenticates: first Basic, then without."""
    code = _authorized(found, access_type="offline")
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT, "code_verifier": VERIFIER}
    with httpx.Client(trust_env=False) as http:
        first = http.post(f"{found.issuer}/oauth/token", data=form, auth=(APP, ""))
        assert (first.status_code, first.json()["error"]) == (401, "invalid_client")
        assert first.headers["www-authenticate"].startswith("Basic")
        return http.post(f"{found.issuer}/oauth/token", data={**form, "client_id": APP})


def _spring(found: Stage) -> httpx.Response:
    """Spring Security's `oauth2Login`, for a client whose authentication method is `none`."""
    form = {"grant_type": "authorization_code", "code": _authorized(found), "redirect_uri": REDIRECT}
    headers = {"accept": "application/json", "content-type": "application/x-www-form-urlencoded;charset=UTF-8"}
    body = urlencode({**form, "client_id": APP, "code_verifier": VERIFIER})
    with httpx.Client(trust_env=False, headers=headers) as http:
        return http.post(f"{found.issuer}/oauth/token", content=body)


def _google(found: Stage) -> httpx.Response:
    """google-auth for a workforce, which sends `options`; what it sends else is run below."""
    gateway = found.edges.application.settings.gateway
    assert gateway is not None
    form = {
        "grant_type": EXCHANGE,
        "audience": f"{gateway.url}/search",
        "scope": "search",
        "requested_token_type": ACCESS_TOKEN,
        "subject_token": _id_token(found),
        "subject_token_type": ID_TOKEN,
        "options": '{"userProject":"1"}',
    }
    with httpx.Client(trust_env=False) as http:
        return http.post(f"{found.issuer}/oauth/token", data=form)


RAW = {"x/oauth2 of Go": _go, "Spring Security": _spring, "google-auth": _google}


@pytest.mark.parametrize("library", RAW)
def test_the_requests_of_other_libraries_get_a_token_that_works(
    tmp_path: Path, provider: Provider, library: str
) -> None:
    async def scene(found: Stage) -> None:
        answer = await asyncio.to_thread(RAW[library], found)
        assert answer.status_code == 200, answer.text
        assert await _used(found, answer.json()) == 200

    play(tmp_path, provider, scene)


@pytest.mark.parametrize("library", RAW)
def test_the_requests_of_other_libraries_are_told_why_not(tmp_path: Path, provider: Provider, library: str) -> None:
    async def scene(found: Stage) -> None:
        answer = await asyncio.to_thread(RAW[library], found)
        assert answer.status_code == 400
        assert WHY in answer.json()["error_description"]

    play(tmp_path, provider, scene, bear=False)


# -- google-auth, `external_account`: an ID token from a file or a program, exchanged (RFC 8693) ----------------------


def _id_token(found: Stage) -> str:
    now = int(time.time())
    claims = {"iss": found.provider.issuer, "sub": "alice", "aud": "remit", "iat": now, "exp": now + 300}
    return found.provider.sign({**claims, "jti": uuid4().hex}, typ="JWT")


def _from_file(told: Path) -> Mapping[str, object]:
    return {"file": str(told), "format": {"type": "json", "subject_token_field_name": "id_token"}}


def _from_program(told: Path) -> Mapping[str, object]:
    return {"executable": {"command": f"/bin/cat {told}", "timeout_millis": 5000}}


def _account(found: Stage, source: Mapping[str, object]) -> Any:
    """Return credentials by what a file of `external_account` says, as Google's libraries load it."""
    gateway = found.edges.application.settings.gateway
    assert gateway is not None
    info = {
        "type": "external_account",
        "audience": f"{gateway.url}/search",
        "subject_token_type": ID_TOKEN,
        "token_url": f"{found.issuer}/oauth/token",
        "credential_source": source,
    }
    module = identity_pool if "file" in source else pluggable
    return module.Credentials.from_info(info, scopes=["search"])


def _say(found: Stage, told: Path) -> None:
    """Have a fresh ID token where the source has it."""
    token, soon = _id_token(found), int(time.time()) + 60
    said = {"version": 1, "success": True, "token_type": ID_TOKEN, "id_token": token, "expiration_time": soon}
    told.write_text(json.dumps(said))


def _refreshed(account: Any) -> str:
    """Have the library exchange what the source says; return the access token."""
    session = requests.Session()
    session.trust_env = False
    with session:
        account.refresh(Transport(session))
    return str(account.token)


@pytest.mark.parametrize("source", [_from_file, _from_program])
def test_google_auth_exchanges_an_id_token_for_a_token_that_works(
    tmp_path: Path, provider: Provider, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES", "1")
    told = tmp_path / "id.json"

    async def scene(found: Stage) -> None:
        account = _account(found, source(told))
        for _ in range(2):  # the second time is what the library does when its token is old
            _say(found, told)
            token = await asyncio.to_thread(_refreshed, account)
            assert await _used(found, {"token_type": "bearer", "scope": "search", "access_token": token}) == 200
        with pytest.raises(OAuthError, match="used"):
            await asyncio.to_thread(_refreshed, account)

    play(tmp_path, provider, scene)


def test_google_auth_is_told_why_not(tmp_path: Path, provider: Provider) -> None:
    async def scene(found: Stage) -> None:
        told = tmp_path / "id.json"
        _say(found, told)
        with pytest.raises(OAuthError, match=WHY):
            await asyncio.to_thread(_refreshed, _account(found, _from_file(told)))

    play(tmp_path, provider, scene, bear=False)


# -- from afar (OpenID Connect CIBA, poll mode) -----------------------------------------------------------------------

FROM_AFAR = {"scope": "openid search", "login_hint": "alice", "binding_message": "W4SH"}


def test_a_client_of_ciba_asks_and_polls_with_what_ciba_has_alone(tmp_path: Path, provider: Provider) -> None:
    async def scene(found: Stage) -> None:
        said = await found.flow("openid-client", "ciba", client=KEYED, key=OWN.as_dict(private=True), asked=FROM_AFAR)
        assert "done" in said, said
        assert 590 < said["done"]["asked"]["expires_in"] <= 600  # less what its way took
        assert said["done"]["asked"]["interval"] == 5
        assert any("W4SH" in page for page in found.human.pages)
        for told in (said["done"]["first"], {"scope": "search", **said["done"]["again"]}):
            assert await _used(found, told) == 200
            assert claims_of(told["access_token"])["client_id"] == KEYED
        assert "id_token" not in said["done"]["first"]  # docs/explanation/limits.md

    play(tmp_path, provider, scene)


def test_a_client_of_ciba_is_told_why_not(tmp_path: Path, provider: Provider) -> None:
    async def scene(found: Stage) -> None:
        said = await found.flow("openid-client", "ciba", client=KEYED, key=OWN.as_dict(private=True), asked=FROM_AFAR)
        assert said["error"] == "invalid_dpop_proof", said
        public = await found.flow("openid-client", "ciba", asked=FROM_AFAR)
        assert public["failed"].startswith("OAUTH_"), public

    play(tmp_path, provider, scene, bear=False)
