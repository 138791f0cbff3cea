"""OAuth libraries that make no proofs, as most are: a token where a resource takes bearers, else the reason why not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
import requests_oauthlib
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.requests_client import OAuth2Session
from httpx_oauth.oauth2 import BaseOAuth2, OAuth2RequestError
from oauthlib.oauth2 import OAuth2Error

from remit import jose
from remit.core.secret import Secret
from remit.ports import Resource
from tests.broker.world import search
from tests.live import idp
from tests.live.fleet import SEARCH, claims_of
from tests.live.idp import Provider
from tests.live.test_clients import APP, Stage, stage
from tests.support.upstream import Upstream

pytestmark = pytest.mark.live

SCOPES: Mapping[str, object] = {"search": {"authorization_details": [SEARCH], "purpose": "find things", "ttl": 900}}
REDIRECT = "http://127.0.0.1:8123/cb"
VERIFIER = "v" * 43
LIBRARIES = ["oidc-client-ts", "passport-oauth2", "simple-oauth2"]
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


PYTHON = {"authlib": _authlib, "requests-oauthlib": _requests_oauthlib, "httpx-oauth": _httpx_oauth}


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
