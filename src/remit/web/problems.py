"""Errors on the wire: RFC 9457 problems on ``/v1``, RFC 6749 errors on ``/oauth``, a challenge where a proof is due."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import PlainTextResponse, Response

from remit import errors, jose
from remit.errors import (
    LimitError,
    MethodError,
    MisdirectedError,
    ProofError,
    RemitError,
    TokenError,
    TooLargeError,
    UnauthenticatedError,
)
from remit.web import wire

_NOT_IN_DESCRIPTION = re.compile(r"[^\x20-\x21\x23-\x5b\x5d-\x7e]")  # RFC 6749 §5.2


def kinds() -> dict[str, type[RemitError]]:
    """Return every error class by its code."""
    classes = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, RemitError)]
    return {item.code: item for item in classes}


def page(code: str) -> Response:
    """Explain a problem type to people: what its ``type`` URL leads to."""
    kind = kinds().get(code)
    if kind is None:
        raise errors.NotFoundError
    told = f"{kind.code}\n\n{(kind.__doc__ or '').strip()}\n\nstatus {kind.status}, OAuth error {kind.oauth}\n"
    return PlainTextResponse(told, headers=wire.HEADERS)


def members(error: RemitError) -> dict[str, object]:
    """Return what both forms say beyond their own vocabulary; absent members have nothing to say."""
    offending = [dict(detail) for detail in error.offending] or None
    more: dict[str, object] = {"help": error.help, "offending": offending, "enough": error.enough}
    return {name: value for name, value in more.items() if value is not None}


def problem(error: RemitError, issuer: str, instance: str) -> Response:
    """Render an error as a problem document."""
    content = {
        "type": f"{issuer}/problems/{error.code}",
        "title": (type(error).__doc__ or "").strip(),
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "instance": instance,
        **members(error),
    }
    where = f'resource_metadata="{issuer}/.well-known/oauth-protected-resource"'  # RFC 9728 §5.1
    return wire.answer(content, error.status, _headers(error, where), "application/problem+json")


def oauth(error: RemitError, instance: str, status: int | None = None) -> Response:
    """Render an error for an OAuth client. ``code`` and ``help`` are extensions; ``error`` is a registered name.

    Without a ``status`` it is that of RFC 6749 §5.2: 400 unless the client itself could not be authenticated, or the
    server is at fault.
    """
    content = {
        # RFC 8693 §2.2.2: a subject token that is no good is a bad request, not a failed authentication
        "error": "invalid_request" if isinstance(error, TokenError) else error.oauth,
        "error_description": _NOT_IN_DESCRIPTION.sub("'", error.detail),
        "code": error.code,
        "instance": instance,
        **members(error),
    }
    own = TooLargeError | LimitError | MisdirectedError | MethodError
    if status is None and (isinstance(error, own) or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR):
        status = error.status
    elif status is None:
        status = 401 if error.oauth == "invalid_client" else 400
    challenge = "" if status == HTTPStatus.UNAUTHORIZED else None  # RFC 9110 §15.5.2
    return wire.answer(content, status, _headers(error, challenge))


def _headers(error: RemitError, more: str | None) -> Mapping[str, str]:
    """Return the headers of a refusal; ``more`` is added to a challenge, and None makes none."""
    headers = {}
    if isinstance(error, UnauthenticatedError) and more is not None:
        name = error.oauth if isinstance(error, ProofError) else "invalid_token"
        told = "" if type(error) is UnauthenticatedError else f'error="{name}", '
        challenge = f'DPoP {told}algs="{jose.CHALLENGE}"'
        headers["www-authenticate"] = f"{challenge}, {more}" if more else challenge
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    if isinstance(error, TooLargeError):
        headers["connection"] = "close"  # the rest of the body is not worth reading
    return headers
