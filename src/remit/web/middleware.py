"""The way of every call: admitted, authenticated, handled, and its error rendered.

Errors are RFC 9457 problems on ``/v1``, RFC 6749 errors on ``/oauth``, with a challenge where a proof is due.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from remit import errors, jose
from remit.core.audit import LOUD, Flood
from remit.core.principal import Right, check_right
from remit.errors import InvalidRequestError, MethodError, NotFoundError, RemitError, UnauthenticatedError
from remit.web import wire
from remit.web.authentication import INVALID_TOKEN, SocketAuth, TokenAuth, listener_of, proven
from remit.web.routes import Route
from remit.web.verifier import Verifier

_LOG = logging.getLogger("remit.web")

_FOR_CLIENTS = frozenset(  # whose errors are those of RFC 6749 §5.2, with its status codes
    f"/oauth/{name}" for name in ("token", "par", "device_authorization", "bc-authorize")
)
# credentials, which histories and logs keep where they stand in a URL
_SECRETS = frozenset({"access_token", "refresh_token", "subject_token", "actor_token", "id_token", "token", "dpop"})
_REALM = 'realm="remit"'
_NOT_IN_DESCRIPTION = re.compile(r"[^\x20-\x21\x23-\x5b\x5d-\x7e]")  # RFC 6749 §5.2
PROTECTED = "/.well-known/oauth-protected-resource"
_PLAIN = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_INSIDE = "the broker's log has it under the instance id: `log` in its state directory"


_SHARED = {  # the Fetch standard, CORS: to every origin, so that no browser adds credentials of its own
    "access-control-allow-origin": "*",
    "access-control-expose-headers": "WWW-Authenticate, DPoP-Nonce, Retry-After",
}
_ASKED = "Authorization, Content-Type, DPoP, MCP-Protocol-Version"  # the last: clients of MCP send it to fetch metadata
_ALLOWED = {
    "access-control-allow-methods": "GET, POST, PUT, DELETE",
    "access-control-allow-headers": _ASKED,
    "access-control-max-age": "600",
}
_PREFLIGHT = partial(Response, status_code=204, headers=_ALLOWED)


class Middleware:
    """What happens to every call, whatever its route. ``verifier`` gives nonces for challenges."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier, self._flood = verifier, Flood()

    def endpoint(self, route: Route) -> Callable[[Request], Awaitable[Response]]:
        """Return the endpoint of a route."""

        async def called(request: Request) -> Response:
            try:
                _admit(request, route)
                preflight = route.shared and request.method == "OPTIONS"
                response = _PREFLIGHT() if preflight else await _handled(request, route)
            except Exception as error:  # noqa: BLE001 - rendered as internal, told to the log
                response = self._refusal(request, error)
            response.headers.update(_SHARED if route.shared else {})
            return self._with_nonce(request, response)

        return called

    async def no_route(self, request: Request, error: Exception) -> Response:
        """Answer where there is no route, or not this method; only to callers who say who they are."""
        known = isinstance(error, HTTPException) and error.status_code == MethodError.status

        async def nothing(request: Request) -> Response:
            if not (known and request.scope["path"] in _FOR_CLIENTS):  # their methods are no secret: RFC 9126 §2.3
                await proven(request)
            raise MethodError if known else NotFoundError("there is nothing here")

        return await self.endpoint(Route(request.method, request.scope["path"], nothing))(request)

    def _refusal(self, request: Request, error: Exception) -> Response:
        """Render an error. The log is told of its cause, by the id of this one answer."""
        instance, path = f"urn:remit:instance:{secrets.token_urlsafe(12)}", request.scope["path"]
        listener = request.scope["state"].get("listener")
        operator = isinstance(listener, SocketAuth) and Right.OPERATE in listener.holder.rights
        if not isinstance(error, RemitError):  # of which a caller is told nothing
            self._tell(logging.ERROR, f"{instance}: {request.method} {path}", error)
            error = RemitError("something went wrong inside remit", help=_INSIDE)
        elif isinstance(error, errors.PolicyError) and error.inside is not None and operator:
            error = error.inside  # a human who has logged in at the operator's own socket
        if error.__cause__ is not None:
            self._tell(logging.INFO, f"{instance}: {error.code}", error)
        tried = request.headers.get("authorization", "").partition(" ")[0].lower()
        if path.startswith("/oauth/"):
            return oauth_error(error, instance, None if path in _FOR_CLIENTS else _status(error), tried)
        return problem_document(error, self._verifier.issuer, instance, tried, path)

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


