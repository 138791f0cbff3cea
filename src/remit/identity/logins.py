"""Logins in a browser (OpenID Connect Core §3.1), with authlib's client: code, PKCE S256, state, nonce, RFC 9207.

What a login was begun with stays here, in memory, until the browser comes back or `LIFE` is over; it counts once.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, quote_plus

import httpx

from remit.core.identity import Human
from remit.core.secret import Secret
from remit.errors import GrantTokenError, LimitError, StepUpError, UnavailableError
from remit.identity.fetch import PATIENCE
from remit.identity.foreign import SKEW
from remit.identity.humans import IssuedHumans, Registration
from remit.identity.issuers import Metadata
from remit.ports import Clock

LIFE = timedelta(minutes=10)
MAX_OF_ONE = 5  # logins for the same request; the oldest makes room
MAX_WAITING = 1_000
MAX_QUERY = 8_192  # characters

Transport = Callable[[], httpx.AsyncBaseTransport]


@dataclass(frozen=True, slots=True)
class _Begun:
    """A login that a browser is away on."""

    registration: Registration
    verifier: str = field(repr=False)
    redirect_uri: str
    nonce: str
    acr: tuple[str, ...]
    anew: bool
    at: datetime
    room: str


class IssuerLogins:
    """Sends browsers to issuers, and takes them back."""

    def __init__(self, humans: IssuedHumans, transport: Transport, clock: Clock) -> None:
        """Log in at the issuers that ``humans`` verifies; ``transport`` makes what reaches them."""
        self._humans, self._transport, self._clock = humans, transport, clock
        self._waiting: dict[str, _Begun] = {}  # by state

    async def begin(
        self,
        back: str,
        state: str,
        nonce: str,
        *,
        issuer: str | None,
        acr: Sequence[str],
        anew: bool = False,
        room: str = "",
    ) -> str:
        """Return the URL to send the browser to.

        With ``anew`` the human has to prove again who they are, with ``acr`` that strongly too. ``issuer`` None: there
        is one only. ``MAX_WAITING`` is of each ``room``.
        """
        registration = self._at(issuer)
        metadata = await registration.issuer.metadata()
        if metadata.authorization_endpoint is None or metadata.token_endpoint is None:
            raise UnavailableError(f"nobody can log in with a browser at `{registration.issuer.url}`")
        verifier = secrets.token_urlsafe(48)
        anew = anew or bool(acr)
        begun = _Begun(registration, verifier, back, nonce, tuple(acr), anew, self._clock(), room)
        self._keep(state, begun)
        stronger = {"max_age": "0", "prompt": "login"} if anew else {}
        stronger |= {"acr_values": " ".join(acr)} if acr else {}
        async with self._client(registration, metadata, back) as client:
            url, _ = client.create_authorization_url(
                metadata.authorization_endpoint, state=state, code_verifier=verifier, nonce=nonce, **stronger
            )
        return str(url)

    async def finish(self, query: str, redirect_uri: str, state: str, nonce: str) -> Human:
        """Redeem the answer that the browser brought (a query string), and return who logged in."""
        begun = self._waiting.pop(state, None)
        if begun is None or self._clock() - begun.at >= LIFE:
            raise GrantTokenError("this login was not begun here, or is over", help="log in again")
        if not hmac.compare_digest(begun.nonce.encode(), nonce.encode()) or begun.redirect_uri != redirect_uri:
            raise GrantTokenError("this login was begun for something else")
        metadata = await begun.registration.issuer.metadata()
        code = _code(_answer(query), state, metadata)
        human = await self._humans.id_token(await self._redeemed(begun, metadata, code), nonce=nonce)
        if begun.acr and human.subject.acr not in begun.acr:
            raise StepUpError(help=f"log in again with {' or '.join(begun.acr)}")
        if begun.anew and (human.subject.auth_time is None or human.subject.auth_time < begun.at - SKEW):
            raise StepUpError("the issuer did not ask the human to log in again")
        return human

    def _at(self, issuer: str | None) -> Registration:
        """Return remit's registration at an issuer; a confidential one where there is one."""
        known = [item for item in self._humans.registrations if issuer in {None, item.issuer.url}]
        if not known or len({item.issuer.url for item in known}) > 1:
            raise GrantTokenError("it is not said at which issuer to log in")
        return next((item for item in known if item.secret is not None), known[0])

    def _keep(self, state: str, begun: _Begun) -> None:
        for over in [name for name, item in self._waiting.items() if begun.at - item.at >= LIFE]:
            del self._waiting[over]
        mine = [name for name, item in self._waiting.items() if item.nonce == begun.nonce]
        for over in mine[: max(len(mine) - MAX_OF_ONE + 1, 0)]:  # a human comes back from the page they saw last
            del self._waiting[over]
        alike = sum(item.room == begun.room for item in self._waiting.values())
        if alike >= MAX_WAITING or state in self._waiting:
            raise LimitError("too many browsers are logging in", retry_after=int(LIFE.total_seconds()))
        self._waiting[state] = begun

    async def _redeemed(self, begun: _Begun, metadata: Metadata, code: str) -> str:
        """Return the ID token that the token endpoint gives for a code."""
        from authlib.common.errors import AuthlibBaseError  # type: ignore[import-untyped]

        form = {"grant_type": "authorization_code", "code": code, "code_verifier": begun.verifier}
        registration, back = begun.registration, begun.redirect_uri
        try:
            async with asyncio.timeout(PATIENCE), self._client(registration, metadata, back) as client:
                answer = await client.fetch_token(metadata.token_endpoint, **form, redirect_uri=back)
        except AuthlibBaseError as error:
            raise GrantTokenError("the issuer did not redeem what it was shown", help="log in again") from error
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError, ValueError) as error:
            raise UnavailableError(f"the issuer `{registration.issuer.url}` cannot be asked") from error
        return _named(dict(answer), "id_token")

    def _client(self, registration: Registration, metadata: Metadata, redirect_uri: str) -> Any:
        """Return authlib's client for one conversation."""
        try:
            with warnings.catch_warnings():
                import authlib.deprecate  # type: ignore[import-untyped] # noqa: F401 - it undoes what comes before it

                warnings.simplefilter("ignore")  # authlib would rather have a fork of httpx
                from authlib.integrations.httpx_client import AsyncOAuth2Client  # type: ignore[import-untyped]
        except ImportError as error:
            raise UnavailableError("logins need authlib", help="in a clone of remit: pip install '.[oidc]'") from error
        method = _method(registration, metadata)
        return AsyncOAuth2Client(
            registration.client_id,
            _shown(registration.secret, method),
            token_endpoint_auth_method=method,
            scope=" ".join(registration.scopes),
            redirect_uri=redirect_uri or None,
            code_challenge_method="S256",
            transport=self._transport(),
            trust_env=False,
            timeout=PATIENCE,
        )


