"""Who speaks on a listener. Identity is the listener itself on unix sockets, and a proven token on TCP.

On the TLS listener a client may present a certificate; what it is worth, others decide (``certificates_of``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from starlette.requests import Request

from remit.core.principal import Holder, Operator, Principal
from remit.errors import DeniedError, InvalidRequestError, MisdirectedError, UnauthenticatedError

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class SocketAuth:
    """A unix socket: whoever can connect is ``caller``. ``gateway`` and ``ports`` are what a run finds inside."""

    caller: Principal
    gateway: str | None = None  # base URL
    ports: Mapping[str, int] = field(default_factory=dict)  # resource -> port of its piped database listener

    def admit(self, request: Request) -> None:
        """Admit everybody: the socket's place decides."""

    async def identify(self, request: Request) -> Principal:
        """Return the caller this listener stands for."""
        del request
        return self.caller


class Prover(Protocol):
    """Finds the holder of a proven token in the headers of a request."""

    async def holder(
        self, method: str, url: str, headers: Mapping[str, list[str]], certificates: Sequence[bytes]
    ) -> Holder:
        """Return the holder, or raise UnauthenticatedError. ``certificates`` are the TLS client's, the leaf first."""
        ...


@dataclass(frozen=True, slots=True)
class TokenAuth:
    """A TCP listener: every call names one of ``hosts`` and proves a token's key. Beyond loopback it speaks TLS."""

    hosts: frozenset[str]  # host:port as in the Host header
    prover: Prover
    gateway: str | None = None
    ports: Mapping[str, int] = field(default_factory=dict)
    scheme: str = "http"  # https on the TLS listener

    def admit(self, request: Request) -> None:
        """Refuse what a browser was lured into: a foreign Host always, a foreign Origin where state changes."""
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            raise MisdirectedError
        origins = request.headers.getlist("origin")
        if request.method not in SAFE and any(origin not in self._origins() for origin in origins):
            raise DeniedError("calls from other origins are not accepted")

    def _origins(self) -> frozenset[str]:
        return frozenset(f"{self.scheme}://{host}" for host in self.hosts)

    async def identify(self, request: Request) -> Principal:
        """Return the holder of the token that the request proves."""
        if not request.headers.get("authorization"):
            raise UnauthenticatedError("this needs a grant's token and a proof of its key")
        headers = {name: request.headers.getlist(name) for name in ("authorization", "dpop")}
        return await self.prover.holder(request.method, self.url(request), headers, certificates_of(request))

    def url(self, request: Request) -> str:
        """Return the URL of a request: this scheme, the admitted Host, and the path as it was sent."""
        return f"{self.scheme}://{request.headers['host'].lower()}{_path(request)}"


Authority = SocketAuth | TokenAuth


def authority_of(request: Request) -> Authority:
    """Return the authority of the listener a request came in by."""
    found = request.scope["state"]["authority"]
    if not isinstance(found, SocketAuth | TokenAuth):
        raise UnauthenticatedError
    return found


def url_of(request: Request, issuer: str) -> str:
    """Return the URL a proof must name. On a unix socket, where any Host is taken, it is the issuer's."""
    authority = authority_of(request)
    return authority.url(request) if isinstance(authority, TokenAuth) else f"{issuer}{_path(request)}"


def _path(request: Request) -> str:
    path: bytes = request.scope["raw_path"]
    return path.decode("ascii")


def certificates_of(request: Request) -> tuple[bytes, ...]:
    """Return the certificates (DER, the leaf first) that the client of the TLS listener proved the key of, or none.

    The handshake only sees that some configured authority signed them: whose they are, ``Workloads.certified`` says.
    """
    found: tuple[bytes, ...] = request.scope["state"].get("certificates", ())
    return found


def idles(request: Request, gone: Callable[[], object]) -> None:
    """Let the connection of a request make room for others, as its answer waits for a human; then call ``gone``."""
    request.scope["state"]["idles"](gone)


def operator(caller: Principal) -> Operator:
    """Return the caller if it is the human at the control socket."""
    if not isinstance(caller, Operator):
        raise DeniedError("only the operator may do this", help="use the control socket, outside of runs")
    return caller


def check_path(request: Request) -> None:
    """Refuse a path with escapes: no name on this surface needs one, so that a path has one spelling."""
    if b"%" in request.scope.get("raw_path", b""):
        raise InvalidRequestError(
            "a path here has no percent-encoding", help="a name has lower-case letters, digits, `.`, `_` and `-`"
        )
