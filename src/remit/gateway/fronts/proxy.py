"""The fronts of a run's HTTP proxy: the host that a client wants names the resource.

A request in absolute form says its host itself (RFC 9112 §3.2.2); on a connection that was made for one host, by
`CONNECT` or by the server name of its TLS, every request is for that host.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from remit.core.principal import Holder
from remit.errors import InvalidRequestError, MisdirectedError, NotFoundError, ScopeError
from remit.gateway import canon
from remit.gateway.canon import RequestTarget
from remit.gateway.framing import Fields
from remit.gateway.fronts.discovery import Discovery
from remit.ports.runs import ReachedHost

HTTPS, HTTP = 443, 80
_AUTHORITY = re.compile(rb"([^:]*):([1-9][0-9]{0,4})")
_ABSOLUTE = re.compile(rb"http://([^/?#]+)([^?]*)(?:\?(.*))?", re.DOTALL)


def authority(raw: bytes) -> tuple[str, int]:
    """Read `host:port`, the target of a `CONNECT` (RFC 9112 §3.2.3), or raise InvalidRequestError."""
    found = _AUTHORITY.fullmatch(raw)
    if found is None:
        raise InvalidRequestError("what is to be connected is not `host:port`")
    return canon.host(found[1]), int(found[2])


def unreached(host: str) -> ScopeError:
    """Return the refusal of a host that is none of a run's."""
    return ScopeError(
        f"the grant reaches no resource at `{host}`",
        help="ask for a resource at that host, or for egress to it; `remit resource list` shows where each is",
    )


@dataclass(slots=True, eq=False)
class ProxyFront:
    """The front of a run's proxy: of each request that says its host itself."""

    bound_grant: str | None
    _hosts: Mapping[str, ReachedHost]
    discovery: Discovery | None = None

    def check(self, fields: Fields) -> None:
        """Leave `Host` to each request's target, which it repeats."""

    async def principal(self, method: str, raw: bytes, fields: Fields) -> Holder:  # noqa: ARG002 - a proxy is a run's
        raise NotFoundError

    def target(self, raw: bytes, fields: Fields) -> RequestTarget:
        found = _ABSOLUTE.fullmatch(raw)
        if found is None:
            raise InvalidRequestError(
                "this is a proxy, and the target has no host: `http://host/path`",
                help="for a base URL use the gateway's, in `REMIT_GATEWAY`",
            )
        host, port = authority(found[1] if b":" in found[1] else found[1] + b":80")
        if fields.get(b"host") not in {found[1], found[1].removesuffix(b":80")}:
            raise InvalidRequestError("`Host` is another than that of the target")
        reached = self._hosts.get(host)
        if reached is None or port != HTTP:
            raise unreached(host)
        return _at(reached, found[2], found[3])


@dataclass(slots=True, eq=False)
class HostFront:
    """The front of connections for one host."""

    bound_grant: str | None
    _host: bytes
    _reached: ReachedHost
    discovery: Discovery | None = None

    def check(self, fields: Fields) -> None:
        if (fields.get(b"host") or b"").lower() not in {self._host, self._host + b":443"}:
            raise MisdirectedError

    async def principal(self, method: str, raw: bytes, fields: Fields) -> Holder:  # noqa: ARG002 - a proxy is a run's
        raise NotFoundError

    def target(self, raw: bytes, fields: Fields) -> RequestTarget:  # noqa: ARG002 - the connection says the host
        path, asks, query = raw.partition(b"?")
        if not path.startswith(b"/"):
            raise InvalidRequestError("the target is not a path, as it is in a connection for one host")
        return _at(self._reached, path, query if asks else None)


def _at(reached: ReachedHost, path: bytes, query: bytes | None) -> RequestTarget:
    """Return the target at a resource, which may begin somewhere below its host."""
    base = reached.base.encode()
    if path != base and not path.startswith(base + b"/"):
        raise ScopeError(f"`{reached.resource}` begins at `{reached.base}` of its host")
    return canon.target(reached.resource, path[len(base) :], query)
