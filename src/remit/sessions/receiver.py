"""What issuers push: security event tokens (RFC 8935) and logout tokens (OpenID Connect Back-Channel Logout 1.0).

The token is the proof: it is signed by a configured issuer, for this broker, and about that issuer's humans. When the
answer is a success, what was said is durable and everything that it is about has ended.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response

from remit.core.principal import Signal
from remit.errors import AudienceError, InvalidRequestError, RemitError, TokenError
from remit.ports.broker import BrokerPort
from remit.ports.identity import Signals
from remit.sessions.delivery import MEDIA
from remit.web import wire
from remit.web.routes import AppDeps, Route

EVENTS = "/v1/signals/events"
LOGOUT = "/v1/signals/logout"
MAX_TOKEN = 16_384  # characters
BAD_REQUEST, ACCEPTED = 400, 202

Read = Callable[[str], Awaitable[Sequence[Signal]]]


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
            refusal = {"err": err(error), "description": error.detail}
            return wire.answer(refusal, BAD_REQUEST, {"content-language": "en"})
        return Response(status_code=ACCEPTED, headers=wire.HEADERS)

    async def push_logout(self, _: Request, body: bytes) -> Response:
        """Take a logout token (Back-Channel Logout §2.5, §2.8). Other fields of the form mean nothing, and may be."""
        try:
            await self._take(_logout_token(body), self._signals.logout)
        except (TokenError, InvalidRequestError) as error:
            return wire.answer({"error": "invalid_request", "error_description": error.detail}, BAD_REQUEST)
        return Response(headers=wire.HEADERS)

    async def _take(self, token: str, read: Read) -> None:
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
        Route("POST", EVENTS, receiver.push_event, authenticate=wire.body),
        Route("POST", LOGOUT, receiver.push_logout, authenticate=wire.body),
    )


def err(error: RemitError) -> str:
    """Return the name of a refusal in the registry of RFC 8935 §7.1."""
    if isinstance(error, AudienceError):
        return "invalid_audience"
    # the token is all by which a transmitter is known
    return "authentication_failed" if isinstance(error, TokenError) else "invalid_request"


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
