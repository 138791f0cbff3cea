"""How an upstream is reached: its name is resolved once, what it leads to is looked at, and TLS says what is spoken.

Each is offered HTTP/1.1, which costs less, and HTTP/2 only where it refused that (RFC 7301).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from remit.core.addresses import is_public
from remit.errors import LimitError, UpstreamError
from remit.gateway import http2_frames
from remit.gateway.quota import TaskQuota

CONNECT = 10.0  # seconds
_REFUSED = "no application protocol"  # as OpenSSL says; not every Python has a name for this alert
_ALONE = 1_024  # destinations
_CONNECT_ERRORS: tuple[tuple[type[OSError], str], ...] = (
    (ssl.SSLCertVerificationError, "the upstream's certificate does not verify"),
    (ssl.SSLError, "the upstream does not speak TLS as it should"),
    (TimeoutError, "the upstream did not accept a connection in time"),
    (OSError, "the upstream could not be reached"),
)


Lookup = Callable[[str, int], Awaitable[Sequence[str]]]  # host, port -> its IP addresses


async def look_up(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host; an address is its own."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(info[4][0]) for info in found))


@dataclass(frozen=True, slots=True)
class Dialled:
    """Where a resource is: what is resolved, once, and connected to."""

    resource: str
    host: str
    port: int
    private: bool  # whether the name may lead to a private network


class AlpnError(UpstreamError):
    """the upstream speaks none of the protocols that it was offered"""  # noqa: D400 - the message


@dataclass(slots=True, eq=False)
class Offers:
    """What upstreams are offered, each in a context of its own, and the destinations that took HTTP/2 alone."""

    nothing: ssl.SSLContext  # for what does not speak HTTP
    http1: ssl.SSLContext
    _http2: ssl.SSLContext | None  # None where the package for it is not installed
    _alone: dict[tuple[str, int], None] = field(default_factory=dict)

    @property
    def newer(self) -> ssl.SSLContext:
        """What offers HTTP/2; UpstreamError where remit does not speak it."""
        if self._http2 is None:
            help_ = "for those that speak HTTP/2 alone there is an extra: pip install 'remit[http2]'"
            raise UpstreamError("the upstream does not speak HTTP/1.1", help=help_)
        return self._http2

    def alone(self, there: Dialled) -> bool:
        return (there.host, there.port) in self._alone

    def note(self, there: Dialled, *, alone: bool) -> None:
        """Take note of whether HTTP/2 is to be offered first."""
        if len(self._alone) >= _ALONE or not alone:
            self._alone.pop((there.host, there.port) if not alone else next(iter(self._alone)), None)
        if alone:
            self._alone[there.host, there.port] = None


def offers(make: Callable[[], ssl.SSLContext] = ssl.create_default_context) -> Offers:
    """Return what is offered; ``make`` makes a context that verifies upstreams."""

    def offering(*protocols: str) -> ssl.SSLContext:
        made = make()
        made.keylog_filename = None  # type: ignore[assignment]  # none, whatever `SSLKEYLOGFILE` says
        if protocols:
            made.set_alpn_protocols(protocols)
        return made

    return Offers(offering(), offering("http/1.1"), offering("h2") if http2_frames.AVAILABLE else None)


def take_descriptor(quota: TaskQuota, spare: Callable[[], bool], *, room: bool) -> None:
    """Take one for a connection, that of another which nobody uses where no other is left, or raise LimitError."""
    if not room or not (quota.take(1) or (spare() and quota.take(1))):
        raise LimitError("too many requests to this resource are under way", retry_after=1)


async def dial(
    lookup: Lookup, there: Dialled, protocol: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None = None
) -> None:
    """Connect to the first address that answers, or raise UpstreamError. All are looked at before: they may alternate.

    ``tls`` is verified for the host's name. AlpnError: nothing that it offers is spoken there.
    """
    create, failure = asyncio.get_running_loop().create_connection, OSError()
    name = None if tls is None else there.host
    try:
        async with asyncio.timeout(CONNECT):
            addresses = await lookup(there.host, there.port)
            if not there.private and not all(map(is_public, addresses)):
                raise UpstreamError(
                    "the upstream's name leads to a private network",
                    help=f"where that is meant, its resource says so: --setting private=true on `{there.resource}`",
                )
            for address in addresses:
                try:
                    await create(protocol, address, there.port, ssl=tls, server_hostname=name)
                except ssl.SSLError:
                    raise
                except OSError as error:
                    failure = error
                else:
                    return
            raise failure
    except OSError as error:
        if isinstance(error, ssl.SSLError) and _REFUSED in str(error):
            raise AlpnError from error
        raise UpstreamError(next(what for kind, what in _CONNECT_ERRORS if isinstance(error, kind))) from error
