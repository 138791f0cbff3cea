"""Documents fetched from where the configuration says: bounded in size and time, no redirects, no proxies.

Documents of OAuth clients (Client ID Metadata Documents) are fetched although a stranger named their URL. So they come
from hosts that the operator listed, over https, from an address that was looked at before it was connected to.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import httpx

from remit.core.addresses import is_public
from remit.core.fields import is_loopback
from remit.errors import InvalidRequestError, LimitError, UnavailableError

MAX_DOCUMENT = 262_144  # bytes
PATIENCE = 5.0  # seconds, for a whole answer
MAX_CLIENT_DOCUMENT = 16_384  # bytes
MAX_FETCHES = 2  # of documents of clients at once, of a host
MAX_HOSTS = 32  # at once: the one that takes the longest makes room for the next
MAX_FAILED = 1_000  # that are remembered
FAILED = 10.0  # seconds; for so long a document that could not be had is not asked for again

# Apart from the loop's own: whoever names a host decides how long its name servers take, and no look-up can be ended.
_LOOKUPS = ThreadPoolExecutor(16, "lookup")

Transport = Callable[[], httpx.AsyncBaseTransport]
Lookup = Callable[[str, int], Awaitable[Sequence[str]]]  # host, port -> its IP addresses
Fetch = Callable[[str], Awaitable[bytes]]  # URL -> the body of a successful answer, or UnavailableError


class BoundedTransport(httpx.AsyncHTTPTransport):
    """A transport whose answers are plain bytes, and few enough, of a ``peer`` that is the one that was meant."""

    def __init__(
        self, trusted: ssl.SSLContext, limit: int = MAX_DOCUMENT, peer: Callable[[bytes], bool] | None = None
    ) -> None:
        super().__init__(verify=trusted, trust_env=False)
        self._limit, self._peer = limit, peer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer with the whole body in memory, or raise httpx.ReadError."""
        request.headers["accept-encoding"] = "identity"
        answer = await super().handle_async_request(request)
        try:
            if self._peer is not None:
                secured = answer.extensions["network_stream"].get_extra_info("ssl_object")
                if not self._peer(secured.getpeercert(binary_form=True)):
                    raise httpx.ReadError("it is not the one that was meant", request=request)
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise httpx.ReadError("an answer that was asked for plain came encoded", request=request)
            body = bytearray()
            async for chunk in answer.aiter_raw():
                body += chunk
                if len(body) > self._limit:
                    raise httpx.ReadError("an answer is too large", request=request)
        finally:
            await answer.aclose()
        return httpx.Response(answer.status_code, headers=answer.headers, content=bytes(body), request=request)


@dataclass
class HttpFetch:
    """Fetches over HTTP. The authorities that OpenSSL trusts here (``SSL_CERT_FILE``) vouch for https."""

    patience: float = PATIENCE
    limit: int = MAX_DOCUMENT

    @cached_property
    def _trusted(self) -> ssl.SSLContext:
        made = ssl.create_default_context()
        made.keylog_filename = None  # type: ignore[assignment]  # none, whatever `SSLKEYLOGFILE` says: clients' secrets go this way
        return made

    def transport(self) -> httpx.AsyncBaseTransport:
        return BoundedTransport(self._trusted, self.limit)

    async def __call__(self, url: str) -> bytes:
        return await get(self.transport(), url, f"`{url}`", patience=self.patience)


async def get(
    transport: httpx.AsyncBaseTransport,
    url: str | httpx.URL,
    what: str,
    *,
    patience: float = PATIENCE,
    step: float | None = None,
    **more: Any,
) -> bytes:
    """Return the body of a successful answer to a GET of ``what``; UnavailableError for any other, or none in time."""
    headers = {"accept": "application/json", **more.pop("headers", {})}
    client = httpx.AsyncClient(transport=transport, trust_env=False, timeout=step or patience)
    try:
        async with asyncio.timeout(patience), client:
            answer = await client.get(url, headers=headers, **more)
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError) as error:
        raise UnavailableError(f"{what} cannot be fetched") from error
    if answer.status_code != httpx.codes.OK:
        raise UnavailableError(f"{what} answered {answer.status_code}")
    return answer.content


