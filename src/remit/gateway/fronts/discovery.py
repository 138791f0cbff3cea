"""What whoever holds no token yet is told: where tokens come from, and by which scope (RFC 9728); and browsers (CORS).

It is the same for every name of a resource, whether there is one or not, but for the scopes that an operator wrote.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from remit import jose
from remit.core.orders import json_text
from remit.core.scope import Scope
from remit.errors import RemitError, ScopeError, UnauthenticatedError
from remit.gateway.framing import Fields
from remit.web.scope_templates import Templates, of_resource

WELL_KNOWN = "/.well-known/oauth-protected-resource"
EXPOSED = "WWW-Authenticate, DPoP-Nonce, Mcp-Session-Id, Mcp-Protocol-Version, Proxy-Status, Retry-After"
METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"

_PLACE = re.compile(rb"(?:/([a-z0-9][a-z0-9._-]{0,62})(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]*)*)?")
_HEADERS = re.compile(r"[A-Za-z0-9-]{1,64}(?: ?, ?[A-Za-z0-9-]{1,64}){0,31}")  # that a preflight asks for
_THEIRS = re.compile(rb"(?<=\r\n)access-control-[^\r\n]*\r\n", re.IGNORECASE)
# to any origin, and never with what a browser adds by itself: a token that a page has not been given, it cannot use
_SHARED = ("Access-Control-Allow-Origin: *", f"Access-Control-Expose-Headers: {EXPOSED}")


@dataclass(frozen=True, slots=True)
class Discovery:
    """Tells it. ``issuer`` is whose tokens are taken; ``templates`` are the scopes that there are."""

    issuer: str
    templates: Templates

    def answer(self, method: str, raw: bytes, fields: Fields) -> bytes | None:
        """Return the whole answer to what needs no token, metadata or a preflight; None for any other request."""
        path = raw.partition(b"?")[0]
        if method == "OPTIONS" and fields.get(b"origin") and fields.get(b"access-control-request-method"):
            asked = (fields.get(b"access-control-request-headers") or b"").decode("latin-1")
            headers = asked if _HEADERS.fullmatch(asked) else "Authorization"
            lines = (f"Access-Control-Allow-Headers: {headers}", f"Access-Control-Allow-Methods: {METHODS}")
            return _whole("204 No Content", (*lines, "Access-Control-Max-Age: 600"))
        found = _PLACE.fullmatch(path.removeprefix(WELL_KNOWN.encode()))
        if method not in {"GET", "HEAD"} or not path.startswith(WELL_KNOWN.encode()) or found is None:
            return None
        names = [one.name for one in of_resource((found[1] or b"").decode(), self.templates)]
        described = {
            "resource": f"http://{_host(fields)}{found[0].decode()}",
            "authorization_servers": [self.issuer],
            **({"scopes_supported": names} if names else {}),
            "bearer_methods_supported": ["header"],
            "dpop_signing_alg_values_supported": jose.CHALLENGE.split(),
        }
        body = json_text(described)
        whole = _whole("200 OK", ("Content-Type: application/json", f"Content-Length: {len(body)}"))
        return whole if method == "HEAD" else whole + body.encode()

    def refusal(self, error: RemitError, raw: bytes, fields: Fields, held: Scope) -> tuple[str, ...]:
        """Return the header lines of a refusal: how to get in, or to more than is ``held``, and for browsers."""
        shared = _SHARED if fields.get(b"origin") else ()
        found = _PLACE.match(raw)
        name = (found[1] or b"").decode() if found is not None else ""
        own = [one for one in of_resource(name, self.templates) if not set(one.details) <= set(held)]
        if isinstance(error, ScopeError) and own:
            names = [one.name for one in of_resource(name, self.templates)]
            told = f'error="insufficient_scope", scope="{" ".join(names)}"'
        elif isinstance(error, UnauthenticatedError):
            shown = fields.get(b"authorization")
            told = 'error="invalid_token", ' if shown else ""
            told += f'scope="{own[0].name}"' if own else ""
        else:
            return shared
        place = found[0].decode() if found is not None else ""
        where = f'resource_metadata="http://{_host(fields)}{WELL_KNOWN}{place}"'
        return (f"WWW-Authenticate: Bearer {', '.join(filter(None, (told.removesuffix(', '), where)))}", *shared)

    def shared(self, head: bytes, fields: Fields) -> bytes:
        """Return the head of an answer for the page that asked: what the upstream says of origins is of its own."""
        if not fields.get(b"origin"):
            return head
        return _THEIRS.sub(b"", head)[:-2] + "".join(f"{line}\r\n" for line in _SHARED).encode() + b"\r\n"


def _host(fields: Fields) -> str:
    return (fields.get(b"host") or b"").decode()  # one that the listener answers to


def _whole(status: str, lines: tuple[str, ...]) -> bytes:
    fixed = ("Cache-Control: no-store", "Connection: close")
    return "\r\n".join((f"HTTP/1.1 {status}", *lines, *_SHARED, *fixed, "", "")).encode()
