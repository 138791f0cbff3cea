"""Issuers of other people's tokens: what they say of themselves, and the keys they sign with, kept for a bounded time.

Keys that are older than `FRESH` are fetched again before they are used, and so are keys among which a token's is not.
In between, an issuer is asked once in `RETRY` at most. While it does not answer, what it said last counts until `KEEP`
has passed since; then nobody of that issuer is let in.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from remit.core import fields
from remit.core.fields import check_issuer
from remit.errors import InvalidRequestError, RemitError, TokenError, UnavailableError
from remit.identity.fetch import MAX_DOCUMENT, Fetch
from remit.jose.jwt import Jwt
from remit.jose.keys import KeySet, read_key_set
from remit.jose.strict import read_json
from remit.ports import Clock

FRESH = timedelta(minutes=5)
KEEP = timedelta(hours=1)
RETRY = timedelta(seconds=10)
OPENID = "/.well-known/openid-configuration"

T = TypeVar("T")

_LOG = logging.getLogger("remit")
_MAX_NAMES = 64  # of a list in a document
_ENDPOINTS = ("jwks_uri", "authorization_endpoint", "token_endpoint", "device_authorization_endpoint")


@dataclass(frozen=True, slots=True)
class Metadata:
    """What an issuer says of itself (OpenID Connect Discovery 1.0 §3). What is None it does not say."""

    issuer: str
    jwks_uri: str
    authorization_endpoint: str | None = None
    token_endpoint: str | None = None
    device_authorization_endpoint: str | None = None
    algorithms: frozenset[str] | None = None
    auth_methods: frozenset[str] = frozenset({"client_secret_basic"})
    names_itself: bool = False  # in authorization responses, RFC 9207
    acr_values: frozenset[str] | None = None  # it can prove; for whoever looks at the configuration, not for decisions


def read_metadata(raw: bytes, issuer: str) -> Metadata:
    """Return the metadata of exactly ``issuer``, or raise InvalidRequestError."""
    document = read_json(raw, limit=MAX_DOCUMENT)
    if not isinstance(document, Mapping) or document.get("issuer") != issuer:
        raise InvalidRequestError("the document is not this issuer's")
    if "jwks_uri" not in document:
        raise InvalidRequestError("`jwks_uri` is missing")
    acr = document.get("acr_values_supported")  # nothing is decided by it: what is no list keeps nobody out
    return Metadata(
        issuer=issuer,
        **{name: fields.check_endpoint(document[name], f"`{name}`", issuer) for name in _ENDPOINTS if name in document},
        algorithms=_names(document, "id_token_signing_alg_values_supported"),
        auth_methods=_names(document, "token_endpoint_auth_methods_supported") or frozenset({"client_secret_basic"}),
        names_itself=document.get("authorization_response_iss_parameter_supported") is True,
        acr_values=frozenset(item for item in acr if isinstance(item, str)) if isinstance(acr, list) else None,
    )


def _names(document: Mapping[str, object], name: str) -> frozenset[str] | None:
    found = None if document.get(name) is None else fields.texts(name, document[name])
    if found and len(found) > _MAX_NAMES:
        raise InvalidRequestError(f"`{name}` names too many")
    return None if found is None else frozenset(found)


class KeptFetch(Generic[T]):
    """What ``read`` fetches, as `FRESH`, `RETRY` and `KEEP` have it; ``what`` names it for people."""

    def __init__(self, read: Callable[[], Awaitable[T]], what: str, clock: Clock) -> None:
        self._read, self._what, self._clock = read, what, clock
        self._fetched: tuple[T, datetime] | None = None
        self._tried: datetime | None = None
        self._asking = asyncio.Lock()

    async def current(self, *, anew: bool = False) -> T:
        """Return it, or raise UnavailableError; ``anew``: something in it is too new for what is kept."""
        known, longest = self._fetched, KEEP if self._asking.locked() else min(FRESH, KEEP)
        if known is not None and not anew and self._clock() - known[1] < longest:
            return known[0]
        async with self._asking:
            if (since := self._fetched) is not None and since is not known and self._clock() - since[1] < FRESH:
                return since[0]  # somebody else has just asked
            now, why = self._clock(), None
            if self._tried is None or now - self._tried >= RETRY:
                self._tried = now
                try:
                    self._fetched = (await self._read(), now)
                except RemitError as error:
                    _LOG.warning("%s cannot be asked: %s", self._what, error.detail)
                    why = error
            known = self._fetched
            if known is None or self._clock() - known[1] >= KEEP:
                raise UnavailableError(
                    f"{self._what} cannot be asked for its keys",
                    help="nobody of this issuer is let in before it answers",
                    retry_after=int(RETRY.total_seconds()),
                ) from why
            return known[0]


class Issuer:
    """One issuer that the configuration trusts. ``well_known`` is the path of its document."""

    def __init__(self, url: str, fetch: Fetch, clock: Clock, well_known: str = OPENID) -> None:
        self.url = check_issuer(url, "the issuer")
        parts = urlsplit(url)  # the document is after its path for OpenID, before it elsewhere (RFC 8615)
        elsewhere = f"{parts.scheme}://{parts.netloc}{well_known}{parts.path.rstrip('/')}"
        self._document = url.rstrip("/") + OPENID if well_known == OPENID else elsewhere
        self._fetch = fetch
        self._kept = KeptFetch(self._read, f"the issuer `{url}`", clock)

    async def metadata(self) -> Metadata:
        """Return what the issuer says of itself, or raise UnavailableError."""
        return (await self._kept.current())[0]

    async def verified(self, token: Jwt, error: type[RemitError] = TokenError) -> Jwt:
        """Return a token whose signature holds by a key of this issuer; raise ``error`` or UnavailableError."""
        known = (await self._kept.current())[1]
        if known.find(token.compact, error) is None:
            known = (await self._kept.current(anew=True))[1]
        known.verify(token.compact, error)
        return token

    async def _read(self) -> tuple[Metadata, KeySet]:
        metadata = read_metadata(await self._fetch(self._document), self.url)
        return metadata, read_key_set(await self._fetch(metadata.jwks_uri))
