"""Refresh tokens (RFC 6749 §6), for clients of the flows that go through a browser: opaque, rotated at every use.

Holders of a key need none: their access token renews itself by exchange. A refresh token is bound to the key of its
grant (RFC 9449 §5), so that a copy is worth nothing; and a copy that is used by the key's owner too ends the grant.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response

from remit import jose
from remit.oauth import asked
from remit.oauth.clients import Client
from remit.oauth.minting import Minter
from remit.oauth.oauth import GrantType
from remit.ports.broker import Presented
from remit.web import wire
from remit.web.routes import AppDeps

REFRESH_TOKEN = "refresh_token"  # noqa: S105 - the name of a grant type

Form = Mapping[str, str]


def draw() -> str:
    """Return a new refresh token: 256 random bits."""
    return secrets.token_urlsafe(32)


class Refreshes:
    """The handler of the grant type, and what hands out the first token of a chain."""

    def __init__(self, deps: AppDeps, minter: Minter, new_token: Callable[[], str] = draw) -> None:
        """Serve ``deps``'s broker; ``new_token`` draws tokens."""
        self._broker, self._verifier, self._minter = deps.broker, deps.verifier, minter
        self._new_token = new_token

    def ways(self) -> Mapping[str, GrantType]:
        """Return the grant type for the token endpoint."""
        return {REFRESH_TOKEN: GrantType(asked.TARGETS | {"refresh_token"}, self.refresh)}

    async def begin(self, grant_id: str, client_id: str, audience: str | None = None) -> str:
        """Return the first refresh token of a grant, for the client that it is given to."""
        token = self._new_token()
        await self._broker.issue_refresh_token(grant_id, client_id, jose.digest(token), audience)
        return token

    async def refresh(self, request: Request, form: Form, client: Client) -> Response:
        """Spend a refresh token for an access token and the next refresh token."""
        client.check_named()
        audience = asked.audience(form, self._verifier)
        digest = jose.digest(wire.text(form, "refresh_token"))
        binding, until = self._minter.binding(request, client)
        fresh = self._new_token()
        presented = Presented(digest, client.id, binding.jkt, binding.x5t, client.workload is not None)
        rotated = await self._broker.rotate_refresh_token(presented, jose.digest(fresh))
        meant = rotated.family.audience if audience is None else audience
        return self._minter.answer(rotated.grant, audience=meant, until=until, refresh_token=fresh)
