"""How one resource's requests are written: the credential at the one position named for it, and what goes along. Pure.

The bytes a client sent never pass as they came. Of its headers only an allow-list goes on; its own copy of the
credential's header is dropped; a placeholder is swapped at that position and refused wherever else it stands.
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
from remit.gateway.framing import Fields
from remit.gateway.scrub import Needles
from remit.ports import Resource

SETTINGS = frozenset({"arguments", "headers", "inject", "max_body", "provider"})
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
        "destination",
        "format",
        "header",
        "max_body",
        "positions",
        "provider",
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
        known = _names("arguments", provider.arguments if provider is not None else None)
        self.arguments = (known | _names("arguments", resource.settings.get("arguments"))) - NEVER  # select an account
        headers = _names("headers", provider.headers if provider is not None else None)
        forbidden = NEVER | self.arguments | {header for header, _ in self.positions}
        self.allowed = (ALWAYS | headers | _names("headers", resource.settings.get("headers"))) - forbidden

    def forwarded(self, fields: Fields, granted: frozenset[bytes]) -> bytes:
        """Return the client's header lines that go along: the allow-list, and those that the grant names."""
        named = granted - NEVER - {header for header, _ in self.positions} if granted else granted
        return b"".join(
            b"%b: %b\r\n" % (name, value)
            for name, value in fields.items
            if (name in self.allowed or name in named) and name not in fields.nominated
        )


def check(resource: Resource) -> None:
    """Raise InvalidRequestError for an http resource that could never be used."""
    unknown = sorted(resource.settings.keys() - SETTINGS)
    if unknown:
        raise InvalidRequestError(f"`{unknown[0]}` is not a setting of http; there are {', '.join(sorted(SETTINGS))}")
    provider = resource.settings.get("provider")
    Shape(resource, provider_of(provider) if provider is not None else None)


class Recipe:
    """A shape with its secret. ``fixed`` are the header lines of every request, the credential among them."""

    __slots__ = ("fixed", "needles", "secret", "shape")

    def __init__(self, shape: Shape, secret: Secret | None) -> None:
        """Write the credential's header once; UpstreamError when it cannot stand in a header."""
        text = secret.reveal() if secret is not None else ""
        value = shape.format.replace("{}", text) if text else ""
        if secret is not None and not _VALUE.fullmatch(value):
            raise UpstreamError("the credential cannot stand in a header, so the request was not sent")
        self.shape = shape
        self.secret = secret
        self.fixed = _fixed(shape.destination, shape.header, value)
        self.needles = Needles([text] if text else [])  # what holds the secret holds a form of it

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


def _whole(raw: object, default: int) -> int:
    if raw is None:
        return default
    if not isinstance(raw, int) or isinstance(raw, bool) or raw < 1:
        raise InvalidRequestError("`max_body` is a whole number of bytes")
    return raw


class Placeholders:
    """What stands for credentials inside a run: recognised, and refused anywhere but where it belongs."""

    __slots__ = ("_all", "_of", "needles")

    def __init__(self, values: Mapping[str, str]) -> None:
        """Know the placeholder of each resource of a run."""
        self._of = {name: value.encode() for name, value in values.items()}
        self._all = tuple(dict.fromkeys(self._of.values()))
        self.needles = Needles(sorted(set(values.values())))

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
        if self.needles.hit(raw):
            raise PlaceholderError

    def check(self, raw: bytes) -> None:
        """Raise PlaceholderError if a placeholder stands in ``raw``, as it is or with its escapes undone."""
        if self._all and (self.needles.hit(raw) or (b"%" in raw and self.needles.hit(unquote_to_bytes(raw)))):
            raise PlaceholderError
