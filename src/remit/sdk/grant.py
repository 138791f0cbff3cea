"""A grant in the hands of its holder, whatever colour its client has: what it names, and how requests prove it.

- In a run identity is the channel: ``Remit-Grant`` names the grant, and nothing secret is sent.
- Outside a run: a DPoP-bound token, with a proof a request and the server's nonce; renewed before it ends.
- Either is an ``httpx.Auth``; ``auth_of`` makes the same for another library of that interface (httpx2).
- The gateway alone is ever told: a request elsewhere is refused before it is sent.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, NoReturn
from urllib.parse import urlsplit

import httpx

from remit.errors import GrantEndedError, InvalidRequestError, RemitError, ScopeError
from remit.sdk import verbs
from remit.sdk._wire import Json, check
from remit.sdk.dpop import DPoPKey
from remit.sdk.place import GATEWAY, Place, plain

HEADER = "Remit-Grant"
EARLY = 30.0  # seconds before its end at which a token is renewed

Steps = Generator[Any, Any, Any]  # requests and responses of whichever library
Origin = tuple[str, str | None, int | None]


def origin(url: str) -> Origin:
    """Return scheme, host and port of a URL."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, port


class GrantProof:
    """Signs requests under one grant, whatever library sends them."""

    def __init__(self, opened: verbs.TokenResponse, gateway: str) -> None:
        self._grant, self._token, self._binding = opened.grant, opened.token, opened.bound_to
        self._gateway = origin(gateway)
        self._ends = self._binding.key.now() + (opened.expires_in or 0) if self._binding else 0.0
        self._nonces: dict[Origin, str] = {self._gateway: opened.nonce} if opened.nonce else {}

    def steps(self, request: Any) -> Steps:
        """Yield what is to be sent in order, ``request`` last; receive the answers.

        A token that is about to end is renewed first, and the request sent again if the server names a nonce.
        """
        if origin(str(request.url)) != self._gateway:
            raise InvalidRequestError(
                "this request does not go to the gateway", help="build its URL with `grant.url(resource)`"
            )
        if self._token is None or self._binding is None:
            request.headers[HEADER] = self._grant
            yield request
            return
        key = self._binding.key
        if key.now() > self._ends - EARLY:
            form = {"subject_token": self._token, "subject_token_type": verbs.ACCESS_TOKEN}
            renewal = type(request)("POST", self._binding.endpoint, data={"grant_type": verbs.EXCHANGE, **form})
            response = yield from self._proven(renewal, key, None)
            check(response)
            answer = response.json()
            self._token, self._ends = answer["access_token"], key.now() + answer["expires_in"]
            self._learn(response, self._gateway, None)  # its server and the gateway are one
        request.headers["Authorization"] = f"DPoP {self._token}"
        yield from self._proven(request, key, self._token)

    def _proven(self, request: Any, key: DPoPKey, token: str | None) -> Steps:
        url, place = str(request.url), origin(str(request.url))
        used = self._nonces.get(place)
        request.headers["DPoP"] = key.proof(request.method, url, token=token, nonce=used)
        response = yield request
        if self._learn(response, place, used):
            request.headers["DPoP"] = key.proof(request.method, url, token=token, nonce=self._nonces[place])
            response = yield request
            self._learn(response, place, None)
        return response

    def _learn(self, response: Any, place: Origin, used: str | None) -> bool:
        """Remember the nonce of an answer; whether the answer was only to ask for it."""
        nonce = response.headers.get("dpop-nonce")
        if not nonce:
            return False
        self._nonces[place] = nonce
        challenge = response.headers.get("www-authenticate", "")
        refused = response.status_code in {400, 401} and (not challenge or "use_dpop_nonce" in challenge)
        return refused and nonce != used

    def sync_auth_flow(self, request: Any) -> Steps:
        """Sign a request of a blocking client; only answers to requests of our own are read."""
        steps = self.steps(request)
        with suppress(StopIteration):
            step = next(steps)
            while True:
                response = yield step
                if step is not request:
                    response.read()
                step = steps.send(response)

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """Sign a request of an async client; only answers to requests of our own are read."""
        steps = self.steps(request)
        with suppress(StopIteration):
            step = next(steps)
            while True:
                response = yield step
                if step is not request:
                    await response.aread()
                step = steps.send(response)


