"""Refusals as an agent reads them: an RFC 9457 problem, and RFC 9209 `Proxy-Status` that says remit refused. Pure."""

from __future__ import annotations

from http import HTTPStatus

from remit import jose
from remit.core import scope as scopes
from remit.errors import RemitError

_PROXY_ERROR = {
    400: "http_request_error",
    413: "http_request_error",
    415: "http_request_error",
    421: "http_request_error",
    502: "http_protocol_error",
    503: "proxy_internal_error",
    500: "proxy_internal_error",
}


def document(error: RemitError, request: str, base: str) -> dict[str, object]:
    """Return the problem's members. ``enough`` is the detail that would have been enough.

    ``error`` says it once more in the form that the SDKs of model providers look for, and show to their users.
    """
    found: dict[str, object] = {
        "type": f"{base}{error.code}",
        "title": HTTPStatus(error.status).phrase,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "instance": request,
    }
    told = error.detail if not error.help else f"{error.detail} ({error.help})"
    found["error"] = {"message": f"remit: {told}", "type": found["type"], "code": error.code}
    if error.help:
        found["help"] = error.help
    if error.enough:
        found["enough"] = error.enough
    if error.offending:
        found["offending"] = list(error.offending)
    return found


def response(error: RemitError, request: str, base: str, *, head: bool, keep: bool, nonce: str | None = None) -> bytes:
    """Write a refusal as a whole response; ``head`` leaves the body out."""
    body = scopes.json_text(document(error, request, base)).encode()
    status = HTTPStatus(error.status)
    kind = _PROXY_ERROR.get(error.status, "http_request_denied")
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Content-Type: application/problem+json",
        f"Content-Length: {len(body)}",
        f'Proxy-Status: remit; error={kind}; details="{error.code}"',
        "Cache-Control: no-store",
    ]
    if error.status == HTTPStatus.UNAUTHORIZED:
        lines.append(f'WWW-Authenticate: DPoP error="{error.oauth}", algs="{jose.CHALLENGE}"')
    if nonce is not None:
        lines.append(f"DPoP-Nonce: {nonce}")
    if error.retry_after is not None:
        lines.append(f"Retry-After: {error.retry_after}")
    if not keep:
        lines.append("Connection: close")
    text = "\r\n".join(lines) + "\r\n\r\n"
    return text.encode() + (b"" if head else body)


def unexpected() -> RemitError:
    """Return the error that stands for anything that is not remit's own: it says nothing."""
    return RemitError("remit failed on this request")
