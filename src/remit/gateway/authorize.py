"""One request against a grant's rules: which detail permits it, and how it is written to the upstream. Pure.

The request line and an authorized body are written anew from what was authorized. The rules are the grant's details for
one resource, compiled; they permit just what the details do (``tests/gateway/test_rules.py`` compares them with an
oracle). That a use is within its grant is decided here and nowhere else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from remit import catalog
from remit.catalog.positions import Position, opened
from remit.core.orders import ANY, Value, args_permit, json_text
from remit.core.paths import Places, matched, places
from remit.core.scope import Access, Scope
from remit.errors import CodingError, InvalidRequestError, ScopeError
from remit.gateway import canon
from remit.gateway.canon import RequestTarget
from remit.gateway.framing import BODILESS, Fields
from remit.gateway.target import HttpTarget
from remit.gateway.websocket import asked

MAX_ECHO = 2_048  # characters of arguments that a denial repeats
_JSON = re.compile(rb'application/(?:[a-z0-9.-]+\+)?json(?:[ \t]*;[ \t]*charset="?utf-8"?)?', re.IGNORECASE)
_FORM = re.compile(rb'application/x-www-form-urlencoded(?:[ \t]*;[ \t]*charset="?utf-8"?)?', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Rule:
    """One detail, compiled. ``index`` is its place in the grant's scope."""

    index: int
    actions: frozenset[str]
    patterns: tuple[str, ...]
    paths: Places  # all of them
    args: Value
    free: bool  # every argument is permitted, named or not
    free_body: bool  # the body as a whole is
    reads_body: bool  # arguments inside the body are constrained
    headers: frozenset[str]  # names of headers that are arguments here, in lower case

    def covers(self, action: str, path: str) -> bool:
        return action in self.actions and matched(path, self.paths)

    def leaves_open(self, path: str) -> bool:
        """Whether a WebSocket at a path is permitted, whose messages nobody judges: by name, or as any POST is."""
        return path in self.patterns or (self.covers("POST", path) and (self.free or self.free_body))

    def permits(self, args: Mapping[str, str]) -> bool:
        return self.free or args_permit(self.args, args)


Rules = tuple[Rule, ...]  # all of one grant for one resource, in the order of its scope
Args = Mapping[str, str]  # name -> JSON text
Pairs = tuple[tuple[str, str], ...]  # of a query


def is_json(fields: Fields) -> bool:
    return _JSON.fullmatch(fields.get(b"content-type") or b"") is not None


def places_in_body(target: HttpTarget, fields: Fields) -> tuple[Position, ...]:
    """Return the positions of a target that a body of this type has: fields of JSON, parameters of a form."""
    if not target.in_body:
        return ()
    form = _FORM.fullmatch(fields.get(b"content-type") or b"") is not None
    place = "body" if is_json(fields) else "form" if form else None
    return tuple(position for position in target.in_body if position.place == place)


def compile_rules(scope: Scope, resource: str) -> Rules:
    """Compile the details of ``scope`` that name ``resource`` and paths of it, in the order of the scope."""
    rules = []
    for index, detail in enumerate(scope):
        patterns = detail.texts("paths") if detail.resource == resource else ()
        if not patterns:
            continue
        args = detail.get("args")
        named = dict(args) if isinstance(args, tuple) else {}
        rules.append(
            Rule(
                index=index,
                actions=frozenset(detail.texts("actions")),
                patterns=patterns,
                paths=places(patterns),
                args=args,
                free=args == ANY,
                free_body=named.get("body", ("",))[0] == ANY,
                reads_body=any(name == "body" or name.startswith(("body.", "body[")) for name in named),
                headers=frozenset(name[7:].lower() for name in named if name.startswith("header.")),
            )
        )
    return tuple(rules)


