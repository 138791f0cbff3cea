"""``[tls]``: where the control plane listens with TLS, as whom, and under which names."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from remit.compose.mistakes import unknown
from remit.errors import InvalidRequestError

_KEYS = {"listen", "certificate", "key", "names"}
_MAX_PORT = 65_535
_HTTPS = 443
_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


@dataclass(frozen=True, slots=True)
class Tls:
    """A TLS listener. ``names`` are the hosts it answers to; the first is the one in the issuer's URL."""

    listen: tuple[str, int]  # any address: this listener alone may be reached from other hosts
    certificate: Path
    key: Path
    names: tuple[str, ...]

    @property
    def url(self) -> str:
        """The base URL of the control plane, and the issuer."""
        return f"https://{self._hosts(self.names[0])[0]}"

    @property
    def hosts(self) -> frozenset[str]:
        """What the Host header may hold."""
        return frozenset(host for name in self.names for host in self._hosts(name))

    def _hosts(self, name: str) -> tuple[str, ...]:
        host = f"[{name}]" if ":" in name else name
        port = self.listen[1]
        return (host, f"{host}:{port}") if port == _HTTPS else (f"{host}:{port}",)


def read(raw: object) -> Tls | None:
    """Return what ``[tls]`` says, None if there is no such section; or raise InvalidRequestError."""
    if raw is None:
        return None
    if not isinstance(raw, Mapping):
        raise InvalidRequestError("`tls` must be a section of the configuration")
    for key in raw:
        if key not in _KEYS:
            raise unknown(f"tls.{key}", _KEYS)
    return Tls(_address(raw.get("listen")), _path(raw, "certificate"), _path(raw, "key"), _names(raw.get("names")))


def _address(value: object) -> tuple[str, int]:
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    try:
        address, number = str(ipaddress.ip_address(host.strip("[]"))), int(port)
    except ValueError:
        raise InvalidRequestError("`tls.listen` must be an IP address with a port") from None
    if not 1 <= number <= _MAX_PORT:
        raise InvalidRequestError(f"`tls.listen` must have a port from 1 to {_MAX_PORT}")
    return address, number


def _path(raw: Mapping[str, object], key: str) -> Path:
    value = raw.get(key)
    if not isinstance(value, str) or not Path(value).is_absolute():
        raise InvalidRequestError(f"`tls.{key}` must be an absolute path")
    return Path(value)


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(name, str) and _named(name) for name in value):
        raise InvalidRequestError("`tls.names` must list the host names, in lower case, that clients use")
    return tuple(value)


def _named(name: str) -> bool:
    try:
        return str(ipaddress.ip_address(name)) == name
    except ValueError:
        return _NAME.fullmatch(name) is not None
