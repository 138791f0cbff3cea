"""The token endpoint (RFC 6749 §3.2): it authenticates the client and leaves the rest to the grant type's handler."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from starlette.requests import Request
from starlette.responses import Response

from remit.core.principal import Principal
from remit.errors import UnsupportedGrantError
from remit.oauth import request_form
from remit.oauth.clients import FIELDS, Clients, OAuthClient
from remit.web import wire
from remit.web.wire import Form

_ALWAYS = FIELDS | {"grant_type"}

Handler = Callable[[Request, Form, OAuthClient], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class GrantType:
    """One way to a token: the form fields it takes beside those of every way, and what answers.

    ``subject`` finds who acts where that takes more than the client: the holder of a token that is exchanged.
    """

    fields: frozenset[str]
    handler: Handler
    subject: Callable[[Request, OAuthClient], Awaitable[Principal | None]] | None = None


class TokenEndpoint:
    """The token endpoint, with a handler for each of ``grant_types``."""

    def __init__(self, clients: Clients, grant_types: Mapping[str, GrantType]) -> None:
        self._clients, self._grant_types = clients, grant_types
        self._known = _ALWAYS.union(*(one.fields for one in grant_types.values()))

    async def authenticate(self, request: Request) -> OAuthClient:
        """Return the client of a token request, and who acts."""
        form = await wire.form(request, self._known, request_form.TARGETS)
        grant_type = self._grant_types.get(wire.text(form, "grant_type"))
        if grant_type is None:
            raise UnsupportedGrantError
        client = await self._clients.authenticate(request, wire.meant(form, _ALWAYS | grant_type.fields))
        if grant_type.subject is None:
            return client
        return replace(client, principal=await grant_type.subject(request, client))

    async def token(self, request: Request, client: OAuthClient) -> Response:
        """Answer a token request by its grant type."""
        return await self._grant_types[client.form["grant_type"]].handler(request, client.form, client)
