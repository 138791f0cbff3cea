"""Connections of humans to the providers of upstreams, as the operator makes, sees and ends them."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from remit.core import fields
from remit.core.connection import SCOPE
from remit.core.orders import digest
from remit.core.principal import IdToken, Operator, Right
from remit.errors import ConflictError
from remit.ports.connections import ConnectionPort, ConnectionView
from remit.web import wire
from remit.web.routes import AppDeps, BeginConnection, Route


class ConnectionRoutes:
    """Connections of one broker."""

    def __init__(self, connections: ConnectionPort, begin: BeginConnection | None) -> None:
        self._connections, self._begin = connections, begin

    async def connections(self, _request: Request, operator: Operator) -> Response:
        return wire.listing(connections=map(_shown, await self._connections.connections(operator)))

    async def begin(self, request: Request, operator: Operator) -> Response:
        """Begin to connect the owner, or the human of an ID token; the answer says where their browser goes."""
        asked = await wire.document(request, frozenset({"resource", "id_token", "scopes"}))
        if self._begin is None:
            raise ConflictError("no browser can come back to this broker: it serves no TCP", help="`remit up` does")
        name = wire.text(asked, "resource")
        token = IdToken(wire.text(asked, "id_token")) if "id_token" in asked else None
        more = fields.texts("scopes", asked.get("scopes", []), SCOPE)
        begun = await self._begin(operator, name, token, more)
        about = {"issuer": begun.issuer, "destination": begun.destination, "scope": begun.scope}
        return wire.answer({"resource": name, "url": begun.url, "begun": digest(begun.state), **about}, 201)

    async def confirm(self, request: Request, operator: Operator) -> Response:
        """Make what was begun here, and came back, by the code that the browser was shown."""
        asked, name = await wire.document(request, frozenset({"begun", "code"})), request.path_params["resource"]
        begun, code = wire.text(asked, "begun"), wire.text(asked, "code")
        return wire.answer(_shown(await self._connections.type_connection_code(operator, name, begun, code)))

    async def end(self, request: Request, operator: Operator) -> Response:
        asked = await wire.document(request, frozenset({"human"}))
        human = wire.text(asked, "human") if "human" in asked else None
        view = await self._connections.end_connection(operator, request.path_params["resource"], human)
        return wire.answer(_shown(view))


def routes(deps: AppDeps) -> tuple[Route, ...]:
    """Return the routes of the operator, who comes to the control socket alone."""
    if deps.connections is None:
        return ()
    made = ConnectionRoutes(deps.connections, deps.begin_connection)
    return (
        Route("GET", "/v1/connections", made.connections, Right.OPERATE),
        Route("POST", "/v1/connections", made.begin, Right.OPERATE),
        Route("POST", "/v1/connections/{resource}/confirm", made.confirm, Right.OPERATE),
        Route("POST", "/v1/connections/{resource}/end", made.end, Right.OPERATE),
    )


def _shown(view: ConnectionView) -> Mapping[str, object]:
    return {
        "resource": view.resource,
        "human": view.human,
        "issuer": view.issuer,
        "scope": view.scope,
        "made_at": wire.instant(view.made_at),
        "state": "over" if view.over else "unsure" if view.unsure else "live",
        "cause": view.over or None,
        "used_at": None if view.used_at is None else wire.instant(view.used_at),
        "tasks": [task.id for task in view.tasks],
        "open_tasks": view.open_tasks,
    }
