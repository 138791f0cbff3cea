"""One request against a grant's rules: which detail permits it, and how it is written to the upstream. Pure.

What is judged is what is forwarded: the request line and a judged body are written anew from what was judged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from remit import catalog
from remit.core import scope as scopes
from remit.core.scope import Access
from remit.errors import CodingError, InvalidRequestError, ScopeError
from remit.gateway import canon
from remit.gateway.canon import Target
from remit.gateway.framing import BODILESS, Fields
from remit.gateway.inject import Shape
from remit.gateway.match import Matcher, Rule, permitting

MAX_ECHO = 2_048  # characters of arguments that a denial repeats
_JSON = re.compile(rb'application/(?:[a-z0-9.-]+\+)?json(?:[ \t]*;[ \t]*charset="?utf-8"?)?', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Judged:
    """A permitted request. ``start`` is its request line; ``body`` its judged body, or None when it streams."""

    access: Access
    index: int
    start: bytes
    lines: bytes  # the client's header lines that go along
    body: bytes | None = None
    dropped: bytes = b""  # the line that tells the client which of its headers do not


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it is judged. ``body`` is None while it has not been read."""

    method: str
    target: Target
    fields: Fields
    has_body: bool
    body: bytes | None = field(default=None, repr=False)

    @property
    def coded(self) -> bool:
        """Whether the body is in a coding, which is not looked into."""
        return self.has_body and (self.fields.get(b"content-encoding") or b"identity").lower() != b"identity"

    @property
    def access(self) -> Access:
        """The use that is attempted, before its arguments are known."""
        return Access("http", self.target.resource, self.method, self.target.path)


def judge(matcher: Matcher, shape: Shape, asked: Asked) -> Judged | None:
    """Return how a request is permitted, None when that hangs on a body not yet read, or raise ScopeError."""
    rules = matcher.rules(asked.method, asked.target.path)
    if not rules:
        raise ScopeError(enough=_enough(asked, _known_args(asked)))
    rules = tuple(rule for rule in rules if _named(rule, shape, asked))
    if not rules:
        raise ScopeError(
            "this makes a standing credential at the provider or carries other requests, so a grant must name its path",
            enough=_enough(asked, _known_args(asked)),
        )
    _check_range(rules, shape, asked)
    _check_method(shape, asked)
    if rules[0].free:
        return _permitted(rules[0], shape, asked, None, {})
    pairs = canon.query_pairs(asked.target.query)
    args = {f"query.{name}": scopes.json_text(value) for name, value in pairs}
    args.update(_header_args(rules, shape, asked.fields))
    if asked.body is not None:
        return _with_body(rules, shape, asked, pairs, args)
    return _by_head(rules, shape, asked, pairs, args)


def _named(rule: Rule, shape: Shape, asked: Asked) -> bool:
    """Whether a rule may permit what mints credentials or carries other requests: only if its own paths name just that.

    The destination's base may be part of what the provider calls the path, or only where this provider is.
    """
    path, base = asked.target.path, shape.destination.base
    return all(
        catalog.named(shape.provider, asked.method, front + path, [front + wide for wide in rule.patterns])
        for front in {"", base}
    )


def _by_head(
    rules: tuple[Rule, ...], shape: Shape, asked: Asked, pairs: tuple[tuple[str, str], ...], args: Mapping[str, str]
) -> Judged | None:
    for rule in rules:
        if rule.free:
            return _permitted(rule, shape, asked, None, {})
        if asked.has_body and not rule.free_body:
            if rule.reads_body and not asked.coded:
                return None
        elif scopes.args_permit(rule.args, args):
            return _permitted(rule, shape, asked, pairs, args)
    if asked.coded and any(rule.reads_body for rule in rules):
        raise CodingError(help="send it without `Content-Encoding`")
    raise ScopeError(enough=_enough(asked, args))


