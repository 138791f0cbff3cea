"""``/v1/identity``: whose word this broker takes for humans, and how a native app logs them in. Public, no secrets."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from remit.web import wire
from remit.web.routes import AppDeps, Route


def rows(surface: AppDeps) -> tuple[Route, ...]:
    """Return the route."""

    async def identity(request: Request) -> Response:
        """Return the issuers of humans with remit's public client there, and those whose humans can decide here."""
        del request
        return wire.answer(
            {
                "issuer": surface.verifier.issuer,
                "humans": [dict(one) for one in surface.identity.native],
                "deciding": list(surface.identity.issuers),
            }
        )

    return (Route("GET", "/v1/identity", identity),)
