"""The way of every call: admitted, authenticated, handled, and its error rendered."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from remit.core.audit import LOUD, Flood
from remit.core.principal import Right, check_right
from remit.errors import MethodError, NotFoundError, PolicyError, RemitError, UnauthenticatedError
from remit.web import problems, wire
from remit.web.authentication import SocketAuth, TokenAuth, check_path, listener_of, proven
from remit.web.routes import Route
from remit.web.verifier import Verifier

_LOG = logging.getLogger("remit.web")

_FOR_CLIENTS = frozenset(  # whose errors are those of RFC 6749 §5.2, with its status codes
    f"/oauth/{name}" for name in ("token", "par", "device_authorization", "bc-authorize")
)


class Middleware:
    """What happens to every call, whatever its route. ``verifier`` gives nonces for challenges."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self._flood = Flood()

    def endpoint(self, route: Route) -> Callable[[Request], Awaitable[Response]]:
        """Return the endpoint of a route."""

        async def called(request: Request) -> Response:
            try:
                _admit(request, route.query)
                response = await _handled(request, route)
            except RemitError as error:
                response = self._refusal(request, error)
            except Exception as error:  # noqa: BLE001 - rendered as internal, told to the log
                instance = _instance()
                self._tell(logging.ERROR, f"{instance}: {request.method} {request.scope['path']}", error)
                response = self._rendered(request, problems.internal(), instance)
            return self._with_nonce(request, response)

        return called

    async def no_route(self, request: Request, error: Exception) -> Response:
        """Answer where there is no route, or not this method; only to callers who say who they are.

        That endpoints of OAuth have another method is known to everybody (RFC 9126 §2.3).
        """
        known = isinstance(error, HTTPException) and error.status_code == MethodError.status
        try:
            _admit(request, frozenset())
            if not (known and request.scope["path"] in _FOR_CLIENTS):
                await proven(request)
            response = self._refusal(request, MethodError() if known else NotFoundError("there is nothing here"))
        except RemitError as refusal:
            response = self._refusal(request, refusal)
        return self._with_nonce(request, response)

    # -- answering ----------------------------------------------------------------------------------------------

    def _refusal(self, request: Request, error: RemitError) -> Response:
        instance, listener = _instance(), request.scope["state"].get("listener")
        if (
            isinstance(error, PolicyError)
            and error.inside is not None
            and isinstance(listener, SocketAuth)
            and Right.OPERATE in listener.holder.rights
        ):
            error = error.inside  # a human who has logged in at the operator's own socket
        if error.__cause__ is not None:
            self._tell(logging.INFO, f"{instance}: {error.code}", error)
        return self._rendered(request, error, instance)

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
        listener, wanting = request.scope["state"].get("listener"), UnauthenticatedError.status
        if isinstance(listener, TokenAuth) or request.scope["path"] in _FOR_CLIENTS or response.status_code == wanting:
            response.headers["dpop-nonce"] = self._verifier.nonce()
        return response


def _admit(request: Request, query: frozenset[str] | None) -> None:
    listener_of(request).admit(request)
    check_path(request)
    wire.check_query(request.scope["query_string"])
    if query is not None and request.scope["path"].startswith("/v1/"):
        wire.pairs(request.scope["query_string"], query, strict=True)


async def _handled(request: Request, route: Route) -> Response:
    if route.tcp and not isinstance(listener_of(request), TokenAuth):
        raise NotFoundError
    if route.right is not None:
        principal = await proven(request)
        check_right(principal, route.right)
        return await route.handler(request, principal)
    if route.authenticate is None:
        return await route.handler(request)
    return await route.handler(request, await route.authenticate(request))


def _instance() -> str:
    """Name one answer, so that the log can be asked about it."""
    return f"urn:remit:instance:{secrets.token_urlsafe(12)}"
