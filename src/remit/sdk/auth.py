"""How a request to the gateway says under which grant it is made.

- In a run identity is the channel: ``Remit-Grant`` names the grant, and nothing secret is sent.
- Outside a run: a DPoP-bound token, with a proof a request and the server's nonce; renewed before it ends.
- Either is an ``httpx.Auth``; ``flavour`` makes the same for another library of that interface (httpx2).
- The gateway alone is ever told: a request elsewhere is refused before it is sent.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx

from remit.errors import InvalidRequestError
from remit.sdk import verbs
from remit.sdk._wire import error_of

HEADER = "Remit-Grant"
EARLY = 30.0  # seconds before its end at which a token is renewed
Steps = Generator[Any, Any, None]  # requests and responses of whichever library


class Steppable(Protocol):
    """What signs requests, whatever library sends them."""

    def steps(self, request: Any) -> Steps:
        """Yield what is to be sent in order, ``request`` last; receive the answers."""
        ...


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Return scheme, host and port of a URL."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, port


def _check(request: Any, gateway: str) -> None:
    if origin(str(request.url)) != origin(gateway):
        raise InvalidRequestError(
            "this request does not go to the gateway", help="build its URL with `grant.url(resource)`"
        )


class _Channel:
    """Names a grant; the channel proves it."""

    def __init__(self, grant: str, gateway: str) -> None:
        self.grant, self.gateway = grant, gateway

    def steps(self, request: Any) -> Steps:
        """Set the header."""
        _check(request, self.gateway)
        request.headers[HEADER] = self.grant
        yield request


class _Proof:
    """Holds a token and the key it is bound to, and remembers each server's nonce."""

    def __init__(
        self, token: str, bound_to: verbs.DPoPBinding, expires_in: int, gateway: str, nonce: str | None = None
    ) -> None:
        """Sign for the grant of ``token``, which ends in ``expires_in`` seconds."""
        self.key, self.gateway, self.endpoint = bound_to.key, gateway, bound_to.endpoint
        self._token, self._ends = token, self.key.now() + expires_in
        self._nonces: dict[tuple[str, str | None, int | None], str] = {origin(gateway): nonce} if nonce else {}

    def steps(self, request: Any) -> Steps:
        """Renew the token if it is about to end, then send the request, again if the server names a nonce."""
        _check(request, self.gateway)
        if self.key.now() > self._ends - EARLY:
            yield from self._renew(type(request))
        request.headers["Authorization"] = f"DPoP {self._token}"
        yield from self._proven(request, self._token)

    def _proven(self, request: Any, token: str | None) -> Generator[Any, Any, Any]:
        url, place = str(request.url), origin(str(request.url))
        used = self._nonces.get(place)
        request.headers["DPoP"] = self.key.proof(request.method, url, token=token, nonce=used)
        response = yield request
        if not self._learn(response, place, used):
            return response
        request.headers["DPoP"] = self.key.proof(request.method, url, token=token, nonce=self._nonces[place])
        again = yield request
        self._learn(again, place, None)
        return again

    def _learn(self, response: Any, place: tuple[str, str | None, int | None], used: str | None) -> bool:
        """Remember the nonce of an answer; whether the answer was only to ask for it."""
        nonce = response.headers.get("dpop-nonce")
        if not nonce:
            return False
        self._nonces[place] = nonce
        challenge = response.headers.get("www-authenticate", "")
        refused = response.status_code in {400, 401} and (not challenge or "use_dpop_nonce" in challenge)
        return refused and nonce != used

    def _renew(self, build: Any) -> Steps:
        """Renew the token; its server and the gateway are one, so a nonce of the one serves at the other."""
        form = {"grant_type": verbs.EXCHANGE, "subject_token": self._token, "subject_token_type": verbs.ACCESS_TOKEN}
        response = yield from self._proven(build("POST", self.endpoint, data=form), None)
        if response.status_code >= httpx.codes.BAD_REQUEST:
            raise error_of(response)
        answer = response.json()
        self._token, self._ends = answer["access_token"], self.key.now() + answer["expires_in"]
        self._learn(response, origin(self.gateway), None)


class _Flows:
    """The two auth flows of httpx over ``steps``; only answers to requests of our own are read."""

    def __init__(self, signer: Steppable) -> None:
        self.signer = signer

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """Sign a request of a blocking client."""
        steps = self.signer.steps(request)
        try:
            step = next(steps)
            while True:
                response = yield step
                if step is not request:
                    response.read()
                step = steps.send(response)
        except StopIteration:
            return

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """Sign a request of an async client."""
        steps = self.signer.steps(request)
        try:
            step = next(steps)
            while True:
                response = yield step
                if step is not request:
                    await response.aread()
                step = steps.send(response)
        except StopIteration:
            return


class Auth(_Flows, httpx.Auth):
    """Signs the requests of an httpx client."""


def signer_of(opened: verbs.TokenResponse, gateway: str) -> Steppable:
    """Return what signs for a grant: its token and key, or the channel."""
    if opened.token is None or opened.bound_to is None:
        return _Channel(opened.grant, gateway)
    return _Proof(opened.token, opened.bound_to, opened.expires_in or 0, gateway, opened.nonce)


def flavour(library: Any, signer: Steppable) -> Any:
    """Return the same auth for another library whose ``Auth`` has the interface of httpx's."""
    kind = type("Auth", (_Flows, library.Auth), {"__doc__": "Signs the requests of a client."})
    return kind(signer)
