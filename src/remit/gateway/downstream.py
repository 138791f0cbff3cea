"""The gateway's side of a client's connection: answers go out, refusals as an agent reads them.

A refusal is an RFC 9457 problem with RFC 9209 `Proxy-Status`, which says that remit refused and not the upstream.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from remit import jose
from remit.catalog.positions import Position, taken_from_body, taken_from_query
from remit.core.orders import json_text
from remit.errors import MethodError, PlaceholderError, RemitError
from remit.gateway import canon, framing
from remit.gateway.authorize import Permit
from remit.gateway.canon import RequestTarget
from remit.gateway.cutting import shut
from remit.gateway.framing import Fields
from remit.gateway.fronts import Front
from remit.gateway.mcp.servers import ServerNames
from remit.gateway.patterns import SecretPatterns, weak
from remit.gateway.plane import BoundedCache, DataPlane, GrantRoute
from remit.gateway.quota import TaskQuota
from remit.gateway.scrub import UPLOAD, Meter, Scrubber
from remit.gateway.target import HttpTarget

HEAD = 30.0  # seconds for a head to arrive
STALL = 600.0  # seconds without a byte in either direction
LINGER = 2.0  # seconds that a client is listened to after its last answer
_PROXY_ERROR = dict.fromkeys((400, 413, 415, 421), "http_request_error") | {
    500: "proxy_internal_error",
    502: "http_protocol_error",
    503: "proxy_internal_error",
}


@dataclass(slots=True, eq=False)
class ParsedHeaders:
    """A header section that was read strictly and checked; the same bytes are not read again."""

    size: int  # bytes
    fields: Fields
    named: str | None  # the grant
    expects: bool  # that it is told to go on


@dataclass(slots=True, eq=False)
class RequestHead:
    """A request's head that was read strictly and checked.

    ``judged`` is for the listener that it came to: what it is for, and how the grant of that route may do so. A head
    without a body that was permitted is kept; the same bytes are neither read nor judged again. ``names`` tell what a
    server answers from what others do.
    """

    raw: bytes
    method: str
    target: bytes  # as it came
    headers: ParsedHeaders
    judged: tuple[RequestTarget, GrantRoute, Permit] | None = None
    names: ServerNames | None = None


class Placeholders:
    """What a caller shows and must not send on: the placeholders of its run, and its own token.

    A placeholder stands for a credential inside a run: it is swapped where the credential goes, and refused anywhere
    else. A token is for remit alone, ``proven`` or told by its looks: it may stand once, where it is shown.
    """

    __slots__ = ("_of", "_patterns", "_proven")

    def __init__(self, values: Mapping[str, str], *, proven: bool = False) -> None:
        self._of = {name: value.encode() for name, value in values.items()}
        self._proven = proven
        self._patterns = SecretPatterns(sorted(set(self._of.values())))

    def check_head(self, fields: Fields, raw: bytes, target: HttpTarget) -> bytes | None:
        """Return the query without a placeholder that stands where it belongs.

        Raise PlaceholderError if one, or the caller's token, stands where it does not.
        """
        token = self._token(fields)
        patterns = self._beside(token)
        path, mark, rest_of = raw.partition(b"?")
        mine = self._of.get(target.resource.name)
        query: bytes | None = rest_of if mark else None
        for place in target.positions:
            query = taken_from_query(query, place, mine) if place.place == "query" else query
        if patterns is None:
            return query
        for where, part in (("path", path), ("query", query or b"")):
            if patterns.hit(part):
                raise misplaced(where, target)
        headers = () if mine is None else (place for place in target.positions if place.in_header)
        proper = {(i.name.lower().encode(), i.value((mine or b"").decode()).encode()) for i in headers}
        rest = []
        for name, value in fields.items:
            if (name, value) in proper:
                proper.remove((name, value))  # once
            elif name == b"authorization" and token is not None:
                rest.append((name, value.replace(token, b"", 1)))
            else:
                rest.append((name, value))
        if patterns.hit(b"\n".join(map(b": ".join, rest))):
            found = next((name.decode() for name, value in rest if patterns.hit(value)), None)
            raise misplaced("headers" if found is None else f"header `{found}`", target)
        return query

    def taken(self, body: bytes, target: HttpTarget, places: Collection[Position]) -> bytes:
        """Return a body without the placeholder that stands where it belongs, or raise InvalidRequestError.

        ``places`` are in JSON, or all in a form.
        """
        mine = self._of.get(target.resource.name)
        if any(place.place == "form" for place in places):
            rest = body
            for place in places:
                rest = taken_from_query(rest, place, mine) or b""
            return body if rest == body else rest
        value, shown = canon.json_body(body), None if mine is None else mine.decode()
        there = [place for place in places if taken_from_body(value, place, shown)]
        return canon.json_bytes(value) if there else body

    def scrubber(self, fields: Fields) -> Scrubber | None:
        """Return what looks for placeholders, and for the caller's token, in a body."""
        patterns = self.looked_for(fields)
        return None if patterns is None else Scrubber(patterns, meter=Meter(UPLOAD))

    def looked_for(self, fields: Fields) -> SecretPatterns | None:
        """Return what is looked for in what a request with these fields says, if anything."""
        return self._beside(self._token(fields))

    def _beside(self, token: bytes | None) -> SecretPatterns | None:
        if token is not None:
            return self._patterns.beside(token)
        return self._patterns if self._of else None

    def _token(self, fields: Fields) -> bytes | None:
        """Return what `Authorization` shows. Where nobody proved it, only what looks like a token of remit's."""
        shown = (fields.get(b"authorization") or b"").partition(b" ")[2].strip(b" ")
        return shown if not weak(shown) and (self._proven or shown.startswith(b"eyJ")) else None