def _method(registration: Registration, metadata: Metadata) -> str:
    if registration.secret is None:
        return "none"
    basic = "client_secret_basic" in metadata.auth_methods
    return "client_secret_basic" if basic else "client_secret_post"


def _shown(secret: Secret | None, method: str) -> str | None:
    """Return the secret as authlib has to be told it: for Basic it leaves out the encoding of RFC 6749 §2.3.1."""
    if secret is None:
        return None
    return quote_plus(secret.reveal()) if method == "client_secret_basic" else secret.reveal()


def _answer(query: str) -> Mapping[str, str]:
    """Return the parameters of an authorization response; each at most once (RFC 6749 §3.1)."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, max_num_fields=20, errors="strict")
    except ValueError:
        pairs = []
    answer = dict(pairs)
    if not answer or len(answer) != len(pairs) or len(query) > MAX_QUERY:
        raise GrantTokenError("the issuer's answer cannot be read")
    return answer


def _code(answer: Mapping[str, str], state: str, metadata: Metadata) -> str:
    """Return the code of an answer that is of this issuer and to this login (RFC 9207 §2.4)."""
    if not hmac.compare_digest(answer.get("state", "").encode(), state.encode()):
        raise GrantTokenError("the answer is to another login")
    if answer.get("iss", None if metadata.names_itself else metadata.issuer) != metadata.issuer:
        raise GrantTokenError("the answer is by another issuer")
    if "error" in answer or not answer.get("code"):
        raise GrantTokenError("the issuer did not let the human in", help="log in again")
    return answer["code"]


def _named(answer: Mapping[str, object], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str) or not value:
        raise GrantTokenError(f"the issuer answered without `{name}`")
    return value
