"""The token endpoint (RFC 6749 §3.2): it authenticates the client and leaves the rest to the grant type's handler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from remit.errors import UnsupportedGrantError
from remit.oauth.clients import FIELDS, Clients, GrantType, OAuthClient
from remit.oauth.token_requests import TARGETS
from remit.web import wire

_ALWAYS = FIELDS | {"grant_type"}


class TokenEndpoint:
    """The token endpoint, with a handler for each of ``grant_types``."""

    def __init__(self, clients: Clients, grant_types: Mapping[str, GrantType]) -> None:
        self._clients, self._grant_types = clients, grant_types
        self._known = _ALWAYS.union(*(one.fields for one in grant_types.values()))

    async def authenticate(self, request: Request) -> OAuthClient:
        """Return the client of a token request, and who acts."""
        form = await wire.form(request, self._known, TARGETS)
        grant_type = self._grant_types.get(wire.text(form, "grant_type"))
        if grant_type is None:
            raise UnsupportedGrantError
        client = await self._clients.authenticate(request, wire.meant(form, _ALWAYS | grant_type.fields))
        if grant_type.subject is None:
            return client
        return replace(client, principal=await grant_type.subject(client))

    async def token(self, _: Request, client: OAuthClient) -> Response:
        """Answer a token request by its grant type."""
        return await self._grant_types[client.form["grant_type"]].handler(client)