@dataclass(frozen=True, slots=True)
class Permit:
    """A permitted request. ``start`` is its request line; ``body`` its authorized body, or None when it streams."""

    access: Access
    index: int
    start: bytes
    lines: bytes  # the client's header lines that go along
    body: bytes | None = None
    dropped: bytes = b""  # the line that tells the client which of its headers do not


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request as it is authorized. ``body`` is None while it has not been read."""

    method: str
    target: RequestTarget
    fields: Fields
    has_body: bool
    body: bytes | None = field(default=None, repr=False)

    @property
    def coded(self) -> bool:
        """Whether the body is in a coding, which is not looked into."""
        return self.has_body and (self.fields.get(b"content-encoding") or b"identity").lower() != b"identity"

    @property
    def access(self) -> Access:  # without its arguments
        return Access(self.target.resource, self.method, self.target.path)


def authorize(rules: Rules, target: HttpTarget, request: HttpRequest) -> Permit | None:
    """Return how a request is permitted, None when that hangs on a body not yet read, or raise ScopeError."""
    rules = tuple(rule for rule in rules if rule.covers(request.method, request.target.path))
    if not rules:
        raise ScopeError(enough=_enough(target, request))
    rules = tuple(rule for rule in rules if _named(rule, target, request))
    if not rules:
        raise ScopeError(
            "this makes a standing credential at the provider or carries other requests, so a grant must name its path",
            enough=_enough(target, request),
        )
    if asked(request.fields):
        rules = tuple(rule for rule in rules if rule.leaves_open(request.target.path))
        if not rules:
            raise ScopeError(
                "nobody judges what a WebSocket says, so a grant must name its path, or have POST there with any body",
                enough=_enough(target, request),
            )
    ranged = request.fields.get(b"range") is not None and b"range" not in target.allowed
    if ranged and not any("range" in rule.headers for rule in rules):  # pieces of an answer cannot be searched
        raise ScopeError("`Range` is not granted", enough=_enough(target, request, {}, **{"header.range": ANY}))
    if request.has_body and request.method in BODILESS - target.body_on:  # left unread, it is the next request
        raise InvalidRequestError(
            f"a body has no meaning with {request.method}, so it is not sent",
            help=f"where this API takes one, its resource is to say so: --setting 'body_on=[\"{request.method}\"]'",
        )
    if target.in_body:
        _check_body(target, request)
    if rules[0].free:
        return _permitted(rules[0], target, request, None, {}, request.body)
    pairs = canon.query_pairs(request.target.query)
    args = {f"query.{name}": json_text(value) for name, value in pairs}
    args.update(_header_args(rules, target, request.fields))
    if request.body is not None:
        return _with_body(rules, target, request, pairs, args)
    return _by_head(rules, target, request, pairs, args)


def _check_body(target: HttpTarget, request: HttpRequest) -> None:
    """Raise for a body in which nobody can look for the field of a credential, or put one in."""
    if request.coded and places_in_body(target, request.fields):
        raise CodingError(help="send it without `Content-Encoding`")
    if target.key_in_body is not None and not (request.has_body and is_json(request.fields)):
        raise InvalidRequestError(
            "the credential goes into a field of a JSON body, and the request has none",
            help="send an object in JSON, and say so: `Content-Type: application/json`",
        )


def _named(rule: Rule, target: HttpTarget, request: HttpRequest) -> bool:
    """Whether a rule may permit what mints credentials or carries other requests: only if its own paths name just that.

    The destination's base may be part of what the provider calls the path, or only where this provider is.
    """
    path, base = request.target.path, target.destination.base
    return all(
        catalog.named(target.provider, request.method, front + path, [front + wide for wide in rule.patterns])
        for front in {"", base}
    )


def _by_head(rules: Rules, target: HttpTarget, request: HttpRequest, pairs: Pairs, args: Args) -> Permit | None:
    for rule in rules:
        if rule.free:
            return _permitted(rule, target, request, None, {})
        if request.has_body and not rule.free_body:
            if rule.reads_body and not request.coded:
                return None
        elif rule.permits(args):
            return _permitted(rule, target, request, pairs, args)
    if request.coded and any(rule.reads_body for rule in rules):
        raise CodingError(help="send it without `Content-Encoding`")
    raise ScopeError(enough=_enough(target, request, args))


def _with_body(rules: Rules, target: HttpTarget, request: HttpRequest, pairs: Pairs, args: Args) -> Permit:
    assert request.body is not None  # noqa: S101 - narrows the type
    if not is_json(request.fields):
        raise InvalidRequestError(
            "the grant names arguments in the body, so the body must be JSON in UTF-8",
            help="say so in the request: `Content-Type: application/json`",
        )
    value = canon.json_body(request.body)
    args = {**args, **canon.leaves(value)}
    rule = next((rule for rule in rules if rule.permits(args)), None)
    if rule is None:
        raise ScopeError(enough=enough(target.resource.kind, replace(request.access, args=args)))
    return _permitted(rule, target, request, None if rule.free else pairs, args, canon.json_bytes(value))


def _permitted(
    rule: Rule, target: HttpTarget, request: HttpRequest, pairs: Pairs | None, args: Args, body: bytes | None = None
) -> Permit:
    query = request.target.query if pairs is None else (canon.query_text(pairs) or None)
    path = f"{request.method} {target.destination.base}{request.target.path}".encode()
    start = path + (b"?" + query if query is not None else b"") + b" HTTP/1.1\r\n"
    granted = frozenset(name.encode() for name in rule.headers) | (target.arguments if rule.free else frozenset())
    untouched = body is None  # one that is written anew has another coding, length and digest
    lines, dropped = target.forwarded(
        request.fields, granted, free=rule.free and untouched, coded=request.has_body and untouched
    )
    if body is not None and target.key_in_body is not None:
        body = canon.json_bytes(opened(canon.json_body(body), target.key_in_body))
    told = b"remit-dropped: " + dropped + b"\r\n" if dropped else b""
    return Permit(replace(request.access, args=args), rule.index, start, lines, body, told)


def _header_args(rules: Rules, target: HttpTarget, fields: Fields) -> dict[str, str]:
    wanted = {name.encode() for rule in rules for name in rule.headers} | target.arguments
    found: dict[str, str] = {}
    for name, value in fields.items if wanted else ():
        if name not in wanted:
            continue
        key = f"header.{name.decode()}"
        if key in found or name in fields.nominated:
            raise InvalidRequestError(f"`{name.decode()}` is an argument and may stand once")
        found[key] = json_text(value.decode("ascii"))
    return found


def _enough(target: HttpTarget, request: HttpRequest, args: Args | None = None, **more: object) -> dict[str, object]:
    """Return what would be enough for a request; without ``args`` those of its query, if that can be read."""
    if args is None:
        try:
            args = {f"query.{name}": json_text(value) for name, value in canon.query_pairs(request.target.query)}
        except InvalidRequestError:
            args = {}
    left_open = {**({"body": ANY} if request.has_body else {}), **more}
    return enough(target.resource.kind, replace(request.access, args=args), left_open)


def enough(kind: str, access: Access, more: Mapping[str, object] | None = None) -> dict[str, object]:
    """Return the smallest detail that would permit a use and ``more`` arguments; large ones are left open."""
    args: object = ANY
    if sum(map(len, access.args.values())) <= MAX_ECHO:
        args = {name: json.loads(text) for name, text in access.args.items()} | dict(more or {})
    found = {"type": kind, "resource": access.resource, "actions": [access.action], "paths": [access.path]}
    return {**found, **({"args": args} if args else {})}
