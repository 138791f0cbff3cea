"""What is believed of a provider, and what each of its answers means."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import pytest

from remit.core.connection import AuthorizationServer, ProviderClient, setting
from remit.core.secret import Secret
from remit.errors import (
    EngineRefusedError,
    GrantTokenError,
    InvalidRequestError,
    RemitError,
    UnavailableError,
    UnsupportedScopeError,
)
from remit.identity.providers import ReachedProviders, places

RESOURCE, ISSUER = "https://mcp.tracker.test/v1/mcp", "https://auth.tracker.test/tenant"
PRM = {"resource": RESOURCE, "authorization_servers": [ISSUER], "scopes_supported": ["read"]}
SERVER = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/authorize",
    "token_endpoint": f"{ISSUER}/token",
    "code_challenge_methods_supported": ["S256"],
    "authorization_response_iss_parameter_supported": True,
}
AT = AuthorizationServer(ISSUER, f"{ISSUER}/authorize", f"{ISSUER}/token", f"{ISSUER}/revoke", f"{ISSUER}/register")
GIVEN = {"access_token": "a-token-of-the-provider-1", "token_type": "Bearer", "expires_in": 60}


ENDPOINTS = ("authorization_endpoint", "token_endpoint", "revocation_endpoint", "registration_endpoint")


class Web:
    """Answers by URL, each host at its public address, and remembers what it was asked."""

    def __init__(
        self, answers: Mapping[str, Any], address: str = "93.184.216.34", status: int = 200, challenge: str = ""
    ) -> None:
        self.answers, self.address, self.status, self.challenge = answers, address, status, challenge
        self.asked: list[str] = []
        self.requests: list[httpx.Request] = []

    def _answer(self, request: httpx.Request) -> httpx.Response:
        assert request.url.host == self.address
        url = f"{request.url.scheme}://{request.headers['host']}{request.url.path}"
        self.asked.append(url)
        self.requests.append(request)
        if url == RESOURCE and self.challenge:
            return httpx.Response(401, headers={"www-authenticate": self.challenge})
        found = self.answers.get(url)
        return httpx.Response(404) if found is None else httpx.Response(self.status, json=found)

    async def _lookup(self, host: str, port: int) -> Sequence[str]:  # noqa: ARG002 - alike
        return [self.address]

    @property
    def reached(self) -> ReachedProviders:
        return ReachedProviders(lambda: httpx.MockTransport(self._answer), self._lookup)


PATH = "https://mcp.tracker.test/.well-known/oauth-protected-resource/v1/mcp"
INSERTED = "https://auth.tracker.test/.well-known/oauth-authorization-server/tenant"


CUSTOM = "https://mcp.tracker.test/custom/metadata.json"


def discovered(
    web: Web, issuer: str | None = None, near: tuple[str, ...] = (), *, messages: bool = False
) -> AuthorizationServer:
    return asyncio.run(web.reached.discover_provider(RESOURCE, issuer, near, messages=messages))


@pytest.mark.parametrize("at", [PATH, "https://mcp.tracker.test/.well-known/oauth-protected-resource"])
@pytest.mark.parametrize("place", range(3))
def test_a_resource_says_who_its_provider_is_and_that_what_it_is_at_each_place(at: str, place: int) -> None:
    web = Web({at: PRM, places(ISSUER)[place]: SERVER})
    found = discovered(web)
    assert (found.issuer, found.audience, found.scopes, found.names_itself) == (ISSUER, RESOURCE, ("read",), True)
    assert found.token_endpoint == f"{ISSUER}/token"
    assert web.asked[-place - 1 :] == list(places(ISSUER)[: place + 1])


@pytest.mark.parametrize("messages", [False, True])
def test_a_resource_says_where_that_is_and_what_it_needs_to_whoever_comes_without_a_token(*, messages: bool) -> None:
    wants = f'Bearer resource_metadata="{CUSTOM}", scope="issues:read issues:write"'
    web = Web(
        {CUSTOM: PRM, PATH: {**PRM, "authorization_servers": ["https://other.test"]}, INSERTED: SERVER}, challenge=wants
    )
    found = discovered(web, messages=messages)
    assert (found.issuer, found.scopes) == (ISSUER, ("issues:read", "issues:write"))
    assert web.asked[:2] == [RESOURCE, CUSTOM]
    assert PATH not in web.asked
    first = web.requests[0]
    assert "authorization" not in first.headers
    said = (first.method, json.loads(first.content)["method"] if messages else first.content)
    assert said == (("POST", "tools/list") if messages else ("GET", b""))


@pytest.mark.parametrize("wants", ['Bearer scope="read"', 'Basic realm="x"', "Bearer", 'Bearer error="invalid_token"'])
def test_what_a_challenge_does_not_say_is_at_the_places_that_everybody_knows(wants: str) -> None:
    assert discovered(Web({PATH: PRM, INSERTED: SERVER}, challenge=wants)).scopes == ("read",)


@pytest.mark.parametrize(
    ("at", "says"),
    [
        ("http://mcp.tracker.test/custom/metadata.json", "must be https"),
        ("/custom/metadata.json", "not a URL"),
        (PATH, "another resource"),
        ("https://mcp.tracker.test/nothing", "does not say who its provider is"),
    ],
)
def test_where_a_challenge_leads_has_to_be_right_and_nothing_else_is_looked_at(at: str, says: str) -> None:
    web = Web(
        {PATH: {**PRM, "resource": "https://other.test"}, INSERTED: SERVER},
        challenge=f'Bearer resource_metadata="{at}"',
    )
    with pytest.raises(EngineRefusedError, match=says):
        discovered(web)
    assert INSERTED not in web.asked


def test_the_places_are_those_of_mcp_in_its_order() -> None:
    assert places("https://a.test/t") == (
        "https://a.test/.well-known/oauth-authorization-server/t",
        "https://a.test/.well-known/openid-configuration/t",
        "https://a.test/t/.well-known/openid-configuration",
    )
    assert places("https://a.test") == (
        "https://a.test/.well-known/oauth-authorization-server",
        "https://a.test/.well-known/openid-configuration",
    )


@pytest.mark.parametrize(
    ("prm", "server", "says"),
    [
        ({**PRM, "resource": "https://other.test/mcp"}, SERVER, "another resource"),
        ({**PRM, "resource": f"{RESOURCE}/deeper"}, SERVER, "another resource"),
        ({**PRM, "authorization_servers": []}, SERVER, "not a URL"),
        ({**PRM, "authorization_servers": ["http://auth.tracker.test/tenant"]}, SERVER, "must be https"),
        (PRM, {**SERVER, "issuer": f"{ISSUER}/"}, "about another issuer"),
        (PRM, {**SERVER, "code_challenge_methods_supported": ["plain"]}, "PKCE"),
        (PRM, {key: value for key, value in SERVER.items() if key != "code_challenge_methods_supported"}, "PKCE"),
        (PRM, {**SERVER, "token_endpoint": "http://auth.tracker.test/token"}, "must be https"),
        (None, SERVER, "does not say who its provider is"),
        (PRM, None, "does not publish what it is"),
    ],
)
def test_what_does_not_fit_is_no_provider(prm: object, server: object, says: str) -> None:
    with pytest.raises(EngineRefusedError, match=says):
        discovered(Web({PATH: prm, INSERTED: server}))


def test_no_resource_leads_us_into_a_network_of_our_own() -> None:
    with pytest.raises(InvalidRequestError, match="not on the public Internet"):
        discovered(Web({PATH: PRM, INSERTED: SERVER}, address="10.0.0.1"))
    found = discovered(Web({INSERTED: SERVER}, address="10.0.0.1"), ISSUER, ("auth.tracker.test",))
    assert found.near == ("auth.tracker.test",)


@pytest.mark.parametrize("at", ["https://10.0.0.1/x", "https://inside.tracker.test/x", "https://127.0.0.1:2375/x"])
def test_a_host_that_only_the_provider_names_is_on_the_public_internet(at: str) -> None:
    """That the issuer may be near says nothing of where it says that its endpoints are."""
    web = Web({INSERTED: {**SERVER, **dict.fromkeys(ENDPOINTS, at)}}, address="10.0.0.1")
    provider = discovered(web, ISSUER, ("auth.tracker.test",))
    form, client = Secret({"grant_type": "refresh_token", "refresh_token": "r"}), ProviderClient("remit")
    for ask in (
        lambda: web.reached.obtain_tokens(provider, client, form),
        lambda: web.reached.revoke_token(provider, client, Secret("r")),
        lambda: web.reached.register_client(provider, "remit", "https://remit.test/back"),
    ):
        with pytest.raises(InvalidRequestError, match="not on the public Internet"):
            asyncio.run(ask())
    assert web.asked == [INSERTED]


@pytest.mark.parametrize("name", ENDPOINTS)
def test_what_goes_to_an_issuer_of_https_goes_by_https(name: str) -> None:
    with pytest.raises(EngineRefusedError, match=f"its {name} must be https, as the issuer is"):
        discovered(Web({INSERTED: {**SERVER, name: "http://127.0.0.1:2375/x"}}), ISSUER)
    oauth = {"issuer": ISSUER, "client_id": "remit", **{one: f"{ISSUER}/{one}" for one in ENDPOINTS}}
    with pytest.raises(InvalidRequestError, match="must be https, as the issuer is"):
        setting({"oauth": {**oauth, name: "http://127.0.0.1:2375/x"}})


def asked(web: Web, client: ProviderClient | None = None, **more: str) -> object:
    form = Secret({"grant_type": "refresh_token", "refresh_token": "r", **more})
    return asyncio.run(web.reached.obtain_tokens(AT, client or ProviderClient("remit"), form))


@pytest.mark.parametrize(
    ("status", "answer", "error"),
    [
        (400, {"error": "invalid_grant"}, GrantTokenError),
        (200, {"error": "invalid_grant"}, GrantTokenError),  # as GitHub says no
        (401, {"error": "invalid_client"}, EngineRefusedError),
        (400, {"error": "invalid_scope"}, EngineRefusedError),  # for no scope was asked for
        (400, {"error": "<script>"}, EngineRefusedError),
        (503, {"error": "invalid_grant"}, UnavailableError),
        (429, {}, UnavailableError),
        (200, {**GIVEN, "token_type": "DPoP"}, EngineRefusedError),
        (200, {**GIVEN, "access_token": "short"}, EngineRefusedError),
        (200, {**GIVEN, "access_token": "with a line\nand another one"}, EngineRefusedError),
        (200, [], EngineRefusedError),
    ],
)
def test_each_answer_of_a_token_endpoint_means_one_thing(status: int, answer: object, error: type[RemitError]) -> None:
    with pytest.raises(error) as caught:
        asked(Web({AT.token_endpoint: answer}, status=status))
    assert type(caught.value) is error
    assert "<script>" not in caught.value.detail


def test_a_scope_that_was_asked_for_may_be_one_that_the_provider_does_not_give() -> None:
    with pytest.raises(UnsupportedScopeError):
        asked(Web({AT.token_endpoint: {"error": "invalid_scope"}}, status=400), scope="read")


@pytest.mark.parametrize(("said", "lifetime"), [(60, 60), ("60", 60), (0, None), (None, None), (-1, None), ("x", None)])
def test_a_lifetime_is_a_number_or_is_not_said(said: object, lifetime: int | None) -> None:
    found = asked(Web({AT.token_endpoint: {**GIVEN, "expires_in": said}}))
    assert getattr(found, "lifetime", ...) == lifetime


def test_a_client_shows_its_secret_as_the_provider_wants_it() -> None:
    web = Web({AT.token_endpoint: GIVEN})
    secret = Secret("s:e/c ret")
    for method in ("none", "client_secret_basic", "client_secret_post"):
        asked(web, ProviderClient("remit 1", method, None if method == "none" else secret))
    none, basic, post = (request.content.decode() for request in web.requests)
    assert none.endswith("client_id=remit+1")
    assert "client_id" not in basic
    shown = web.requests[1].headers["authorization"].removeprefix("Basic ")
    assert b64decode(shown) == b"remit+1:s%3Ae%2Fc+ret"
    assert post.endswith("client_secret=s%3Ae%2Fc+ret")


def test_a_revocation_is_told_and_a_registration_is_asked_for_one_place() -> None:
    web = Web({f"{ISSUER}/revoke": {}, f"{ISSUER}/register": {"client_id": "c-1"}}, status=200)
    asyncio.run(web.reached.revoke_token(AT, ProviderClient("remit"), Secret("r")))
    assert b"token=r" in web.requests[0].content
    made = asyncio.run(web.reached.register_client(AT, "remit", "https://remit.test/oauth/connected/tracker"))
    assert made == ProviderClient("c-1", "none")
    told = json.loads(web.requests[1].content)
    assert told["redirect_uris"] == ["https://remit.test/oauth/connected/tracker"]
    assert (told["token_endpoint_auth_method"], told["application_type"]) == ("none", "web")
