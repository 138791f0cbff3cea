"""``/oauth``: the token endpoint (RFC 6749 §3.2), revocation (RFC 7009), introspection (RFC 7662).

The token endpoint reads the form, finds out who asks, and leaves the rest to the handler of the grant type.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from remit.api import asked, clients, render, wire
from remit.api.clients import Client, Clients
from remit.api.minting import ACCESS_TOKEN
from remit.api.proven import Verifier
from remit.api.who import Caller
from remit.broker import Broker, Holder
from remit.core.token import Claims
from remit.errors import (
    InvalidRequestError,
    NotFoundError,
    RemitError,
    UnauthenticatedError,
    UnsupportedGrantError,
)

_ALWAYS = clients.FIELDS | {"grant_type"}
_HINTED = frozenset({"token", "token_type_hint"})

Form = Mapping[str, str]
Handler = Callable[[Request, Form, Client], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class GrantType:
    """One way to a token: the form fields it takes beside those of every way, and what answers."""

    fields: frozenset[str]
    handler: Handler


class Endpoint:
    """The token endpoint."""

    def __init__(self, who: Clients, ways: Mapping[str, GrantType]) -> None:
        """Answer the grant types of ``ways``."""
        self._who, self._ways = who, ways
        self._known = _ALWAYS.union(*(way.fields for way in ways.values()))

    async def token(self, request: Request) -> Response:
        """Answer a token request by its grant type."""
        form = await wire.form(request, self._known, asked.TARGETS)
        way = self._ways.get(wire.text(form, "grant_type"))
        if way is None:
            raise UnsupportedGrantError
        wire.only(form, _ALWAYS | way.fields)
        return await way.handler(request, form, await self._who.authenticate(request, form))


class OAuth:
    """What is done with tokens that there are."""

    def __init__(self, broker: Broker, verifier: Verifier) -> None:
        """Serve ``broker``; tokens are read by ``verifier``."""
        self._broker, self._verifier = broker, verifier

    async def revoke(self, request: Request, caller: Caller) -> Response:
        """End the grant of a token and all below it; a token that is not the caller's business changes nothing."""
        form = await wire.form(request, _HINTED)
        claims = self._own(caller, wire.text(form, "token"))
        if claims is None:
            return wire.answer({})
        return wire.answer(render.report(await self._broker.revoke(caller, claims.grant)))

    async def introspect(self, request: Request, caller: Caller) -> Response:
        """Tell the claims of a live token of the caller's own subtree; of all else, that it is not active."""
        form = await wire.form(request, _HINTED)
        claims = self._own(caller, wire.text(form, "token"))
        try:
            if claims is None or claims.expires_at <= self._verifier.now():
                return wire.answer({"active": False})
            self._verifier.living(claims)
        except RemitError:
            return wire.answer({"active": False})
        return wire.answer({"active": True, "token_type": "DPoP" if claims.x5t is None else "Bearer", **claims.all})

    def _own(self, caller: Caller, token: str) -> Claims | None:
        """Return the claims of a token of the caller's own subtree, expired or not."""
        try:
            claims = self._verifier.claims(token, expired=True)
            task = self._broker.task(caller, claims.task)
        except (NotFoundError, UnauthenticatedError):
            return None
        root = caller.grant if isinstance(caller, Holder) else task.head.root
        return claims if task.within(claims.grant, root) else None


def check_requested(form: Form) -> None:
    """Raise InvalidRequestError unless an access token is what is requested (RFC 8693 §2.1)."""
    if form.get("requested_token_type", ACCESS_TOKEN) != ACCESS_TOKEN:
        raise InvalidRequestError("`requested_token_type` must be that of an access token")
