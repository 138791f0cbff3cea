"""Where providers of upstreams send browsers back to, and what remit says of itself to them as a client."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from remit.console import pages
from remit.ports.connections import ConnectionPort
from remit.web import wire
from remit.web.routes import AppDeps, Route

_ANSWER = frozenset({"code", "state", "iss", "error", "error_description", "error_uri"})  # and whatever providers add


class ConnectPage:
    """Takes humans back from providers."""

    def __init__(self, connections: ConnectionPort) -> None:
        self._connections = connections

    async def connected(self, request: Request) -> Response:
        """Redeem what a browser came back with."""
        answer = wire.some(request.scope["query_string"].decode("ascii"), _ANSWER)
        view = await self._connections.finish_connection(request.path_params["resource"], answer)
        text = f"{view.resource} is connected to your account at {view.issuer}. You can close this page."
        return pages.document("message.html", "Connected", text=text)


def routes(deps: AppDeps) -> tuple[Route, ...]:
    if deps.connections is None:
        return ()
    made = ConnectPage(deps.connections)
    return (Route("GET", "/oauth/connected/{resource}", pages.shown(made.connected), query=None),)