def auth_of(library: Any, proof: Any) -> Any:
    """Return auth, by the flows of ``proof``, for a library whose ``Auth`` has the interface of httpx's."""
    flows = {"sync_auth_flow": proof.sync_auth_flow, "async_auth_flow": proof.async_auth_flow}
    return type("Auth", (library.Auth,), flows)()


class GrantHandle:
    """A grant in the hands of its holder."""

    def __init__(self, place: Place, opened: verbs.TokenResponse) -> None:
        self.place, self.opened = place, opened
        self.id, self.task_id = opened.grant, opened.task  # no secrets
        self.details = opened.details
        self.report: verbs.Report | None = None  # what ending it achieved, once it has ended

    @cached_property
    def signer(self) -> GrantProof:
        """What signs requests under this grant."""
        return GrantProof(self.opened, self.gateway)

    @property
    def gateway(self) -> str:
        """The gateway's base URL; in a run it names this grant, so that what forgets to has no more than it holds."""
        told = self.opened.bound_to.gateway if self.opened.bound_to else None
        base = (self.place.gateway or told or GATEWAY).rstrip("/")
        return f"{base}/@{self.id}" if self.place.in_run else base

    @cached_property
    def auth(self) -> httpx.Auth:
        """Auth for ``httpx``: every request is made under this grant."""
        auth: httpx.Auth = auth_of(httpx, self.signer)
        return auth

    @cached_property
    def auth2(self) -> Any:
        """Auth for ``httpx2``, which is imported here and nowhere else."""
        import importlib

        return auth_of(importlib.import_module("httpx2"), self.signer)

    def url(self, resource: str) -> str:
        """Return the base URL of a resource, to which paths are appended as at the upstream."""
        if not any(detail.get("resource") == resource for detail in self.details):
            raise ScopeError(f"the grant holds nothing for `{resource}`")
        return f"{self.gateway}/{resource}"

    def environ(self) -> dict[str, str]:
        """Return this process's variables that name the gateway, for this grant: base URLs, REMIT_URL_*, REMIT_GRANT.

        InvalidRequestError outside a run, where a grant is proven and not named.
        """
        if not self.place.in_run:
            raise InvalidRequestError("outside a run no variable proves a grant", help="use `auth`, or `remit run`")
        known = re.compile(re.escape(plain(self.gateway)) + r"(?:/@[^/]*)?((?:/.*)?)")
        found = {name: known.fullmatch(value) for name, value in os.environ.items()}
        named = {name: f"{self.gateway}{match[1]}" for name, match in found.items() if match}
        return {**named, "REMIT_GATEWAY": self.gateway, "REMIT_GRANT": self.id}

    def binding(self) -> verbs.DPoPBinding | None:
        """Return what a child's token is to be bound to: outside a run every grant has a key of its own."""
        return replace(self.opened.bound_to, key=DPoPKey()) if self.opened.bound_to else None

    def __repr__(self) -> str:
        names = ", ".join(str(detail.get("resource")) for detail in self.details)
        return f"<{type(self).__name__} {self.id} ({names})>"


@contextmanager
def not_hiding(error: BaseException | None) -> Iterator[None]:
    """Let an ending fail without hiding ``error``; that it had ended already is no failure."""
    try:
        with suppress(GrantEndedError):
            yield
    except RemitError as failed:
        if error is None:
            raise
        error.add_note(f"and ending what was granted failed: {failed.detail}")


@dataclass(frozen=True, slots=True)
class Credential:
    """A credential and the lease that ends it. Fields are attributes and items: ``cred.dsn``, ``cred["dsn"]``."""

    lease: str
    expires_at: datetime
    values: Mapping[str, str] = field(repr=False)

    def __getattr__(self, name: str) -> str:
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(f"this credential has {', '.join(sorted(self.values))}, not `{name}`") from None

    def __getitem__(self, name: str) -> str:
        return self.values[name]

    def __reduce__(self) -> NoReturn:
        raise TypeError("a credential is not serialisable")


def credential_of(answer: Json) -> Credential:
    """Read an issued lease."""
    values = {str(name): str(value) for name, value in answer["credential"].items()}
    return Credential(answer["lease"], instant(answer["expires_at"]), values)


def instant(text: str) -> datetime:
    """Read an RFC 3339 instant."""
    return datetime.fromisoformat(text).astimezone(UTC)


current_grant: ContextVar[GrantHandle | None] = ContextVar("remit_grant", default=None)
