"""The route table, and the application over it."""

from __future__ import annotations

from starlette import routing
from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from remit.console import connect
from remit.control import administration, connections, descriptions
from remit.control.approvals import ApprovalRoutes
from remit.control.runs import RunRoutes
from remit.control.v1 import V1
from remit.jose.token import STATUS
from remit.kinds.spiffe import bundle
from remit.oauth.authorization_codes import ConsentFlows
from remit.oauth.clients import Clients
from remit.oauth.revocation import IssuedTokens
from remit.oauth.token_endpoint import Exchange, TokenEndpoint
from remit.oauth.token_requests import TokenIssuer
from remit.oauth.wellknown import AGGREGATION, WellKnown
from remit.sessions import events
from remit.web.health import Health
from remit.web.middleware import PROTECTED, Middleware
from remit.web.routes import AppDeps, Route


def routes(deps: AppDeps) -> tuple[Route, ...]:
    tokens = TokenIssuer(deps.verifier, deps.identity.scopes)
    clients = Clients(deps.identity.workloads, deps.verifier, deps.identity.clients)
    flows = ConsentFlows(deps, tokens)
    grants = {**Exchange(deps, tokens).grant_types(), **flows.grant_types()}
    known = WellKnown(deps, grants, flows.metadata())
    oauth = IssuedTokens(deps.broker, deps.verifier, clients)
    endpoint = TokenEndpoint(clients, grants, deps)
    return (
        Route("POST", "/oauth/token", endpoint.token, authenticate=endpoint.authenticate, shared=True),
        Route("POST", "/oauth/revoke", oauth.revoke, authenticate=oauth.revoker, shared=True),
        Route("POST", "/oauth/introspect", oauth.introspect, authenticate=oauth.introspector),
        Route("GET", STATUS, known.status_list, shared=True),
        Route("GET", AGGREGATION, known.status_lists),
        *flows.routes(),
        *deps.identity.registration,
        Route("GET", "/oauth/jwks", known.jwks, shared=True),
        Route("GET", "/.well-known/oauth-authorization-server", known.server, shared=True),
        Route("GET", PROTECTED, known.resource, shared=True),
        Route("GET", PROTECTED + "/{path:path}", known.resource, shared=True),
        Route("GET", "/problems/{code}", known.problem),
        Route("GET", "/healthz", Health(deps.verifier.tokens.token_keys).healthz),
        Route("GET", "/v1/identity", known.identity),
        *bundle.routes(deps),
        *events.routes(deps),
        *deps.streams,
        *V1(deps).routes(),
        *ApprovalRoutes(deps).routes(),
        *administration.routes(deps),
        *connections.routes(deps),
        *descriptions.routes(deps),
        *connect.routes(deps),
        *(() if deps.begin_run is None else RunRoutes(deps.begin_run, deps.end_runs).routes()),
    )


def build(deps: AppDeps) -> Starlette:
    """Return the ASGI application. The listener puts its authentication into the state of each request."""
    middleware = Middleware(deps.verifier)
    table = [
        routing.Route(one.path, middleware.endpoint(one), methods=[one.method, *(["OPTIONS"] if one.shared else [])])
        for one in routes(deps)
    ]
    app = Starlette(routes=table, exception_handlers={HTTPException: middleware.no_route})
    app.router.redirect_slashes = False
    return app
