"""Types of settings: each is what a text of the file has to be, read by ``decode`` as msgspec meets it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from remit.core import spiffe
from remit.core.fields import check_issuer, check_url
from remit.errors import InvalidRequestError

T = TypeVar("T")

MAX_ENTRIES = 64  # of a list, and of most tables
MAX_TEXT = 2_048  # characters
MAX_PORT = 65_535

_IT = "it "  # how a check of elsewhere begins what it says of a value
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


class Setting(str):
    """Text that was read as what it has to be."""

    __slots__ = ()


class Text(Setting):
    """Printable text."""


class Texts(tuple[str, ...]):
    """One text or a list of them. An empty list is refused: it could mean all or nothing."""

    __slots__ = ()


class Name(Setting):
    """A short name."""


class Claim(Setting):
    """The name of a claim, or a JSON Pointer to one."""


class Url(Setting):
    """A URL that is fetched: https, or http to a loopback host."""


class IssuerUrl(Setting):
    """An issuer's URL, exactly as it writes it."""


class TrustDomainName(Setting):
    """The name of a trust domain."""


class Address(tuple[str, int]):
    """An IP address with a port."""

    __slots__ = ()

    def __str__(self) -> str:
        """Return it as it stands in a URL."""
        return f"[{self[0]}]:{self[1]}" if ":" in self[0] else f"{self[0]}:{self[1]}"

    @property
    def url(self) -> str:
        """The URL of what listens there in the clear."""
        return f"http://{self}"


def decode(kind: type[T], value: object) -> T:
    """Return a value as one of these types, or raise ValueError with what it has to be."""
    try:
        return kind(_READ[kind](value))  # type: ignore[call-arg]  # each takes the value that it stands for
    except InvalidRequestError as error:
        raise ValueError(error.detail.removeprefix(_IT)) from error


def plain(value: object) -> object:
    """Return a value of these types as text, a tuple or a dict of the language's own; an address stays what it is."""
    match value:
        case str():
            return str(value)
        case tuple() if not isinstance(value, Address):
            return tuple(plain(item) for item in value)
        case dict():
            return {key: plain(item) for key, item in value.items()}
    return value


def _must_be(what: str, holds: Callable[[str], bool]) -> Callable[[object], str]:
    def read(value: object) -> str:
        if not isinstance(value, str) or not holds(value):
            raise ValueError(f"must be {what}")
        return value

    return read


_text = _must_be("text", lambda value: 0 < len(value) <= MAX_TEXT and value.isprintable())


def _texts(value: object) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if not 0 < len(values) <= MAX_ENTRIES:
        raise ValueError(f"must list 1 to {MAX_ENTRIES} texts")
    return tuple(_text(item) for item in values)


def _claim(value: object) -> str:
    from remit.jose.jwt import check_claim_name  # with joserfc: `remit run` reads the configuration too

    return check_claim_name(value, _IT.strip())


def _address(value: object) -> tuple[str, int]:
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    try:
        address, number = str(ipaddress.ip_address(host.strip("[]"))), int(port)
    except ValueError:
        raise ValueError("must be an IP address with a port") from None
    if not 1 <= number <= MAX_PORT:
        raise ValueError(f"must have a port from 1 to {MAX_PORT}")
    return address, number


_READ: Mapping[type, Callable[[object], object]] = {
    Text: _text,
    Texts: _texts,
    Name: _must_be("a short name: a-z, 0-9 and -", lambda value: _NAME.fullmatch(value) is not None),
    Claim: _claim,
    Url: lambda value: check_url(value, _IT.strip()),
    IssuerUrl: lambda value: check_issuer(value, _IT.strip()),
    TrustDomainName: _must_be(
        "the name of a trust domain, such as `example.org`",
        lambda value: spiffe.split(f"spiffe://{value}") == spiffe.SpiffeId(value, ""),
    ),
    Path: _must_be("an absolute path", lambda value: value.startswith("/")),
    Address: _address,
}
