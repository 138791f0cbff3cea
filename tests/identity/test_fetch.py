"""Fetching over real sockets, from a server that answers byte by byte what a test says."""

from __future__ import annotations

import asyncio
import importlib
from contextlib import suppress

import httpx
import pytest

from remit.errors import UnavailableError
from remit.identity import fetch
from remit.identity.fetch import MAX_DOCUMENT, HttpFetch

GOOD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


def fetched(answer: bytes, *, patience: float = 5.0, hang: bool = False) -> tuple[bytes, bytes]:
    """Return what a client fetched from a server with this answer, and what it had asked."""
    requests: list[bytes] = []
    served: asyncio.Queue[None] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        with suppress(ConnectionError):
            writer.write(answer)
            await writer.drain()
            await (reader.read() if hang else asyncio.sleep(0))
            writer.close()
            await writer.wait_closed()
        served.put_nowait(None)

    async def main() -> bytes:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            try:
                return await HttpFetch(patience)(f"http://127.0.0.1:{port}/doc")
            finally:
                await served.get()

    return asyncio.run(main()), b"".join(requests)


def test_a_document_is_fetched_plainly() -> None:
    body, asked = fetched(GOOD)
    assert body == b"{}"
    assert b"GET /doc " in asked
    assert b"accept-encoding: identity" in asked.lower()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}",
        b"nonsense\r\n\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + b" " * (MAX_DOCUMENT + 1),
    ],
    ids=["redirect", "missing", "empty", "encoded", "cut", "nonsense", "nothing", "large"],
)
def test_whatever_is_not_a_whole_small_plain_answer_is_an_outage(answer: bytes) -> None:
    with pytest.raises(UnavailableError):
        fetched(answer)


def test_a_server_that_never_finishes_is_left() -> None:
    with pytest.raises(UnavailableError):
        fetched(GOOD[:-1], patience=0.2, hang=True)


def test_a_server_that_is_not_there_is_an_outage() -> None:
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:9"):
        asyncio.run(HttpFetch()("http://127.0.0.1:9/"))


def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert fetched(GOOD)[0] == b"{}"


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
def test_a_transport_serves_the_library_that_authlib_has_found(library: str) -> None:
    async def main() -> None:
        found, asked = importlib.import_module(library), list[httpx.Request]()

        def handler(request: httpx.Request) -> httpx.Response:
            asked.append(request)
            return httpx.Response(200 if request.url.path == "/token" else 503, json={"a": 1})

        made = fetch.forked(httpx.MockTransport(handler), found.Request)
        async with found.AsyncClient(transport=made) as client:
            answer = await client.post("https://login.test/token?b=c", data={"code": "x"}, headers={"accept": "y"})
            assert (answer.status_code, answer.json()) == (200, {"a": 1})
            with pytest.raises(httpx.HTTPError if library == "httpx2" else AssertionError):
                assert (await client.get("https://login.test/other")).status_code == 200
        assert (asked[0].method, asked[0].url.query, asked[0].content) == ("POST", b"b=c", b"code=x")
        assert asked[0].headers["accept"] == "y"

    asyncio.run(main())
