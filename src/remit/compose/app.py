"""The route table and the way of every call: admitted, identified, handled, and its error rendered."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping

from starlette import routing
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from remit.control import audit, keys, policy, spiffe
from remit.control.approvals import Approvals
from remit.control.audit import Audit
from remit.control.v1 import PAGED, V1
from remit.core.flood import LOUD, Flood
from remit.core.principal import Operator
from remit.errors import MethodError, NotFoundError, PolicyError, RemitError, UnauthenticatedError
from remit.oauth import login
from remit.oauth.clients import Clients
from remit.oauth.exchange import Exchange
from remit.oauth.federation import Federation
from remit.oauth.flows import Flows
from remit.oauth.minting import Minter
from remit.oauth.oauth import Endpoint, GrantType, OAuth
from remit.oauth.refresh import Refreshes
from remit.oauth.status import Statuses
from remit.oauth.wellknown import WellKnown
from remit.sessions import receiver
from remit.web import problems, wire
from remit.web.authentication import SocketAuth, TokenAuth, authority_of, check_path, operator
from remit.web.routes import AppDeps, Open, Route, Who
from remit.web.verifier import Verifier

_LOG = logging.getLogger("remit.web")

_FOR_CLIENTS = frozenset(  # whose errors are those of RFC 6749 §5.2, with its status codes
    f"/oauth/{name}" for name in ("token", "par", "device_authorization", "bc-authorize")
)


def rows(surface: AppDeps) -> tuple[Route, ...]:
    """Return the route table."""
    v1, log = V1(surface.broker, surface.verifier.clock), Audit(surface.broker, surface.checkpoint)
    flows = Flows(surface, Minter(surface.broker, surface.verifier, surface.new_id))
    who, ways = Clients(surface.identity.workloads, surface.verifier), {**grant_types(surface), **flows.ways()}
    known, oauth = WellKnown(surface, ways, flows.metadata()), OAuth(surface.broker, surface.verifier, who)
    return (
        Route("POST", "/oauth/token", Who.PROVING, Endpoint(who, ways, surface.verifier).token),
        Route("POST", "/oauth/revoke", Who.PROVING, oauth.revoke),
        Route("POST", "/oauth/introspect", Who.AGENT, oauth.introspect),
        *Statuses(surface).rows(),
        *flows.rows(),
        Route("GET", "/oauth/jwks", Who.PUBLIC, known.jwks),
        Route("GET", "/.well-known/oauth-authorization-server", Who.PUBLIC, known.server),
        Route("GET", "/.well-known/oauth-protected-resource", Who.PUBLIC, known.resource),
        Route("GET", "/problems/{code}", Who.PUBLIC, known.problem),
        *login.rows(surface),
        *spiffe.rows(surface),
        *receiver.rows(surface),
        *surface.streams,
        Route("GET", "/v1/self", Who.AGENT, v1.self_),
        Route("GET", "/v1/tasks", Who.AGENT, v1.tasks),
        Route("GET", "/v1/tasks/{task}", Who.AGENT, v1.task, PAGED),
        Route("POST", "/v1/tasks/{task}/close", Who.AGENT, v1.close),
        Route("POST", "/v1/tasks/{task}/leases", Who.AGENT, v1.issue),
        Route("POST", "/v1/tasks/{task}/grants/{grant}/revoke", Who.AGENT, v1.revoke),
        Route("POST", "/v1/leases/{lease}/renew", Who.AGENT, v1.renew),
        Route("POST", "/v1/leases/{lease}/revoke", Who.AGENT, v1.revoke_lease),
        *Approvals(surface).rows(),
        Route("GET", "/v1/resources", Who.OPERATOR, v1.resources),
        Route("GET", "/v1/resources/{resource}", Who.OPERATOR, v1.resource),
        Route("PUT", "/v1/resources/{resource}", Who.OPERATOR, v1.put_resource),
        Route("DELETE", "/v1/resources/{resource}", Who.OPERATOR, v1.delete_resource),
        Route("POST", "/v1/resources/{resource}/check", Who.OPERATOR, v1.check_resource),
        Route("PUT", "/v1/secrets/{secret}", Who.OPERATOR, v1.put_secret),
        *policy.rows(surface),
        *keys.rows(surface),
        Route("GET", "/v1/audit", Who.OPERATOR, log.entries, audit.ENTRIES),
        Route("GET", "/v1/audit/checkpoint", Who.OPERATOR, log.checkpoint),
        Route("GET", "/v1/audit/proof/inclusion", Who.OPERATOR, log.inclusion, audit.INCLUSION),
        Route("GET", "/v1/audit/proof/consistency", Who.OPERATOR, log.consistency, audit.CONSISTENCY),
    )


def grant_types(surface: AppDeps) -> Mapping[str, GrantType]:
    """Return every way to a token that can succeed here without a human in between, by its ``grant_type``."""
    minter = Minter(surface.broker, surface.verifier, surface.new_id)
    found = {**Exchange(surface, minter).ways(), **Federation(surface, minter).ways()}
    if surface.identity.logins is not None:
        found |= Refreshes(surface, minter).ways()
    return found


def build(surface: AppDeps) -> Starlette:
    """Return the ASGI application. The listener puts its authority into the state of each request."""
    way = Way(surface.verifier)
    routes = [routing.Route(row.path, way.endpoint(row), methods=[row.method]) for row in rows(surface)]
    app = Starlette(routes=routes, exception_handlers={HTTPException: way.off_the_map})
    app.router.redirect_slashes = False
    return app


class Way:
    """What happens to every call, whatever its route."""

    def __init__(self, verifier: Verifier) -> None:
        """Challenge with ``verifier``'s nonces."""
        self._verifier = verifier
        self._flood = Flood()

    def endpoint(self, row: Route) -> Open:
        """Return the endpoint of a route."""

        async def called(request: Request) -> Response:
            try:
                self._admit(request, row.query)
                response = await self._handled(request, row)
            except RemitError as error:
                response = self._refusal(request, error)
            except Exception as error:  # noqa: BLE001 - rendered as internal, told to the log
                response = self._failure(request, error)
            return self._with_nonce(request, response)

        return called

    async def _handled(self, request: Request, row: Route) -> Response:
        handler: Callable[..., Awaitable[Response]] = row.handler
        if row.who in {Who.PUBLIC, Who.PROVING}:
            return await handler(request)
        caller = await authority_of(request).identify(request)
        return await handler(request, operator(caller) if row.who is Who.OPERATOR else caller)

    def _admit(self, request: Request, query: frozenset[str] | None) -> None:
        authority_of(request).admit(request)
        check_path(request)
        wire.check_query(request.scope["query_string"])
        if query is not None and request.scope["path"].startswith("/v1/"):
            wire.pairs(request.scope["query_string"], query, strict=True)

    async def off_the_map(self, request: Request, error: Exception) -> Response:
        """Answer where there is no route, or not this method; only to callers who say who they are.

        That endpoints of OAuth have another method is known to everybody (RFC 9126 §2.3).
        """
        known = isinstance(error, HTTPException) and error.status_code == MethodError.status
        try:
            self._admit(request, frozenset())
            if not (known and request.scope["path"] in _FOR_CLIENTS):
                await authority_of(request).identify(request)
            response = self._refusal(request, MethodError() if known else NotFoundError("there is nothing here"))
        except RemitError as refusal:
            response = self._refusal(request, refusal)
        return self._with_nonce(request, response)

    # -- answering ----------------------------------------------------------------------------------------------

    def _refusal(self, request: Request, error: RemitError) -> Response:
        instance = _instance()
        if isinstance(error, PolicyError) and error.inside is not None and _operators(request):
            error = error.inside  # a human who has logged in at the operator's own socket
        if error.__cause__ is not None:
            self._tell(logging.INFO, f"{instance}: {error.code}", error)
        return self._rendered(request, error, instance)

    def _failure(self, request: Request, error: Exception) -> Response:
        instance = _instance()
        self._tell(logging.ERROR, f"{instance}: {request.method} {request.scope['path']}", error)
        return self._rendered(request, problems.internal(), instance)

    def _tell(self, level: int, text: str, error: Exception) -> None:
        """Tell the log, which anybody could fill otherwise: floods are counted, and faults of ours have a traceback."""
        code, status = getattr(error, "code", type(error).__name__), getattr(error, "status", RemitError.status)
        count = self._flood.told(code, self._verifier.clock())
        if count is None:
            return
        more = f" ({count} times this minute)" if count > LOUD else ""
        _LOG.log(level, "%s%s", text, more, exc_info=error if status >= RemitError.status else None)

    def _rendered(self, request: Request, error: RemitError, instance: str) -> Response:
        path: str = request.scope["path"]
        if path in _FOR_CLIENTS:
            return problems.oauth(error, instance)
        if path.startswith("/oauth/"):
            return problems.oauth(error, instance, error.status)
        return problems.problem(error, self._verifier.issuer, instance)

    def _with_nonce(self, request: Request, response: Response) -> Response:
        """Give the nonce for the next proof (RFC 9449 §8.2), where proofs are made or one was wanting."""
        authority, wanting = request.scope["state"].get("authority"), UnauthenticatedError.status
        if isinstance(authority, TokenAuth) or request.scope["path"] in _FOR_CLIENTS or response.status_code == wanting:
            response.headers["dpop-nonce"] = self._verifier.nonce()
        return response


def _operators(request: Request) -> bool:
    authority = request.scope["state"].get("authority")
    return isinstance(authority, SocketAuth) and isinstance(authority.caller, Operator)


def _instance() -> str:
    """Name one answer, so that the log can be asked about it."""
    return f"urn:remit:instance:{secrets.token_urlsafe(12)}"
