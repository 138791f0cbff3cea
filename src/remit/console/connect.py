"""What remit says of itself to providers that read what their clients publish (Client ID Metadata Documents)."""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from remit.core.scope import check_name
from remit.web import wire
from remit.web.routes import AppDeps, Route


def routes(deps: AppDeps) -> tuple[Route, ...]:
    return (Route("GET", "/oauth/client/{resource}", partial(document, deps.verifier.issuer)),)


async def document(issuer: str, request: Request) -> Response:
    """Describe the client that connects one resource: the same for each name, whether there is such a resource."""
    name = check_name(request.path_params["resource"])
    known = {
        "client_id": f"{issuer}/oauth/client/{name}",
        "client_name": f"remit for {name}",
        "client_uri": issuer,
        "redirect_uris": [f"{issuer}/oauth/connected/{name}"],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    }
    return wire.answer(known)