def misplaced(where: str, target: HttpTarget) -> PlaceholderError:
    """Return the refusal of a placeholder or token that stands in a part of a request, with its right place."""
    provider = target.provider
    right = " or ".join(f"`{place.shown()}`" for place in target.positions)
    reads = f", as a client does that reads `{provider.variables[0]}`" if provider and provider.variables else ""
    return PlaceholderError(
        f"a placeholder or a token of remit's stands in the {where}",
        help=f"send a placeholder alone, in {right}{reads}; nowhere else",
    )


class GatewayListener:
    """One listening socket: its front, what its callers may not send on, and the quota of its task."""

    __slots__ = ("_heads", "_sections", "clients", "front", "placeholders", "plane", "quota")

    def __init__(self, plane: DataPlane, front: Front, placeholders: Mapping[str, str], quota: TaskQuota) -> None:
        self.plane = plane
        self.front = front
        self.placeholders = Placeholders(placeholders, proven=front.bound_grant is None)
        self.quota = quota
        self.clients: dict[Downstream, None] = {}  # the longest there first
        self._sections: BoundedCache[bytes, ParsedHeaders] = BoundedCache()
        self._heads: BoundedCache[bytes, RequestHead] = BoundedCache()

    def read(self, raw: bytes) -> RequestHead:
        """Read a head (without its empty line), or raise what is wrong with it."""
        known = self._heads.get(raw)
        if known is not None:
            return known
        line, _, block = raw.partition(b"\r\n")
        method, target = framing.request_line(line)
        if method in {"TRACE", "CONNECT", "TRACK"}:
            raise MethodError
        section = self._sections.get(block)
        if section is None:
            fields = framing.request_fields(block)
            self.front.check(fields)
            named = fields.get(b"remit-grant")
            expects = fields.get(b"expect") is not None
            section = ParsedHeaders(len(block), fields, None if named is None else named.decode(), expects)
            self._sections.keep(block, len(block), section)
        return RequestHead(raw, method, target, section)

    def keep(self, head: RequestHead, target: RequestTarget, route: GrantRoute, permit: Permit) -> None:
        """Keep a head with how it was permitted: that hangs on nothing else."""
        head.judged = target, route, permit
        self._heads.keep(head.raw, len(head.raw), head)