def _admit(request: Request, route: Route) -> None:
    """Refuse what no handler has to see: a foreign host or origin, a path with two spellings, credentials in a URL."""
    query = route.query
    listener_of(request).admit(request, shared=route.shared)
    if b"%" in request.scope.get("raw_path", b""):  # no name on this surface needs an escape
        raise InvalidRequestError(
            "a path here has no percent-encoding", help="a name has lower-case letters, digits, `.`, `_` and `-`"
        )
    raw: bytes = request.scope["query_string"]
    if raw.count(b"&") >= wire.MAX_PAIRS:
        raise InvalidRequestError(f"a query has at most {wire.MAX_PAIRS} parameters")
    if not _SECRETS.isdisjoint(pair.partition(b"=")[0].decode("latin-1").lower() for pair in raw.split(b"&")):
        raise InvalidRequestError("a credential has no place in a URL")
    if query is not None and request.scope["path"].startswith("/v1/"):
        if len(raw) > wire.MAX_QUERY:
            raise InvalidRequestError(f"a query has at most {wire.MAX_QUERY:,} bytes here")
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


def error_classes() -> dict[str, type[RemitError]]:
    """Return every error class by its code."""
    classes = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, RemitError)]
    return {item.code: item for item in classes}


def _members(error: RemitError) -> dict[str, object]:
    """Return what both forms say beyond their own vocabulary; absent members have nothing to say."""
    offending = [dict(detail) for detail in error.offending] or None
    more: dict[str, object] = {"help": error.help, "offending": offending, "enough": error.enough, "url": error.url}
    return {name: value for name, value in more.items() if value is not None}


def _status(error: RemitError) -> int:
    return UnauthenticatedError.status if error.told_as == INVALID_TOKEN else error.status


def problem_document(error: RemitError, issuer: str, instance: str, tried: str = "", path: str = "") -> Response:
    """Render an error as a problem document; ``tried`` is the scheme that the caller has shown something by."""
    content = {
        "type": f"{issuer}/problems/{error.code}",
        "title": (type(error).__doc__ or "").strip(),
        "status": _status(error),
        "detail": error.detail,
        "code": error.code,
        "instance": instance,
        **_members(error),
    }
    there = path if _PLAIN.fullmatch(path) else ""
    where = f'resource_metadata="{issuer}{PROTECTED}{there}"'  # RFC 9728 §5.1, and §3.1 of a path
    return wire.answer(content, _status(error), _headers(error, where, tried), "application/problem+json")


def oauth_error(error: RemitError, instance: str, status: int | None = None, tried: str = "") -> Response:
    """Render an error for an OAuth client. ``code`` and ``help`` are extensions; ``error`` is a registered name.

    Without ``status`` it is 400, unless the client is not authenticated or the server is at fault (RFC 6749 §5.2).
    """
    content = {
        # RFC 8693 §2.2.2: a subject token that is no good is a bad request, not a failed authentication
        "error": error.told_as or ("invalid_request" if isinstance(error, errors.TokenError) else error.oauth),
        "error_description": _NOT_IN_DESCRIPTION.sub("'", error.detail),
        "code": error.code,
        "instance": instance,
        **_members(error),
    }
    own = errors.TooLargeError | errors.LimitError | errors.MisdirectedError | MethodError
    if status is None and (isinstance(error, own) or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR):
        status = error.status
    elif status is None:
        status = 401 if error.oauth == "invalid_client" else 400
    challenge = "" if status == HTTPStatus.UNAUTHORIZED else None  # RFC 9110 §15.5.2
    return wire.answer(content, status, _headers(error, challenge, tried))


def _headers(error: RemitError, more: str | None, tried: str) -> Mapping[str, str]:
    """Return the headers of a refusal; ``more`` is added to a challenge, and None makes none."""
    headers = {}
    if _status(error) == UnauthenticatedError.status and more is not None:
        headers["www-authenticate"] = _challenge(error, more, tried)
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    if isinstance(error, errors.TooLargeError):
        headers["connection"] = "close"  # the rest of the body is not worth reading
    return headers


def _challenge(error: RemitError, more: str, tried: str) -> str:
    """Return what to prove and how: first for the scheme that was tried (RFC 6749 §5.2, RFC 6750 §3, RFC 9449 §7.2)."""
    proof = error.oauth if isinstance(error, errors.ProofError) and tried != "bearer" else INVALID_TOKEN
    told = "" if type(error) is UnauthenticatedError else f'error="{proof}"'
    keyed = f'algs="{jose.CHALLENGE}"'
    if tried == "bearer":
        parts = ["Bearer " + (told or _REALM), more, f"DPoP {keyed}"]
    else:
        parts = [f"Basic {_REALM}" if tried == "basic" else "", "DPoP " + (f"{told}, {keyed}" if told else keyed), more]
    return ", ".join(part for part in parts if part)
