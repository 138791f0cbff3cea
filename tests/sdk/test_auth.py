from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Generator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from remit.errors import InvalidRequestError, RevokedError
from remit.sdk.dpop import DPoPKey
from remit.sdk.grant import GrantProof, auth_of, origin
from remit.sdk.verbs import DPoPBinding, TokenResponse

GATEWAY = "http://127.0.0.1:8471"
ENDPOINT = "http://127.0.0.1:8470/oauth/token"
NOW = [1_800_000_000.0]
Handler = Callable[[httpx.Request], httpx.Response]


def holder(expires_in: int = 300, nonce: str | None = None) -> httpx.Auth:
    """Return the auth of a grant outside a run."""
    bound = DPoPBinding(DPoPKey(clock=lambda: NOW[0]), "http://127.0.0.1:8470", ENDPOINT, GATEWAY)
    return auth(TokenResponse("task_1", "grt_1", expires_in, [], "token-1", bound, nonce))


def auth(opened: TokenResponse) -> httpx.Auth:
    """Return the auth of a grant."""
    made: httpx.Auth = auth_of(httpx, GrantProof(opened, GATEWAY))
    return made


def get(auth: httpx.Auth, handler: Handler, url: str = f"{GATEWAY}/search/v1/x?q=1") -> httpx.Response:
    with httpx.Client(transport=httpx.MockTransport(handler), auth=auth) as http:
        return http.get(url)


def aget(auth: httpx.Auth, handler: Handler) -> httpx.Response:
    async def main() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.MockTransport(handler), auth=auth) as http:
            return await http.get(f"{GATEWAY}/search/v1/x?q=1")

    return asyncio.run(main())


BOTH = pytest.mark.parametrize("fetch", [get, aget], ids=["blocking", "async"])
Fetch = Callable[[httpx.Auth, Handler], httpx.Response]


class Server:
    """Demands a nonce, and remembers what it was sent."""

    def __init__(self, nonce: str | None = None) -> None:
        self.nonce, self.seen, self.nonces = nonce, list[httpx.Request](), list[str | None]()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        self.nonces.append(claims(request)["nonce"] if "dpop" in request.headers else None)
        headers = {"dpop-nonce": self.nonce} if self.nonce else {}
        if self.nonce and claims(request)["nonce"] != self.nonce:
            headers["www-authenticate"] = 'DPoP error="use_dpop_nonce"'
            return httpx.Response(401, headers=headers)
        if str(request.url) == ENDPOINT:
            return httpx.Response(200, json={"access_token": "token-2", "expires_in": 300}, headers=headers)
        return httpx.Response(200, headers=headers)


def claims(request: httpx.Request) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(base64.urlsafe_b64decode(request.headers["dpop"].split(".")[1] + "=="))
    return {"nonce": None, **read}


@BOTH
def test_a_request_carries_the_token_and_a_proof_for_it(fetch: Fetch) -> None:
    server = Server()
    assert fetch(holder(), server).status_code == 200
    [request] = server.seen
    assert request.headers["authorization"] == "DPoP token-1"
    assert claims(request)["htu"] == f"{GATEWAY}/search/v1/x"
    assert claims(request)["htm"] == "GET"


@BOTH
def test_a_nonce_that_is_asked_for_is_used_once_more_and_from_then_on(fetch: Fetch) -> None:
    server, auth = Server("n1"), holder()
    assert fetch(auth, server).status_code == 200
    assert fetch(auth, server).status_code == 200
    assert server.nonces == [None, "n1", "n1"]


@BOTH
def test_the_nonce_that_came_with_the_token_saves_the_refusal(fetch: Fetch) -> None:
    server = Server("n1")
    assert fetch(holder(nonce="n1"), server).status_code == 200
    assert len(server.seen) == 1


def test_a_server_that_never_is_content_is_asked_twice_and_no_more() -> None:
    seen: list[httpx.Request] = []

    def never(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        nonce = f"n{len(seen)}"
        return httpx.Response(401, headers={"dpop-nonce": nonce, "www-authenticate": 'DPoP error="use_dpop_nonce"'})

    assert get(holder(), never).status_code == 401
    assert len(seen) == 2


def test_a_refusal_for_another_reason_is_not_asked_again() -> None:
    seen: list[httpx.Request] = []

    def refuse(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(401, headers={"dpop-nonce": "n", "www-authenticate": 'DPoP error="invalid_token"'})

    assert get(holder(), refuse).status_code == 401
    assert len(seen) == 1


def test_a_new_proof_is_made_for_every_request() -> None:
    server, auth = Server(), holder()
    get(auth, server)
    get(auth, server)
    assert server.seen[0].headers["dpop"] != server.seen[1].headers["dpop"]


@BOTH
def test_a_token_about_to_end_is_renewed_first(fetch: Fetch) -> None:
    server, auth = Server("n1"), holder(expires_in=20)
    assert fetch(auth, server).status_code == 200
    renewals = [request for request in server.seen if str(request.url) == ENDPOINT]
    assert b"subject_token=token-1" in renewals[-1].read()
    assert server.seen[-1].headers["authorization"] == "DPoP token-2"


@BOTH
def test_a_renewal_that_is_refused_is_the_brokers_error(fetch: Fetch) -> None:
    def revoked(request: httpx.Request) -> httpx.Response:
        assert str(request.url) == ENDPOINT
        return httpx.Response(400, json={"error": "invalid_grant", "code": "revoked", "error_description": "revoked"})

    with pytest.raises(RevokedError):
        fetch(holder(expires_in=1), revoked)


@pytest.mark.parametrize(
    "url", ["https://127.0.0.1:8471/search", "http://127.0.0.1:9999/search", "http://evil.example/search"]
)
def test_the_token_goes_to_the_gateway_alone(url: str) -> None:
    server = Server()
    with pytest.raises(InvalidRequestError, match="does not go to the gateway"):
        get(holder(), server, url)
    with pytest.raises(InvalidRequestError):
        get(auth(TokenResponse("task_1", "grt_1", None, [])), server, url)
    assert server.seen == []


def test_in_a_run_the_grant_is_named_and_nothing_else() -> None:
    server = Server()
    get(auth(TokenResponse("task_1", "grt_1", None, [])), server)
    assert server.seen[0].headers["remit-grant"] == "grt_1"
    assert "authorization" not in server.seen[0].headers


def test_a_streamed_answer_is_not_read_by_the_auth() -> None:
    class Once(httpx.SyncByteStream):
        def __iter__(self) -> Generator[bytes, None, None]:
            yield b"one"
            pytest.fail("the auth read on")

    handler = httpx.MockTransport(lambda _: httpx.Response(200, stream=Once()))
    with httpx.Client(transport=handler, auth=holder()) as http, http.stream("GET", f"{GATEWAY}/search/x") as answer:
        assert next(answer.iter_raw()) == b"one"


def test_another_library_gets_an_auth_of_its_own_class() -> None:
    class Base:
        """Stands for httpx2.Auth."""

    made: Any = auth_of(SimpleNamespace(Auth=Base), GrantProof(TokenResponse("task_1", "grt_1", None, []), GATEWAY))
    assert Base in type(made).__mro__
    request = httpx.Request("GET", f"{GATEWAY}/search")
    steps: Generator[httpx.Request, httpx.Response, None] = made.sync_auth_flow(request)
    assert next(steps).headers["remit-grant"] == "grt_1"


def test_an_origin_knows_the_port_that_is_not_written() -> None:
    assert origin("https://a.example/x") == ("https", "a.example", 443)
    assert origin("http://a.example:8080/x") == ("http", "a.example", 8080)