class Downstream(asyncio.Protocol, ABC):
    """What an exchange may do with its client's connection, which is read elsewhere."""

    __slots__ = ("_held", "_lingers", "_transport", "deadline", "listener", "plane", "until")

    def __init__(self, listener: GatewayListener) -> None:
        self.listener = listener
        self.plane = listener.plane
        self.deadline = self.plane.now + HEAD
        self.until: int | None = None  # when a bearer's token ends, by which the last request came
        self._held = False
        self._lingers = False
        self._transport: asyncio.Transport | None = None

    @property
    @abstractmethod
    def idle(self) -> bool: ...  # no request is under way

    @property
    @abstractmethod
    def pipelined(self) -> bool: ...  # something came after the request that is under way

    @abstractmethod
    def finished(self, exchange: object, *, keep: bool) -> None: ...  # go on to the next request, or close

    async def proven(self, head: RequestHead) -> str:
        """Return the grant that a request proves."""
        found = await self.listener.front.principal(head.method, head.target, head.headers.fields)
        claims = found.claims
        self.until = claims.expires_at if claims is not None and claims.bearer else None
        return found.grant

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self.deadline = self.plane.now + STALL
            self._transport.write(data)

    def headed(self, head: bytes, dropped: bytes, fields: Fields) -> bytes:
        """Return the head of an answer with what was dropped of its request, and what a page of any origin needs."""
        head = head[:-2] + dropped + b"\r\n" if dropped else head
        discovery = self.listener.front.discovery
        return head if discovery is None else discovery.shared(head, fields)

    def refuse(
        self,
        error: RemitError,
        request: str,
        head: RequestHead | None,
        asked: tuple[str | None, RequestTarget | None],
        told: tuple[HTTPStatus, str] | None = None,
        *,
        keep: bool,
    ) -> None:
        """Refuse what came with ``head``: what a grant ``asked`` for, as far as that is known.

        ``told`` is what a protocol above HTTP has in place of a problem: then nothing but that says how to get in.
        """
        unproven, more = error.status == HTTPStatus.UNAUTHORIZED, tuple[str, ...]()
        nonce = self.plane.nonce() if self.plane.nonce is not None and unproven else None
        if head is not None and (discovery := self.listener.front.discovery) is not None:
            more = discovery.refusal(error, head.target, head.headers.fields, self.plane.routes.held(*asked))
        if told is not None:
            more = tuple(line for line in more if not line.startswith("WWW-Authenticate:"))
        bare, base = head is not None and head.method == "HEAD", self.plane.problems
        self.write(response(error, request, base, told, head=bare, keep=keep, nonce=nonce, more=more))

    def hold(self) -> None:
        if self._transport is not None and not self._held:
            self._held = True
            self._transport.pause_reading()

    def release(self) -> None:
        if self._held and self._transport is not None:
            self._held = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def shut(self) -> None:
        shut(self._transport)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def document(error: RemitError, request: str, base: str) -> dict[str, object]:
    """Return the problem's members.

    ``error`` says it once more in the form that the SDKs of model providers look for, and show to their users.
    """
    kind = f"{base}{error.code}"
    told = error.detail if not error.help else f"{error.detail} ({error.help})"
    more = {"help": error.help, "enough": error.enough, "offending": list(error.offending), "url": error.url}
    return {
        "type": kind,
        "title": HTTPStatus(error.status).phrase,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "instance": request,
        "error": {"message": f"remit: {told}", "type": kind, "code": error.code},
        **{name: value for name, value in more.items() if value},
    }


def response(
    error: RemitError,
    request: str,
    base: str,
    told: tuple[HTTPStatus, str] | None = None,
    *,
    head: bool,
    keep: bool,
    nonce: str | None = None,
    more: tuple[str, ...] = (),
) -> bytes:
    """Write a refusal as a whole response, with ``more`` header lines; ``head`` leaves the body out."""
    status, text = told or (HTTPStatus(error.status), json_text(document(error, request, base)))
    body, media = text.encode(), "application/problem+json" if told is None else "application/json"
    kind = _PROXY_ERROR.get(error.status, "http_request_denied")
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {media}",
        f"Content-Length: {len(body)}",
        f'Proxy-Status: remit; error={kind}; details="{error.code}"',
        "Cache-Control: no-store",
        *more,
    ]
    if error.status == HTTPStatus.UNAUTHORIZED:
        lines.append(f'WWW-Authenticate: DPoP error="{error.oauth}", algs="{jose.CHALLENGE}"')
    if nonce is not None:
        lines.append(f"DPoP-Nonce: {nonce}")
    if error.retry_after is not None:
        lines.append(f"Retry-After: {error.retry_after}")
    if not keep:
        lines.append("Connection: close")
    return "\r\n".join((*lines, "", "")).encode() + (b"" if head else body)
