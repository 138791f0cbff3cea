"""Documents fetched from where the configuration says: bounded in size and time, no redirects, no proxies."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import httpx

from remit.errors import UnavailableError

MAX_DOCUMENT = 262_144  # bytes
PATIENCE = 5.0  # seconds, for a whole answer


Fetch = Callable[[str], Awaitable[bytes]]  # URL -> the body of a successful answer, or UnavailableError


class BoundedTransport(httpx.AsyncHTTPTransport):
    """A transport whose answers are plain bytes, and few enough."""

    def __init__(self, trusted: ssl.SSLContext, limit: int = MAX_DOCUMENT) -> None:
        super().__init__(verify=trusted, trust_env=False)
        self._limit = limit

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer with the whole body in memory, or raise httpx.ReadError."""
        request.headers["accept-encoding"] = "identity"
        answer = await super().handle_async_request(request)
        try:
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
        """Return a fresh bounded transport."""
        return BoundedTransport(self._trusted, self.limit)

    async def __call__(self, url: str) -> bytes:
        """Return the body of a successful answer, or raise UnavailableError."""
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
