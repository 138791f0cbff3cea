"""Who speaks. On a unix socket the listener is the identity; on TCP a token and the proof of its key are.

On the TLS listener a client may present a certificate; what it is worth, others decide (``certificates_of``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from starlette.requests import Request

from remit.core.principal import Holder, Operator, Principal
from remit.errors import DeniedError, GrantEndedError, MisdirectedError, UnauthenticatedError, told_as

INVALID_TOKEN = "invalid_token"  # noqa: S105 - the name of an error, RFC 6750 §3.1

# method, URL, the headers of token and proof, the TLS client's certificates -> the holder of the token
Prove = Callable[[str, str, Mapping[str, Sequence[str]], Sequence[bytes]], Awaitable[Holder]]


@dataclass(frozen=True, slots=True)
class SocketAuth:
    """A unix socket: whoever can connect is ``holder``. ``gateway`` and ``ports`` are what a run finds inside.

    ``run`` is the run whose channel it is.
    """

    holder: Operator | Holder
    gateway: str | None = None  # base URL
    ports: Mapping[str, int] = field(default_factory=dict)  # resource -> port of its piped database listener
    run: str | None = None

    def admit(self, request: Request, *, shared: bool) -> None:
        pass  # everybody: the socket's place decides

    async def principal(self, _: Request) -> Principal | None:
        return self.holder


@dataclass(frozen=True, slots=True)
class TokenAuth:
    """A TCP listener: every call names one of ``hosts`` and proves a token's key. Beyond loopback it speaks TLS."""

    hosts: frozenset[str]  # host:port as in the Host header
    prove: Prove
    gateway: str | None = None
    ports: Mapping[str, int] = field(default_factory=dict)
    scheme: str = "http"  # https on the TLS listener

    def admit(self, request: Request, *, shared: bool) -> None:
        """Refuse what a browser was lured into: a foreign Host always, a foreign Origin where state changes.

        What is ``shared`` with every origin goes by what the page itself brings, and by nothing that a browser adds.
        """
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            raise MisdirectedError
        origins, own = request.headers.getlist("origin"), {f"{self.scheme}://{host}" for host in self.hosts}
        if request.method not in {"GET", "HEAD", "OPTIONS"} and not shared and not own.issuperset(origins):
            raise DeniedError("calls from other origins are not accepted")

    async def principal(self, request: Request) -> Principal | None:
        """Return the holder of the token that the request proves; None where it shows none."""
        if not request.headers.get("authorization"):
            return None
        headers = {name: request.headers.getlist(name) for name in ("authorization", "dpop")}
        with told_as(INVALID_TOKEN, GrantEndedError):  # RFC 6750 §3.1: clients that get a new token at a 401 do
            return await self.prove(request.method, url_of(request, ""), headers, certificates_of(request))


ListenerAuth = SocketAuth | TokenAuth


def listener_of(request: Request) -> ListenerAuth:
    """Return the authentication of the listener a request came in by."""
    found: ListenerAuth = request.scope["state"]["listener"]
    return found


async def shown(request: Request) -> Principal | None:
    """Return the principal of a request; None where it came over TCP and shows no token."""
    return await listener_of(request).principal(request)


async def proven(request: Request) -> Principal:
    """Return the principal of a request, or raise UnauthenticatedError."""
    found = await shown(request)
    if found is None:
        raise UnauthenticatedError("this needs a grant's token and a proof of its key")
    return found


def url_of(request: Request, issuer: str) -> str:
    """Return the URL a proof must name: this scheme, the admitted Host, and the path as it was sent."""
    listener, path = listener_of(request), str(request.scope["raw_path"], "ascii")
    if isinstance(listener, TokenAuth):
        return f"{listener.scheme}://{request.headers['host'].lower()}{path}"
    return issuer + path  # on a unix socket any Host is taken


def certificates_of(request: Request) -> tuple[bytes, ...]:
    """Return the certificates (DER, the leaf first) that the client of the TLS listener proved the key of, or none.

    The handshake only sees that some configured authority signed them: whose they are, ``Workloads.certified`` says.
    """
    found: tuple[bytes, ...] = request.scope["state"].get("certificates", ())
    return found


def idles(request: Request, gone: Callable[[], object]) -> None:
    """Let the connection of a request make room for others, as its answer waits for a human; then call ``gone``."""
    request.scope["state"]["idles"](gone)
