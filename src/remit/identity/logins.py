"""Logins in a browser (OpenID Connect Core §3.1), with authlib's client: code, PKCE S256, state, nonce, RFC 9207.

A login that was begun is kept by nobody here, so that nobody's takes the place of another's; its code verifier is made
of it with a key of this process, and the issuer redeems its code once.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import warnings
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, quote_plus

import httpx

from remit import jose
from remit.core.principal import Human
from remit.errors import GrantTokenError, StepUpError, UnavailableError
from remit.identity.fetch import PATIENCE
from remit.identity.humans import IssuedHumans, Registration
from remit.identity.issuers import Metadata
from remit.jose.jwt import SKEW
from remit.ports.identity import Login

MAX_QUERY = 8_192  # characters
MAX_FIELDS = 64
_KNOWN = frozenset({"code", "state", "iss", "error", "error_description", "error_uri"})

Transport = Callable[[], httpx.AsyncBaseTransport]


class IssuerLogins:
    """Sends browsers to issuers, and takes them back. Nothing is kept of those that are away."""

    def __init__(self, humans: IssuedHumans, transport: Transport) -> None:
        self._humans, self._transport = humans, transport
        self._key = secrets.token_bytes(32)

    async def begin(self, login: Login) -> str:
        """Return the URL to send the browser to."""
        registration, metadata = await self._at(login.issuer)
        if metadata.authorization_endpoint is None or metadata.token_endpoint is None:
            raise UnavailableError(f"nobody can log in with a browser at `{registration.issuer.url}`")
        stronger = {"max_age": "0", "prompt": "login"} if login.since is not None or login.acr else {}
        stronger |= {"acr_values": " ".join(login.acr)} if login.acr else {}
        async with self._client(registration, metadata, login.back) as client:
            url, _ = client.create_authorization_url(
                metadata.authorization_endpoint,
                state=login.state,
                code_verifier=self._verifier(login),
                nonce=login.nonce,
                **stronger,
            )
        return str(url)

    async def finish(self, query: str, came: str, login: Login) -> Human:
        """Redeem the answer that the browser brought (a query string), and return who logged in."""
        if came != login.back:
            raise GrantTokenError("this login was begun for something else")
        registration, metadata = await self._at(login.issuer)
        token = await self._redeemed(registration, login, metadata, _code(query, login.state, metadata))
        human = await self._humans.id_token(token, nonce=login.nonce)
        if login.acr and human.subject.acr not in login.acr:
            raise StepUpError(help=f"log in again with {' or '.join(login.acr)}")
        at = human.subject.auth_time
        if login.since is not None and (at is None or at < login.since - SKEW):
            raise StepUpError("the issuer did not ask the human to log in again")
        return human

    def _verifier(self, login: Login) -> str:
        whole = f"{login.issuer}\n{login.back}\n{login.state}\n{login.nonce}"
        return jose.encode(hmac.digest(self._key, whole.encode(), "sha256"))

    async def _at(self, issuer: str) -> tuple[Registration, Metadata]:
        """Return remit's confidential registration at an issuer: a login by any other decides nothing."""
        known = [item for item in self._humans.deciding if item.issuer.url == issuer]
        if not known:
            raise GrantTokenError("nobody can log in to decide at this issuer")
        return known[0], await known[0].issuer.metadata()

    async def _redeemed(self, registration: Registration, login: Login, metadata: Metadata, code: str) -> str:
        from authlib.common.errors import AuthlibBaseError

        form = {"grant_type": "authorization_code", "code": code, "code_verifier": self._verifier(login)}
        back = login.back
        try:
            async with asyncio.timeout(PATIENCE), self._client(registration, metadata, back) as client:
                answer = await client.fetch_token(metadata.token_endpoint, **form, redirect_uri=back)
        except AuthlibBaseError as error:
            raise GrantTokenError("the issuer did not redeem what it was shown", help="log in again") from error
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError, ValueError) as error:
            raise UnavailableError(f"the issuer `{registration.issuer.url}` cannot be asked") from error
        token = answer.get("id_token")
        if not isinstance(token, str) or not token:
            raise GrantTokenError("the issuer answered without `id_token`")
        return token

    def _client(self, registration: Registration, metadata: Metadata, redirect_uri: str) -> Any:
        try:
            with warnings.catch_warnings():
                # Importing it undoes filters that were set before, and authlib would rather have a fork of httpx.
                import authlib.deprecate  # noqa: F401 - as said

                warnings.simplefilter("ignore")
                from authlib.integrations.httpx_client import AsyncOAuth2Client
        except ImportError as error:
            raise UnavailableError("logins need authlib", help="in a clone of remit: pip install '.[oidc]'") from error
        secret = registration.secret and registration.secret.reveal()
        basic = "client_secret_basic" in metadata.auth_methods
        return AsyncOAuth2Client(
            registration.client_id,
            quote_plus(secret) if secret and basic else secret,  # authlib leaves the encoding of RFC 6749 §2.3.1 out
            token_endpoint_auth_method="client_secret_basic" if basic else "client_secret_post",
            scope=" ".join(registration.scopes),
            redirect_uri=redirect_uri or None,
            code_challenge_method="S256",
            transport=self._transport(),
            trust_env=False,
            timeout=PATIENCE,
        )


def _code(query: str, state: str, metadata: Metadata) -> str:
    """Return the code of an authorization response (RFC 6749 §4.1.2) of this issuer and to this login (RFC 9207 §2.4).

    Parameters that mean something are there at most once.
    """
    try:
        pairs = parse_qsl(
            query, keep_blank_values=True, strict_parsing=True, max_num_fields=MAX_FIELDS, errors="strict"
        )
    except ValueError:
        pairs = []
    known = [(name, value) for name, value in pairs if name in _KNOWN]
    answer = dict(known)
    if not answer or len(answer) != len(known) or len(query) > MAX_QUERY:
        raise GrantTokenError("the issuer's answer cannot be read")
    if not hmac.compare_digest(answer.get("state", "").encode(), state.encode()):
        raise GrantTokenError("the answer is to another login")
    if answer.get("iss", None if metadata.names_itself else metadata.issuer) != metadata.issuer:
        raise GrantTokenError("the answer is by another issuer")
    if "error" in answer or not answer.get("code"):
        raise GrantTokenError("the issuer did not let the human in", help="log in again")
    return answer["code"]