def forked(transport: httpx.AsyncBaseTransport, request: type) -> Any:
    """Return a transport as one of the library that ``request`` is of: authlib takes a fork of httpx where it finds it.

    Its errors stay those of httpx.
    """
    library: Any = sys.modules[request.__module__.partition(".")[0]]
    if library is httpx:
        return transport

    class Forked(library.AsyncBaseTransport):  # type: ignore[misc]  # which may not be installed
        async def handle_async_request(self, given: Any) -> Any:
            url, headers, content = str(given.url), given.headers.raw, await given.aread()
            asked = httpx.Request(given.method, url, headers=headers, content=content, extensions=given.extensions)
            answer = await transport.handle_async_request(asked)
            answer.request = asked
            if answer.is_server_error:  # which authlib raises, too, as an error of the library
                answer.raise_for_status()
            return library.Response(answer.status_code, headers=answer.headers.raw, content=await answer.aread())

        async def aclose(self) -> None:
            await transport.aclose()

    return Forked()


async def look_up(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host."""
    found = await asyncio.get_running_loop().run_in_executor(
        _LOOKUPS, socket.getaddrinfo, host, port, 0, socket.SOCK_STREAM
    )
    return [str(address[4][0]) for address in found]


async def pinned(
    url: httpx.URL, lookup: Lookup, *, private: bool
) -> tuple[httpx.URL, dict[str, str], dict[str, object]]:
    """Return how to ask a host whom others have named: at an address that was looked at, by the name that it has.

    All its addresses must be public, unless it may be ``private``, so that none is reached by asking again. The name in
    the certificate is still checked.
    """
    found = await lookup(url.host, url.port or (443 if url.scheme == "https" else 80))
    if not found or not (private or all(map(is_public, found))):
        raise InvalidRequestError("its host is not on the public Internet")
    at = url.copy_with(host=found[0])
    return at, {"host": url.netloc.decode("ascii")}, {"sni_hostname": url.host}


@dataclass
class ClientDocuments:
    """Fetches the documents of clients from ``hosts``: names, ``*.`` with all names below one, or ``*`` for any."""

    hosts: frozenset[str]
    private: bool = False  # whether they may be in networks of one's own, and plain http on this very host
    lookup: Lookup = look_up
    now: Callable[[], float] = monotonic
    transport: Transport = field(default_factory=lambda: HttpFetch(limit=MAX_CLIENT_DOCUMENT).transport)
    _running: dict[asyncio.Timeout, str] = field(default_factory=dict)  # with their hosts, the oldest first
    _failed: dict[str, float] = field(default_factory=dict)  # URL -> until when it is not asked again

    async def __call__(self, url: str) -> bytes:
        """Return a document, or raise InvalidRequestError, LimitError or UnavailableError."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        above = {"*." + host.split(".", count)[-1] for count in range(1, host.count(".") + 1)}
        if not self.hosts & ({host, "*"} | above):
            raise InvalidRequestError("its host is not one whose documents are read here")
        if parts.scheme != "https" and not (parts.scheme == "http" and self.private and is_loopback(host)):
            raise InvalidRequestError("its URL must be https")
        if self.now() < self._failed.get(url, 0.0):
            raise UnavailableError("it could not be fetched a moment ago")
        if list(self._running.values()).count(host) >= MAX_FETCHES:
            raise LimitError("too many clients at once", retry_after=int(PATIENCE))
        self._make_room(host)
        patience = asyncio.timeout(PATIENCE)
        try:
            async with patience:
                self._running[patience] = host
                address, headers, extensions = await pinned(httpx.URL(url), self.lookup, private=self.private)
                return await get(self.transport(), address, "its URL", headers=headers, extensions=extensions)
        except (UnavailableError, httpx.InvalidURL, TimeoutError, OSError, UnicodeError) as error:
            now = self.now()
            recent = [(one, until) for one, until in self._failed.items() if now < until]
            self._failed = dict([*recent[1 - MAX_FAILED :], (url, now + FAILED)])
            if isinstance(error, UnavailableError):
                raise
            raise UnavailableError("its URL cannot be fetched") from error
        finally:
            self._running.pop(patience, None)

    def _make_room(self, host: str) -> None:
        """Wait no longer for the host that is waited for the longest, if there are too many beside this one."""
        hosts = dict.fromkeys(self._running.values())
        if host in hosts or len(hosts) < MAX_HOSTS:
            return
        longest = next(iter(hosts))
        for patience in [one for one, other in self._running.items() if other == longest]:
            del self._running[patience]
            if not patience.expired():
                patience.reschedule(0.0)
