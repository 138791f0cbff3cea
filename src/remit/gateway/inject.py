"""How one resource's requests are written: the credential at the one position named for it, and what goes along. Pure.

The bytes a client sent never pass as they came. Of its headers an allow-list goes on, and where a detail leaves all
arguments free what carries no authority; its own copy of the credential's header is dropped; a placeholder is swapped
at that position and refused wherever else it stands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from remit.catalog import Position, Provider, provider_of
from remit.core.secret import Secret
from remit.errors import InvalidRequestError, PlaceholderError, UpstreamError
from remit.gateway import destination
from remit.gateway.destination import Destination
from remit.gateway.framing import BODILESS, Fields
from remit.gateway.headers import carries_authority, told
from remit.gateway.scrub import SecretPatterns
from remit.ports import Resource

SETTINGS = frozenset({"arguments", "body_on", "headers", "inject", "max_body", "provider", "reads_bodies"})
BEARER = Position("Authorization", "Bearer {}")
MAX_BODY = 262_144  # bytes of a body that is judged as a whole
_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}")
_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
ALWAYS = frozenset(
    {
        b"accept",
        b"accept-language",
        b"content-language",
        b"content-type",
        b"idempotency-key",
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"if-unmodified-since",
        b"prefer",
        b"user-agent",
    }
)
_CODING = frozenset({b"content-encoding"})
NEVER = frozenset(
    {
        b"accept-encoding",
        b"connection",
        b"content-encoding",
        b"content-length",
        b"cookie",
        b"dpop",
        b"expect",
        b"forwarded",
        b"host",
        b"keep-alive",
        b"max-forwards",
        b"proxy-authorization",
        b"proxy-connection",
        b"remit-grant",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"via",
        b"x-http-method",
        b"x-http-method-override",
        b"x-method-override",
    }
)


class Shape:
    """What is configured about one http resource, compiled; nothing secret."""

    __slots__ = (
        "allowed",
        "arguments",
        "body_on",
        "destination",
        "format",
        "header",
        "max_body",
        "positions",
        "provider",
        "reads_bodies",
        "resource",
    )

    def __init__(self, resource: Resource, provider: Provider | None) -> None:
        """Compile a resource of a known provider, or of none; what the resource says itself comes first."""
        default = Position(provider.header, provider.format) if provider is not None else BEARER
        injection = _injection(resource.settings.get("inject"), default)
        accepts = provider.accepts if provider is not None else ()
        self.resource = resource
        self.provider = provider
        self.positions = tuple((i.header.lower().encode(), i.format) for i in (injection, *accepts))
        self.destination: Destination = destination.read(resource.destination)
        self.header = injection.header
        self.format = injection.format
        self.max_body = _whole(resource.settings.get("max_body"), MAX_BODY)
        self.body_on = _methods(resource.settings.get("body_on"), provider.body_on if provider is not None else ())
        there = provider is not None and provider.reads_bodies and self.destination.host in provider.hosts
        self.reads_bodies = _flag(resource.settings.get("reads_bodies"), default=there)
        known = _names("arguments", provider.arguments if provider is not None else None)
        self.arguments = (known | _names("arguments", resource.settings.get("arguments"))) - NEVER  # select an account
        headers = _names("headers", provider.headers if provider is not None else None)
        forbidden = NEVER | self.arguments | {header for header, _ in self.positions}
        self.allowed = (ALWAYS | headers | _names("headers", resource.settings.get("headers"))) - forbidden

    def forwarded(
        self, fields: Fields, granted: frozenset[bytes], *, free: bool = False, coded: bool = False
    ) -> tuple[bytes, bytes]:
        """Return the client's header lines that go along, and the names of those that do not, to be told.

        The allow-list goes along, and what the grant names; ``free``: also every other header without authority;
        ``coded``: also the coding of a body that goes on as it came.
        """
        mine = frozenset(header for header, _ in self.positions)
        go = self.allowed | (granted - NEVER - mine) | (_CODING if coded else frozenset())
        never = NEVER | mine
        lines: list[bytes] = []
        dropped: list[bytes] = []
        for name, value in fields.items:
            goes = name in go or (free and name not in never and not carries_authority(name))
            if goes and name not in fields.nominated:
                lines.append(b"%b: %b\r\n" % (name, value))
            elif name not in mine:
                dropped.append(name)
        return b"".join(lines), told(dropped)


def check(resource: Resource, value: Secret | None) -> None:
    """Raise InvalidRequestError for an http resource, or a new secret of it, that could never be used."""
    text = "" if value is None else value.reveal()
    if not text.isascii() or not text.isprintable():
        raise InvalidRequestError("a secret that goes into a header is printable ASCII characters")
    unknown = sorted(resource.settings.keys() - SETTINGS)
    if unknown:
        raise InvalidRequestError(f"`{unknown[0]}` is not a setting of http; there are {', '.join(sorted(SETTINGS))}")
    provider = resource.settings.get("provider")
    Shape(resource, provider_of(provider) if provider is not None else None)


class Recipe:
    """A shape with its secret. ``fixed`` are the header lines of every request, the credential among them."""

    __slots__ = ("fixed", "patterns", "secret", "shape")

    def __init__(self, shape: Shape, secret: Secret | None) -> None:
        """Write the credential's header once; UpstreamError when it cannot stand in a header."""
        text = secret.reveal() if secret is not None else ""
        value = shape.format.replace("{}", text) if text else ""
        if secret is not None and not _VALUE.fullmatch(value):
            raise UpstreamError("the credential cannot stand in a header, so the request was not sent")
        self.shape = shape
        self.secret = secret
        self.fixed = _fixed(shape.destination, shape.header, value)
        self.patterns = SecretPatterns([text.encode()] if text else [])  # what holds the secret holds a form of it

    def __repr__(self) -> str:
        """Mask the credential."""
        return f"Recipe({self.shape.resource.name!r})"


