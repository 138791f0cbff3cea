"""Fetching over real sockets, from a server that answers byte by byte what a test says."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from remit.errors import InvalidRequestError, UnavailableError
from remit.identity.fetch import MAX_DOCUMENT, Web, check_url, is_loopback

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
                return await Web(patience)(f"http://127.0.0.1:{port}/doc")
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
        asyncio.run(Web()("http://127.0.0.1:9/"))


def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert fetched(GOOD)[0] == b"{}"


@pytest.mark.parametrize(
    "url",
    [
        "https://a.test",
        "https://a.test:8443/b?c=d",
        "http://localhost:80/",
        "http://127.0.0.1",
        "http://127.9.9.9:1/x",
        "http://[::1]:1",
    ],
)
def test_what_may_be_fetched(url: str) -> None:
    assert check_url(url, "it") == url


@pytest.mark.parametrize(
    "url",
    [
        None,
        7,
        "",
        "a.test",
        "//a.test",
        "http://a.test",
        "http://127.0.0.1.evil.test",
        "http://localhost.evil.test",
        "http://0.0.0.0",
        "http://127.1",
        "ftp://a.test",
        "file:///etc/passwd",
        "https://",
        "https:///a",
        "https://user@a.test",
        "https://user:pw@a.test",
        "https://a.test#f",
        "https://a.test\\@b.test",
        "https://a.test/a b",
        "https://a.test/\n",
        "https://ä.test",
        "https://a.test:99999",
        "https://[::1",
        "https://a.test/" + "x" * 2_048,
    ],
)
def test_what_may_not_be_fetched(url: object) -> None:
    with pytest.raises(InvalidRequestError, match="it "):
        check_url(url, "it")


def test_names_that_only_look_like_this_host_do_not_mean_it() -> None:
    assert [is_loopback(name) for name in ("localhost", "127.0.0.1", "::1")] == [True] * 3
    assert not any(is_loopback(name) for name in ("localhost.", "127.0.0.1.x", "::ffff:1.2.3.4", "10.0.0.1", ""))
