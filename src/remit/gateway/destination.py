"""Where a resource's credential may go: read strictly from configuration, never from a request. Pure."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from remit.core.urls import is_loopback
from remit.errors import InvalidRequestError

_HTTP = re.compile(
    r"(https?)://([a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:.]{2,45}\])(?::([1-9][0-9]{0,4}))?"
    r"((?:/[A-Za-z0-9\-_~!$&'()+,=:@][A-Za-z0-9\-._~!$&'()+,=:@]*)*)"
)
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_DATABASE = re.compile(
    r"postgres(?:ql)?://(?:[^@/?#\s]*@)?([a-z0-9.-]+|\[[0-9a-f:.]+\])(?::([1-9][0-9]{0,4}))?/[^?#\s]*"
)
MAX_PORT = 65_535


@dataclass(frozen=True, slots=True)
class Destination:
    """A host to dial, whether by TLS, and the path in front of every request's."""

    host: str
    port: int
    tls: bool
    base: str

    @property
    def authority(self) -> str:
        """The value of `Host`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


def read(text: str) -> Destination:
    """Read an http resource's destination, or raise InvalidRequestError. Plain http is for loopback only."""
    found = _HTTP.fullmatch(text)
    if found is None:
        raise InvalidRequestError(
            "a destination is `https://host[:port][/base]`, in lower case and without a slash at its end",
            help="write an international name in its `xn--` form",
        )
    tls = found[1] == "https"
    host = _host(found[2])
    if not tls and not is_loopback(host):
        raise InvalidRequestError("plain `http` is accepted for loopback only")
    return Destination(host, _port(found[3], 443 if tls else 80), tls, found[4])


def read_database(text: str) -> tuple[str, int]:
    """Return host and port of a database resource's destination."""
    found = _DATABASE.fullmatch(text)
    if found is None:
        raise InvalidRequestError("a destination is `postgresql://user@host:port/database`")
    return _host(found[1]), _port(found[2], 5432)


def _host(text: str) -> str:
    bare = text.strip("[]")
    if _address(bare) is not None:
        return bare
    labels = text.split(".")
    if len(text) > 253 or not all(_LABEL.fullmatch(label) for label in labels):  # noqa: PLR2004 - RFC 1035
        raise InvalidRequestError("the destination's host is not a plain DNS name")
    if labels[-1].isdigit() or labels[-1].startswith("0x"):  # `127.1`, `0x7f000001`: resolvers read them as addresses
        raise InvalidRequestError("the destination's host is a number that is not an address in full")
    return text


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _port(text: str | None, default: int) -> int:
    port = int(text) if text else default
    if port > MAX_PORT:
        raise InvalidRequestError("the destination's port does not exist")
    return port