def _with_body(
    rules: tuple[Rule, ...], shape: Shape, asked: Asked, pairs: tuple[tuple[str, str], ...], args: Mapping[str, str]
) -> Judged:
    assert asked.body is not None  # noqa: S101 - narrows the type
    if not _JSON.fullmatch(asked.fields.get(b"content-type") or b""):
        raise InvalidRequestError(
            "the grant names arguments in the body, so the body must be JSON in UTF-8",
            help="say so in the request: `Content-Type: application/json`",
        )
    value = canon.json_body(asked.body)
    args = {**args, **canon.leaves(value)}
    index = permitting(rules, args)
    if index is None:
        raise ScopeError(
            enough=enough(Access("http", asked.target.resource, asked.method, asked.target.path, args=args))
        )
    rule = next(rule for rule in rules if rule.index == index)
    return _permitted(rule, shape, asked, None if rule.free else pairs, args, canon.json_bytes(value))


def _permitted(
    rule: Rule,
    shape: Shape,
    asked: Asked,
    pairs: tuple[tuple[str, str], ...] | None,
    args: Mapping[str, str],
    body: bytes | None = None,
) -> Judged:
    query = asked.target.query if pairs is None else (canon.query_text(pairs) or None)
    path = f"{asked.method} {shape.destination.base}{asked.target.path}".encode()
    start = path + (b"?" + query if query is not None else b"") + b" HTTP/1.1\r\n"
    granted = frozenset(name.encode() for name in rule.headers) | (shape.arguments if rule.free else frozenset())
    access = Access("http", asked.target.resource, asked.method, asked.target.path, args=args)
    untouched = body is None  # one that is written anew has another coding, length and digest
    lines, dropped = shape.forwarded(
        asked.fields, granted, free=rule.free and untouched, coded=asked.has_body and untouched
    )
    told = b"remit-dropped: " + dropped + b"\r\n" if dropped else b""
    return Judged(access, rule.index, start, lines, body, told)


def _header_args(rules: tuple[Rule, ...], shape: Shape, fields: Fields) -> dict[str, str]:
    wanted = {name.encode() for rule in rules for name in rule.headers} | shape.arguments
    found: dict[str, str] = {}
    for name, value in fields.items if wanted else ():
        if name not in wanted:
            continue
        key = f"header.{name.decode()}"
        if key in found or name in fields.nominated:
            raise InvalidRequestError(f"`{name.decode()}` is an argument and may stand once")
        found[key] = scopes.json_text(value.decode("ascii"))
    return found


def _check_range(rules: tuple[Rule, ...], shape: Shape, asked: Asked) -> None:
    """Refuse `Range` unless it is granted by name: pieces of an answer cannot be searched for a whole secret."""
    if asked.fields.get(b"range") is None or b"range" in shape.allowed:
        return
    if not any("range" in rule.headers for rule in rules):
        raise ScopeError("`Range` is not granted", enough=_enough(asked, {}, {"header.range": scopes.ANY}))


def _check_method(shape: Shape, asked: Asked) -> None:
    """Refuse a body where it has no meaning: upstreams that leave it unread take it for the next request."""
    if asked.has_body and asked.method in BODILESS - shape.body_on:
        raise InvalidRequestError(
            f"a body has no meaning with {asked.method}, so it is not sent",
            help=f"where this API takes one, its resource is to say so: --setting 'body_on=[\"{asked.method}\"]'",
        )


def _known_args(asked: Asked) -> dict[str, str]:
    try:
        return {f"query.{name}": scopes.json_text(value) for name, value in canon.query_pairs(asked.target.query)}
    except InvalidRequestError:
        return {}


def _enough(asked: Asked, args: Mapping[str, str], more: Mapping[str, object] | None = None) -> dict[str, object]:
    found = enough(Access("http", asked.target.resource, asked.method, asked.target.path, args=args))
    named = found.get("args", {})
    if isinstance(named, dict):
        extra = {"body": scopes.ANY} if asked.has_body else {}
        named = {**named, **extra, **(more or {})}
        return {**found, **({"args": named} if named else {})}
    return found


def enough(access: Access) -> dict[str, object]:
    """Return the smallest detail that would permit a use, in wire form; large arguments are left open."""
    args: object = scopes.ANY
    if sum(map(len, access.args.values())) <= MAX_ECHO:
        args = {name: json.loads(text) for name, text in access.args.items()}
    found: dict[str, object] = {"type": "http", "resource": access.resource}
    found |= {"actions": [access.action], "paths": [access.path]}
    return {**found, **({"args": args} if args else {})}
