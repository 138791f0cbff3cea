"""The route table, and the application over it."""

from __future__ import annotations

from collections.abc import Mapping

from starlette import routing
from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from remit.control import administration
from remit.control.approvals import ApprovalRoutes
from remit.control.v1 import V1
from remit.core.principal import Right
from remit.kinds.spiffe import bundle
from remit.oauth.authorization_codes import ConsentFlows
from remit.oauth.clients import Clients
from remit.oauth.exchange import Exchange
from remit.oauth.federation import AssertionGrants
from remit.oauth.revocation import IssuedTokens
from remit.oauth.status_list import StatusList
from remit.oauth.token_endpoint import GrantType, TokenEndpoint
from remit.oauth.token_issuer import RefreshGrant, TokenIssuer
from remit.oauth.wellknown import WellKnown
from remit.sessions import receiver
from remit.web.middleware import Middleware
from remit.web.routes import AppDeps, Route


def routes(deps: AppDeps) -> tuple[Route, ...]:
    """Return the route table."""
    flows = ConsentFlows(deps, TokenIssuer(deps.verifier, deps.new_id))
    clients, grants = Clients(deps.identity.workloads, deps.verifier), {**grant_types(deps), **flows.grant_types()}
    known, oauth = WellKnown(deps, grants, flows.metadata()), IssuedTokens(deps.broker, deps.verifier, clients)
    endpoint = TokenEndpoint(clients, grants)
    return (
        Route("POST", "/oauth/token", endpoint.token, authenticate=endpoint.authenticate),
        Route("POST", "/oauth/revoke", oauth.revoke, authenticate=oauth.revoker),
        Route("POST", "/oauth/introspect", oauth.introspect, Right.ACT),
        *StatusList(deps).routes(),
        *flows.routes(),
        Route("GET", "/oauth/jwks", known.jwks),
        Route("GET", "/.well-known/oauth-authorization-server", known.server),
        Route("GET", "/.well-known/oauth-protected-resource", known.resource),
        Route("GET", "/problems/{code}", known.problem),
        Route("GET", "/v1/identity", known.identity),
        *bundle.routes(deps),
        *receiver.routes(deps),
        *deps.streams,
        *V1(deps.broker, deps.kinds, deps.verifier.clock).routes(),
        *ApprovalRoutes(deps).routes(),
        *administration.routes(deps),
    )


def grant_types(deps: AppDeps) -> Mapping[str, GrantType]:
    """Return every way to a token that can succeed here without a human in between, by its ``grant_type``."""
    tokens = TokenIssuer(deps.verifier, deps.new_id)
    found = {**Exchange(deps, tokens).grant_types(), **AssertionGrants(deps, tokens).grant_types()}
    if deps.identity.logins is not None:
        found |= RefreshGrant(deps, tokens).grant_types()
    return found


def build(deps: AppDeps) -> Starlette:
    """Return the ASGI application. The listener puts its authentication into the state of each request."""
    middleware = Middleware(deps.verifier)
    table = [routing.Route(one.path, middleware.endpoint(one), methods=[one.method]) for one in routes(deps)]
    app = Starlette(routes=table, exception_handlers={HTTPException: middleware.no_route})
    app.router.redirect_slashes = False
    return app
