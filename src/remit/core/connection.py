"""What a human lets remit have at a provider for one resource (an OAuth connection), and each step that it goes. Pure.

``oauth`` among a resource's settings says who the provider is. A connection is one human's, for one resource, and its
access token goes to the destination that it was made for and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Annotated

from msgspec import Meta, Struct

from remit.core import fields
from remit.core.legible import TYPED
from remit.core.orders import digest
from remit.core.secret import Secret
from remit.errors import InvalidRequestError

CODE = 8  # letters that are typed where a connection was begun
AHEAD = timedelta(minutes=1)  # before its end an access token is renewed, or earlier where it lives shortly
SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,200}")  # RFC 6749 §3.3
_ENDPOINTS = ("authorization_endpoint", "token_endpoint", "revocation_endpoint", "registration_endpoint")
_KNOWN = frozenset({"client_id", "issuer", "lower", "resource", "revoke_with_task", "scopes", *_ENDPOINTS})
MOST_NARROW = 8  # tokens of a connection that are for less than all of it; the oldest makes way

Url = Annotated[str, Meta(max_length=fields.MAX_URL)]


class AuthorizationServer(Struct, frozen=True):
    """An authorization server: as it describes itself, or as an operator does."""

    issuer: Url
    authorization_endpoint: Url
    token_endpoint: Url
    revocation_endpoint: Url | None = None
    registration_endpoint: Url | None = None
    methods: tuple[Annotated[str, Meta(max_length=100)], ...] = ()  # by which clients authenticate; none: not said
    names_itself: bool = False  # in each authorization response (RFC 9207)
    documents: bool = False  # it reads what clients publish about themselves
    audience: Url | None = None  # what the resource calls itself (RFC 9728)
    scopes: tuple[Annotated[str, Meta(max_length=200)], ...] = ()  # that it says it needs
    near: tuple[Url, ...] = ()  # hosts that may be in a network of one's own: an operator named each


class ProviderClient(Struct, frozen=True):
    """What a provider knows remit as: ``method`` is how it authenticates there (RFC 7591 §2)."""

    id: Annotated[str, Meta(max_length=fields.MAX_URL)]
    method: Annotated[str, Meta(max_length=100)] = "none"
    secret: Secret | None = None


class ProviderTokens(Struct, frozen=True):
    """What a token endpoint gave."""

    access_token: Secret
    refresh_token: Secret | None = None
    lifetime: int | None = None  # seconds; None: it does not say
    scope: Annotated[str, Meta(max_length=4_096)] | None = None


@dataclass(frozen=True, slots=True)
class OAuthSetting:
    """The setting ``oauth`` of a resource."""

    issuer: str | None = None  # None: the resource says who it is (RFC 9728)
    client_id: str | None = None  # None: it is agreed on with the provider
    scopes: tuple[str, ...] | None = None  # None: what the resource says it needs
    resource: str | None = None  # what the token is asked for (RFC 8707); empty: it is not said
    revoke_with_task: bool = False
    endpoints: Mapping[str, str] = field(default_factory=dict)  # of an issuer that publishes none
    lower: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict
    )  # what a task may use -> the scopes that it takes


def setting(settings: Mapping[str, object]) -> OAuthSetting | None:
    """Return the setting ``oauth``, or raise InvalidRequestError; None: the resource has none."""
    raw = settings.get("oauth")
    if raw is None:
        return None
    if not isinstance(raw, Mapping) or not raw.keys() <= _KNOWN:
        raise InvalidRequestError(f"`oauth` is a table of {', '.join(sorted(_KNOWN))}")
    issuer = fields.check_issuer(raw["issuer"], "`oauth.issuer`") if "issuer" in raw else None
    given = {
        name: fields.check_endpoint(raw[name], f"`oauth.{name}`", issuer or "") for name in _ENDPOINTS if name in raw
    }
    if given and not ({"issuer", "client_id"} <= raw.keys() and {*_ENDPOINTS[:2]} <= given.keys()):
        raise InvalidRequestError(
            "endpoints in `oauth` are those of an issuer that publishes none",
            help=f"with them `issuer`, `client_id`, `{_ENDPOINTS[0]}` and `{_ENDPOINTS[1]}` are needed",
        )
    if "client_id" in raw and "issuer" not in raw:  # what a resource names may be anybody: a client is one issuer's
        raise InvalidRequestError("`oauth.client_id` is known to one issuer, so `oauth.issuer` is needed with it")
    audience = raw.get("resource")
    scopes = fields.texts("oauth.scopes", raw["scopes"], SCOPE) if "scopes" in raw else None
    return OAuthSetting(
        issuer,
        fields.text("oauth.client_id", raw["client_id"]) if "client_id" in raw else None,
        scopes,
        audience if audience == "" or audience is None else fields.check_url(audience, "`oauth.resource`"),
        fields.flag("oauth.revoke_with_task", raw.get("revoke_with_task", False)),
        given,
        _lower(raw.get("lower", {}), scopes or ()),
    )


def _lower(raw: object, scopes: tuple[str, ...]) -> Mapping[str, tuple[str, ...]]:
    if not isinstance(raw, Mapping):
        raise InvalidRequestError("`oauth.lower` is a table of what a task may use, each with the scopes that it takes")
    found = {fields.text("oauth.lower", name): fields.texts("oauth.lower", each, SCOPE) for name, each in raw.items()}
    if not all(found.values()):
        raise InvalidRequestError("each entry of `oauth.lower` has a scope or more")
    if unknown := {scope for each in found.values() for scope in each}.difference(scopes):
        raise InvalidRequestError(f"`oauth.lower` has scopes that `oauth.scopes` has not: {' '.join(sorted(unknown))}")
    return found


class HeldToken(Struct, frozen=True):
    """An access token, and when another is to be asked for; None: it does not end by itself."""

    value: Secret
    renew_at: datetime | None
    expires_at: datetime | None
    scope: Annotated[str, Meta(max_length=4_096)] = ""  # that it is for, if not for all of its connection


@dataclass(frozen=True, slots=True)
class ProviderConnection:
    """One human's tokens of one provider for one resource, as they are kept, sealed. ``rev`` grows with every step.

    ``refreshing``: a refresh went out, and what came of it is not on record: the refresh token may be used up. ``over``
    says why a connection is over; what it still holds then is yet to be revoked at the provider.
    """

    id: str
    human: str  # the subject of their tasks
    resource: str
    destination: str
    provider: AuthorizationServer
    client: ProviderClient
    audience: str  # as ``OAuthSetting.resource``
    access_token: Secret | None
    refresh_token: Secret | None
    made_at: datetime
    renew_at: datetime | None = None  # None: it does not end by itself
    expires_at: datetime | None = None
    scope: str = ""
    rev: int = 1
    used: bool = False  # by a task
    refreshing: bool = False
    over: str = ""
    over_at: datetime | None = None
    narrow: tuple[HeldToken, ...] = ()  # for less than all of it, the newest first
    narrows: bool = True  # as far as is known, its provider gives those

    def lower(self, needed: frozenset[str] | None) -> str:
        """Return the scope of the token for a task that needs no more than that; empty: that of all of it."""
        had = frozenset(self.scope.split())  # as its provider writes them: where it has none of these, it is asked
        some = had if needed is None or not self.narrows or self.refresh_token is None else had & needed or needed
        return "" if some == had else " ".join(sorted(some))

    def held(self, scope: str = "") -> HeldToken | None:
        """Return its access token for a scope."""
        if scope:
            return next((one for one in self.narrow if one.scope == scope), None)
        return None if self.access_token is None else HeldToken(self.access_token, self.renew_at, self.expires_at)

    def lent(self, now: datetime, scope: str = "") -> tuple[Secret, datetime | None] | None:
        """Return an access token, and when it is to be asked for anew; None where that is now."""
        token = self.held(scope)
        if self.over or token is None or (token.renew_at is not None and now >= token.renew_at):
            return None
        return token.value, token.renew_at

    def is_token(self, named: str, scope: str = "") -> bool:
        """Whether its access token is the one with a digest."""
        token = self.held(scope)
        return token is not None and named == digest(token.value.reveal())

    def begun(self) -> ProviderConnection:
        """Return it with a refresh about to go out."""
        return replace(self, refreshing=True, rev=self.rev + 1)

    def given(self, tokens: ProviderTokens, now: datetime, scope: str = "") -> ProviderConnection:
        """Return it with what the provider gave; a refresh token that it did not replace stays (RFC 6749 §6).

        Where it was asked for a ``scope`` and gave a wider one, it gives no narrow tokens.
        """
        ends, ahead = None, AHEAD
        if tokens.lifetime is not None:
            lifetime = timedelta(seconds=tokens.lifetime)
            ends, ahead = now + lifetime, min(AHEAD, lifetime / 4)
        renew_at = None if ends is None else ends - ahead
        kept = replace(
            self, refresh_token=tokens.refresh_token or self.refresh_token, refreshing=False, rev=self.rev + 1
        )
        if scope and tokens.scope is not None and not set(tokens.scope.split()) <= set(scope.split()):
            kept = replace(kept, narrows=False)
        elif scope:
            others = tuple(one for one in self.narrow if one.scope != scope)[: MOST_NARROW - 1]
            return replace(kept, narrow=(HeldToken(tokens.access_token, renew_at, ends, scope), *others))
        return replace(
            kept,
            access_token=tokens.access_token,
            scope=self.scope if tokens.scope is None else tokens.scope,
            expires_at=ends,
            renew_at=renew_at,
        )

    def widest(self) -> ProviderConnection:
        """Return it with what is known now: its provider gives no narrow tokens, and has used nothing up."""
        return replace(self, narrows=False, refreshing=False, rev=self.rev + 1)

    def marked(self) -> ProviderConnection:
        """Return it with its first use by a task on record."""
        return replace(self, used=True, rev=self.rev + 1)

    def ended(self, why: str, now: datetime, *, keep: bool) -> ProviderConnection:
        """Return it over; ``keep``: its tokens are yet to be revoked at the provider."""
        ended = replace(self, over=why, over_at=now, refreshing=False, narrow=(), rev=self.rev + 1)
        return ended if keep else replace(ended, access_token=None, refresh_token=None)

    def wiped(self) -> ProviderConnection:
        """Return it without its tokens, which are of no use any more."""
        return replace(self, access_token=None, refresh_token=None, narrow=(), rev=self.rev + 1)


def typed_code(drawn: str) -> str:
    """Return a code that people can type, from 256 random bits."""
    number, letters = int.from_bytes(sha256(drawn.encode()).digest()), []
    for _ in range(CODE):
        number, at = divmod(number, len(TYPED))
        letters.append(TYPED[at])
    return "".join(letters)


def nonce(resource: str, state: str) -> str:
    """Return the nonce of the login with this ``state`` that is for connecting to a resource, and for nothing else.

    Without one it is for seeing one's connections, and ending one.
    """
    return digest(f"connect\n{resource}\n{state}")
