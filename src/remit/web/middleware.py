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
from remit.errors import (
    InvalidRequestError,
    MethodError,
    NotFoundError,
    PolicyError,
    RemitError,
    UnauthenticatedError,
)
from remit.web import problems, wire
from remit.web.authentication import SocketAuth, TokenAuth, listener_of, proven
from remit.web.routes import Route
from remit.web.verifier import Verifier

_LOG = logging.getLogger("remit.web")

_FOR_CLIENTS = frozenset(  # whose errors are those of RFC 6749 §5.2, with its status codes
    f"/oauth/{name}" for name in ("token", "par", "device_authorization", "bc-authorize")
)
# credentials, which histories and logs keep where they stand in a URL
_SECRETS = frozenset({"access_token", "refresh_token", "subject_token", "actor_token", "id_token", "token", "dpop"})
_INSIDE = "the broker's log has it under the instance id: `log` in its state directory"


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
            except Exception as error:  # noqa: BLE001 - rendered as internal, told to the log
                response = self._refusal(request, error)
            return self._with_nonce(request, response)

        return called

    async def no_route(self, request: Request, error: Exception) -> Response:
        """Answer where there is no route, or not this method; only to callers who say who they are.

        That endpoints of OAuth have another method is known to everybody (RFC 9126 §2.3).
        """
        known = isinstance(error, HTTPException) and error.status_code == MethodError.status

        async def nothing(request: Request) -> Response:
            if not (known and request.scope["path"] in _FOR_CLIENTS):
                await proven(request)
            raise MethodError if known else NotFoundError("there is nothing here")

        return await self.endpoint(Route(request.method, request.scope["path"], nothing))(request)

    # -- answering ----------------------------------------------------------------------------------------------

    def _refusal(self, request: Request, error: Exception) -> Response:
        """Render an error. The log is told of its cause, by the id of this one answer."""
        instance, path = f"urn:remit:instance:{secrets.token_urlsafe(12)}", request.scope["path"]
        listener = request.scope["state"].get("listener")
        operator = isinstance(listener, SocketAuth) and Right.OPERATE in listener.holder.rights
        if not isinstance(error, RemitError):  # of which a caller is told nothing
            self._tell(logging.ERROR, f"{instance}: {request.method} {path}", error)
            error = RemitError("something went wrong inside remit", help=_INSIDE)
        elif isinstance(error, PolicyError) and error.inside is not None and operator:
            error = error.inside  # a human who has logged in at the operator's own socket
        if error.__cause__ is not None:
            self._tell(logging.INFO, f"{instance}: {error.code}", error)
        if path.startswith("/oauth/"):
            return problems.oauth(error, instance, None if path in _FOR_CLIENTS else error.status)
        return problems.problem(error, self._verifier.issuer, instance)

    def _tell(self, level: int, text: str, error: Exception) -> None:
        """Tell the log, which anybody could fill otherwise: floods are counted, and faults of ours have a traceback."""
        code, status = getattr(error, "code", type(error).__name__), getattr(error, "status", RemitError.status)
        count = self._flood.told(code, self._verifier.clock())
        if count is None:
            return
        more = f" ({count} times this minute)" if count > LOUD else ""
        _LOG.log(level, "%s%s", text, more, exc_info=error if status >= RemitError.status else None)

    def _with_nonce(self, request: Request, response: Response) -> Response:
        """Give the nonce for the next proof (RFC 9449 §8.2), where proofs are made or one was wanting."""
        listener, wanting = request.scope["state"].get("listener"), UnauthenticatedError.status
        if isinstance(listener, TokenAuth) or request.scope["path"] in _FOR_CLIENTS or response.status_code == wanting:
            response.headers["dpop-nonce"] = self._verifier.nonce()
        return response


def _admit(request: Request, query: frozenset[str] | None) -> None:
    """Refuse what no handler has to see: a foreign host or origin, a path with two spellings, credentials in a URL."""
    listener_of(request).admit(request)
    if b"%" in request.scope.get("raw_path", b""):  # no name on this surface needs an escape
        raise InvalidRequestError(
            "a path here has no percent-encoding", help="a name has lower-case letters, digits, `.`, `_` and `-`"
        )
    raw: bytes = request.scope["query_string"]
    if not _SECRETS.isdisjoint(pair.partition(b"=")[0].decode("latin-1").lower() for pair in raw.split(b"&")):
        raise InvalidRequestError("a credential has no place in a URL")
    if query is not None and request.scope["path"].startswith("/v1/"):
        wire.pairs(raw, query, strict=True)


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