def _fixed(target: Destination, header: str, value: str) -> bytes:
    lines = (
        f"Host: {target.authority}\r\n" + (f"{header}: {value}\r\n" if value else "") + "Accept-Encoding: identity\r\n"
    )
    return lines.encode("ascii")


def _injection(raw: object, default: Position) -> Position:
    if raw is None:
        return default
    if not isinstance(raw, Mapping) or not set(raw) <= {"header", "format"}:
        raise InvalidRequestError("`inject` is an object with `header` and `format`")
    header, form = raw.get("header", default.header), raw.get("format", default.format)
    if not isinstance(header, str) or not _HEADER.fullmatch(header) or header.lower().encode() in NEVER:
        raise InvalidRequestError("`inject.header` is not the name of a header that may hold a credential")
    if not isinstance(form, str) or form.count("{}") != 1 or not _VALUE.fullmatch(form):
        raise InvalidRequestError("`inject.format` is text with one `{}`")
    return Position(header, form)


def _names(what: str, raw: object) -> frozenset[bytes]:
    if raw is None:
        return frozenset()
    if not isinstance(raw, list | tuple) or not all(isinstance(name, str) and _HEADER.fullmatch(name) for name in raw):
        raise InvalidRequestError(f"`{what}` is a list of header names")
    return frozenset(name.lower().encode() for name in raw)


def _methods(raw: object, default: tuple[str, ...]) -> frozenset[str]:
    if raw is None:
        return frozenset(default)
    if not isinstance(raw, list | tuple) or not all(isinstance(name, str) and name in BODILESS for name in raw):
        raise InvalidRequestError(f"`body_on` is a list of methods, of {', '.join(sorted(BODILESS))}")
    return frozenset(raw)


def _flag(raw: object, *, default: bool) -> bool:
    if raw is not None and not isinstance(raw, bool):
        raise InvalidRequestError("`reads_bodies` is true or false")
    return default if raw is None else raw


def _whole(raw: object, default: int) -> int:
    if raw is None:
        return default
    if not isinstance(raw, int) or isinstance(raw, bool) or raw < 1:
        raise InvalidRequestError("`max_body` is a whole number of bytes")
    return raw


class Placeholders:
    """What stands for credentials inside a run: recognised, and refused anywhere but where it belongs."""

    __slots__ = ("_all", "_of", "patterns")

    def __init__(self, values: Mapping[str, str]) -> None:
        """Know the placeholder of each resource of a run."""
        self._of = {name: value.encode() for name, value in values.items()}
        self._all = tuple(dict.fromkeys(self._of.values()))
        self.patterns = SecretPatterns(sorted(set(self._all)))

    def check_fields(self, raw: bytes, fields: Fields, shape: Shape) -> None:
        """Raise PlaceholderError if a placeholder stands anywhere but alone in a credential's header."""
        mine = self._of.get(shape.resource.name)
        right = 0
        if mine is not None:
            proper = {(name, form.replace("{}", mine.decode()).encode()) for name, form in shape.positions}
            right = len(proper.intersection(fields.items))
        if sum(raw.count(value) for value in self._all) != right:
            raise PlaceholderError
        for value in self._all if right else ():
            raw = raw.replace(value, b"")
        if self.patterns.hit(raw):
            raise PlaceholderError

    def check(self, raw: bytes) -> None:
        """Raise PlaceholderError if a placeholder stands in ``raw``, as it is or with its escapes undone."""
        if self._all and (self.patterns.hit(raw) or (b"%" in raw and self.patterns.hit(unquote_to_bytes(raw)))):
            raise PlaceholderError
