"""What issuers say of humans after the fact: security event tokens (RFC 8417, SSF and CAEP 1.0) and logout tokens.

An issuer speaks of its own humans only. Whatever puts a login in doubt ends what rests on it: the whole user, or one
session where the issuer names one. Events that say nothing against a login are taken and lead to nothing.

They are pushed (RFC 8935; OpenID Connect Back-Channel Logout 1.0) or polled. The token is the proof: it is signed by a
configured issuer, for this broker, and about that issuer's humans. When the answer is a success, what was said is
durable and everything that it is about has ended.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response

from remit import jose
from remit.core.principal import Signal
from remit.errors import InvalidRequestError, TokenError, told_as
from remit.identity.issuers import Issuer
from remit.jose import jwt
from remit.jose.jwt import SKEW, Jwt, JwtProfile
from remit.ports import Clock
from remit.ports.broker import BrokerPort
from remit.ports.identity import Signals
from remit.sessions.delivery import MEDIA
from remit.web import wire
from remit.web.routes import AppDeps, Route

MAX_AGE = timedelta(days=1)  # no longer than signals are remembered, so that none can be shown twice
MAX_EVENTS = 16  # of one token
MAX_TOKEN = 16_384  # characters
LOGOUT = "http://schemas.openid.net/event/backchannel-logout"
CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
RISC = "https://schemas.openid.net/secevent/risc/event-type/"

_SET = JwtProfile(frozenset({"secevent+jwt"}))
_LOGOUT_TOKEN = JwtProfile(frozenset({"logout+jwt", "jwt", ""}))  # OIDC Back-Channel Logout §2.4 only recommends a type

# Event types that end logins; with a member, only if that has the value.
_ENDING: Mapping[str, tuple[str, str] | None] = {
    f"{CAEP}session-revoked": None,
    f"{CAEP}credential-change": None,
    f"{CAEP}token-claims-change": None,
    f"{CAEP}assurance-level-change": ("change_direction", "decrease"),
    f"{CAEP}device-compliance-change": ("current_status", "not-compliant"),
    f"{CAEP}risk-level-change": ("current_level", "HIGH"),
    f"{RISC}account-disabled": None,
    f"{RISC}account-purged": None,
    f"{RISC}account-credential-change-required": None,
    f"{RISC}credential-compromise": None,
    f"{RISC}sessions-revoked": None,
}


@dataclass(frozen=True, slots=True)
class EventIssuer:
    """An issuer of events. ``about`` is the issuer whose humans it speaks of, ``audiences`` what remit is to it.

    ``logouts``: whether it sends logout tokens too, which only the issuer of the humans themselves does.
    """

    issuer: Issuer
    audiences: frozenset[str]
    about: str
    logouts: bool = True


@dataclass(frozen=True, slots=True)
class IssuedSignals:
    """Verifies what the configured issuers push.

    Raises TokenError, AudienceError, InvalidRequestError (a subject that cannot be told) or UnavailableError.
    """

    sources: Mapping[str, EventIssuer] = field(repr=False)  # by issuer
    clock: Clock

    async def event(self, token: str) -> Sequence[Signal]:
        """Return what a security event token says of humans; empty when it says nothing against a login."""
        read, source = await self._verified(token, _SET)
        with told_as("invalid_request", TokenError):
            return self._signals(read, source)

    def _signals(self, read: Jwt, source: EventIssuer) -> Sequence[Signal]:
        claims = read.claims
        if "sub" in claims or "exp" in claims:  # SSF §4.1.3: lest it be taken for a token of another kind
            raise TokenError("it is not a security event token")
        at, now = jwt.moment(claims, "iat"), self.clock()
        if at > now + SKEW:
            raise TokenError("it does not count yet", help="compare the clocks of the issuer and of this host")
        if at <= now - MAX_AGE:
            raise TokenError("it is older than a day, and nothing that it could be about is left")
        jwt.text(claims, "jti")
        signals = list[Signal]()
        for kind, event in sorted(_events(claims).items()):
            only = _ENDING.get(kind)
            if kind not in _ENDING or (only is not None and event.get(only[0]) != only[1]):
                continue
            sub, sid = _subject(claims.get("sub_id", event.get("subject")), source.about, kind)
            when = min(jwt.moment(event, "event_timestamp"), at + SKEW) if "event_timestamp" in event else at
            signals.append(
                Signal(when, kind.rpartition("/")[2], jose.digest(f"{read.digest}#{len(signals)}"), sub, sid)
            )
        return tuple(signals)

    async def logout(self, token: str) -> Sequence[Signal]:
        """Return what a logout token says (OIDC Back-Channel Logout 1.0 §2.6)."""
        read, source = await self._verified(token, _LOGOUT_TOKEN)
        claims = read.claims
        if not source.logouts:
            raise TokenError("its issuer sends no logout tokens")
        at, _ = jwt.window(claims, self.clock(), MAX_AGE)
        jwt.text(claims, "jti")
        if "nonce" in claims or LOGOUT not in _events(claims):
            raise TokenError("it is not a logout token")
        sub, sid = jwt.text_or_none(claims, "sub"), jwt.text_or_none(claims, "sid")
        if sub is None and sid is None:
            raise TokenError("it names neither a human nor a session")
        who, session = (None if name is None else f"{source.about}#{name}" for name in (sub, sid))
        return (Signal(at, "logout", read.digest, who, session),)

    async def _verified(self, token: str, rules: JwtProfile) -> tuple[Jwt, EventIssuer]:
        with told_as("invalid_request", TokenError):
            read = jwt.read(token, rules)
            source = self.sources.get(jwt.text(read.claims, "iss"))
        with told_as("invalid_issuer", TokenError):
            if source is None:
                raise TokenError("its issuer is not one that is trusted here")
        with told_as("invalid_audience", TokenError):
            jwt.audience(read.claims, source.audiences)
        with told_as("invalid_key", TokenError):
            return await source.issuer.verified(read), source


class SignalReceiver:
    """Takes security event tokens and logout tokens, pushed or polled, and keeps on record who was refused."""

    def __init__(self, broker: BrokerPort, signals: Signals) -> None:
        self._broker, self._signals = broker, signals

    async def event(self, token: str) -> None:
        """Take a security event token; raise TokenError, AudienceError, InvalidRequestError or UnavailableError."""
        await self._take(token, self._signals.event)

    async def push_event(self, request: Request, body: bytes) -> Response:
        """Take a security event token that is pushed (RFC 8935 §2)."""
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        try:
            if media != MEDIA:
                raise InvalidRequestError(f"the content type must be `{MEDIA}`")  # noqa: TRY301 - answered as below
            await self.event(_ascii(body))
        except (TokenError, InvalidRequestError) as error:
            told = {"err": error.told_as or "invalid_request", "description": error.detail}  # RFC 8935 §2.4
            return wire.answer(told, 400, {"content-language": "en"})
        return Response(status_code=202, headers=wire.HEADERS)

    async def push_logout(self, _: Request, body: bytes) -> Response:
        """Take a logout token (Back-Channel Logout §2.5, §2.8). Other fields of the form mean nothing, and may be."""
        try:
            await self._take(_logout_token(body), self._signals.logout)
        except (TokenError, InvalidRequestError) as error:
            return wire.answer({"error": "invalid_request", "error_description": error.detail}, 400)
        return Response(headers=wire.HEADERS)

    async def _take(self, token: str, read: Callable[[str], Awaitable[Sequence[Signal]]]) -> None:
        try:
            if not 0 < len(token) <= MAX_TOKEN or not token.isascii():
                raise InvalidRequestError(f"a token is ASCII text of at most {MAX_TOKEN} characters")  # noqa: TRY301 - recorded as below
            signals = await read(token)
        except (TokenError, InvalidRequestError) as error:
            await self._broker.refuse_signal(error)
            raise
        await self._broker.signal(signals)


def routes(deps: AppDeps) -> tuple[Route, ...]:
    """Return the routes: none where no issuer is configured."""
    if deps.identity.signals is None:
        return ()
    receiver = SignalReceiver(deps.broker, deps.identity.signals)
    # the body is signed: its transmitter is known by nothing else
    return (
        Route("POST", "/v1/signals/events", receiver.push_event, authenticate=wire.body),
        Route("POST", "/v1/signals/logout", receiver.push_logout, authenticate=wire.body),
    )


def _ascii(raw: bytes) -> str:
    try:
        return raw.decode("ascii")
    except UnicodeDecodeError as error:
        raise InvalidRequestError("the body is not a token") from error


def _logout_token(raw: bytes) -> str:
    try:
        given = parse_qs(_ascii(raw), strict_parsing=True, max_num_fields=wire.MAX_FIELDS).get("logout_token", [])
    except ValueError as error:
        raise InvalidRequestError("the form is not well formed") from error
    if len(given) != 1:
        raise InvalidRequestError("the form must have one `logout_token`")
    return given[0]


def _events(claims: Mapping[str, object]) -> Mapping[str, Mapping[str, object]]:
    events = claims.get("events")
    if not isinstance(events, Mapping) or not 0 < len(events) <= MAX_EVENTS:
        raise TokenError("it holds no events")
    if not all(isinstance(event, Mapping) for event in events.values()):
        raise TokenError("it holds something that is no event")
    return events


def _subject(subject: object, about: str, kind: str) -> tuple[str | None, str | None]:
    """Return the human and the session that a subject identifier names (RFC 9493, SSF §3), issuer-qualified.

    A member that cannot be mapped leaves the event about more than it said, never about less. An opaque name alone is
    that of a session where one was revoked (CAEP §3.1), and of nobody who is known elsewhere.
    """
    if not isinstance(subject, Mapping):
        raise InvalidRequestError("the event has no subject")
    whole = subject.get("format") != "complex"
    user = _human(subject if whole else subject.get("user"), about)
    session, alone = None, subject if kind == f"{CAEP}session-revoked" else None
    match alone if whole else subject.get("session"):
        case {"format": "opaque", "id": name}:
            session = f"{about}#{jwt.text({'id': name}, 'id', InvalidRequestError)}"
    if user is None and session is None:
        raise InvalidRequestError(
            "the event is about nobody who is known here", help="humans are known by `iss_sub`, sessions by `opaque`"
        )
    return user, session


def _human(subject: object, about: str) -> str | None:
    match subject:
        # RISC as Google sends it has another name for the format, and a slash at the end of the issuer
        case {"format": "iss_sub", "iss": iss, "sub": sub} | {"subject_type": "iss-sub", "iss": iss, "sub": sub}:
            if not isinstance(iss, str) or iss.removesuffix("/") != about.removesuffix("/"):
                raise InvalidRequestError("the event is about a human of another issuer")
            return f"{about}#{jwt.text({'sub': sub}, 'sub', InvalidRequestError)}"
        case {"format": "aliases", "identifiers": [*listed]}:
            named = (item for item in listed if isinstance(item, Mapping) and item.get("format") == "iss_sub")
            return next((_human(item, about) for item in named if item.get("iss") == about), None)
    return None
