"""Documents of clients are fetched only where they may be."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from remit.errors import InvalidRequestError, LimitError, UnavailableError
from remit.identity import fetch
from remit.identity.fetch import MAX_CLIENT_DOCUMENT, MAX_FETCHES, BoundedTransport, ClientDocuments, pinned
from tests.attacks.certificates import authority


def resolving(*addresses: str) -> fetch.Lookup:
    """Return a lookup that knows one answer."""

    async def look_up(host: str, port: int) -> Sequence[str]:
        assert (host, bool(port)) == (host.lower(), True)
        return addresses

    return look_up


@pytest.mark.parametrize(
    ("hosts", "host", "listed"),
    [
        ({"app.test"}, "app.test", True),
        ({"app.test"}, "x.app.test", False),
        ({"app.test"}, "app.test.evil.test", False),
        ({"app.test"}, "evilapp.test", False),
        ({"*.app.test"}, "x.app.test", True),
        ({"*.app.test"}, "y.x.app.test", True),
        ({"*.app.test"}, "app.test", False),
        ({"*.app.test"}, "evilapp.test", False),
        ({"*"}, "any.test", True),
    ],
)
def test_only_listed_hosts_are_asked(hosts: set[str], host: str, listed: bool) -> None:  # noqa: FBT001 - a table of cases
    made = ClientDocuments(frozenset(hosts), lookup=resolving("10.0.0.1"))
    expected = "not on the public Internet" if listed else "not one whose documents"
    with pytest.raises(InvalidRequestError, match=expected):
        asyncio.run(made(f"https://{host}/client.json"))


@pytest.mark.parametrize(
    "addresses",
    [
        (),
        ("127.0.0.1",),
        ("10.1.2.3",),
        ("169.254.169.254",),
        ("192.168.1.1",),
        ("100.64.0.1",),
        ("0.0.0.0",),  # noqa: S104 - an address that is refused
        ("224.0.0.1",),
        ("::1",),
        ("fe80::1",),
        ("fd00::1",),
        ("::ffff:10.0.0.1",),
        ("2002:a00:1::",),
        ("64:ff9b::a00:1",),
        ("64:ff9b:1::a00:1",),
        ("::7f00:1",),
        ("::5db8:d822",),
        ("::ffff:93.184.216.34",),
        ("::ffff:0:7f00:1",),
        ("fec0::1",),
        ("5f00::1",),
        ("3fff::1",),
        ("2001:db8::1",),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2",),
        ("2606:4700::5efe:a00:1",),
        ("2606:4700::200:5efe:a00:1",),
        ("2606:4700::1%eth0",),
        ("192.0.0.8",),
        ("192.88.99.1",),
        ("93.184.216.34", "10.0.0.1"),
    ],
)
def test_no_address_of_a_private_network_is_connected_to(addresses: tuple[str, ...]) -> None:
    made = ClientDocuments(frozenset({"*"}), lookup=resolving(*addresses))
    with pytest.raises(InvalidRequestError, match="not on the public Internet"):
        asyncio.run(made("https://app.test/client.json"))


@pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "2001:4860:4860::8888"])
def test_an_address_of_the_internet_is_taken(address: str) -> None:
    url, headers, _ = asyncio.run(pinned(httpx.URL("https://app.test/c"), resolving(address), private=False))
    assert (url.host, headers["host"]) == (address, "app.test")


@pytest.mark.parametrize("url", ["http://app.test/c", "http://127.0.0.1/c", "ftp://app.test/c"])
def test_nothing_is_fetched_in_the_clear(url: str) -> None:
    with pytest.raises(InvalidRequestError, match="https"):
        asyncio.run(ClientDocuments(frozenset({"*"}), lookup=resolving("93.184.216.34"))(url))


def test_a_name_that_does_not_resolve_is_no_document() -> None:
    async def nowhere(_host: str, _port: int) -> Sequence[str]:
        raise socket.gaierror

    with pytest.raises(UnavailableError):
        asyncio.run(ClientDocuments(frozenset({"*"}), lookup=nowhere)("https://app.test/c"))


def test_the_system_is_asked_for_addresses() -> None:
    assert "127.0.0.1" in asyncio.run(fetch.look_up("127.0.0.1", 443))


# -- the wire ---------------------------------------------------------------------------------------------------------


@pytest.mark.attack("OAU-11")
def test_names_that_do_not_resolve_keep_no_other_look_up_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has a domain decides how long its name servers take; upstreams and issuers are looked up meanwhile."""
    answered, real = threading.Event(), socket.getaddrinfo

    def slowly(host: str, *more: object, **named: int) -> object:
        if host.endswith(".slow.test"):
            answered.wait(10)
            raise socket.gaierror
        return real(host, *more, **named)  # type: ignore[arg-type]  # as it came

    monkeypatch.setattr(socket, "getaddrinfo", slowly)

    async def main() -> None:
        slow = [
            asyncio.create_task(fetch.look_up(f"h{number}.slow.test", 443)) for number in range(2 * fetch.MAX_HOSTS)
        ]
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        try:
            assert await asyncio.wait_for(loop.getaddrinfo("127.0.0.1", 443), 2)
        finally:
            answered.set()
            await asyncio.gather(*slow, return_exceptions=True)

    asyncio.run(main())


async def served(answer: bytes, context: ssl.SSLContext | None = None) -> tuple[asyncio.Server, int, list[bytes]]:
    """Serve one answer to everybody; return the server, its port, and the heads it was sent."""
    heads: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    return server, server.sockets[0].getsockname()[1], heads


def answer(status: str, body: bytes = b"{}", **headers: str) -> bytes:
    """Return an HTTP answer."""
    head = {"content-type": "application/json", "content-length": str(len(body)), **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body


async def fetched(raw: bytes) -> bytes:
    """Fetch from a server of the test's own, which private documents may be at."""
    server, port, _ = await served(raw)
    async with server:
        made = ClientDocuments(frozenset({"127.0.0.1"}), private=True)
        return await made(f"http://127.0.0.1:{port}/client.json")


def test_a_document_of_ones_own_network_is_fetched_where_that_was_allowed() -> None:
    assert asyncio.run(fetched(answer("200 OK", b'{"a": 1}'))) == b'{"a": 1}'


@pytest.mark.parametrize(
    "raw",
    [
        answer("302 Found", location="http://127.0.0.1:1/other"),
        answer("404 Not Found"),
        answer("200 OK", b"x" * (MAX_CLIENT_DOCUMENT + 1)),
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n0\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"",
    ],
)
def test_no_redirect_is_followed_and_nothing_large_is_read(raw: bytes) -> None:
    with pytest.raises(UnavailableError):
        asyncio.run(fetched(raw))


@pytest.mark.attack("OAU-11")
def test_a_host_that_does_not_answer_takes_only_its_own_room(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        entered, leave = asyncio.Semaphore(0), asyncio.Event()

        async def slow(host: str, _port: int) -> Sequence[str]:
            if host != "good.test":
                entered.release()
                await leave.wait()
            return ()

        made = ClientDocuments(frozenset({"*"}), lookup=slow)
        running = [asyncio.create_task(made(f"https://app.test/{n}")) for n in range(MAX_FETCHES)]
        running += [asyncio.create_task(made("https://other.test/c"))]
        for _ in running:
            await entered.acquire()
        for url in ("https://app.test/c", "https://APP.test/c", "https://app.test:8443/c"):
            with pytest.raises(LimitError):
                await made(url)
        with pytest.raises(InvalidRequestError, match="public"):  # it was looked up, and has no address
            await made("https://good.test/c")
        monkeypatch.setattr(fetch, "MAX_HOSTS", 2)
        with pytest.raises(InvalidRequestError, match="public"):  # of as many hosts as there may be, the oldest leaves
            await made("https://good.test/c")
        with pytest.raises(UnavailableError):
            await running[0]
        leave.set()
        done = await asyncio.gather(*running[1:], return_exceptions=True)
        assert {type(one) for one in done} == {InvalidRequestError}
        assert made._running == {}


@pytest.mark.attack("OAU-11")
def test_many_hosts_that_do_not_answer_keep_no_other_out() -> None:
    """Any address of the Internet that drops packets is a host to wait for, where all hosts are listed."""

    async def main() -> None:
        async def slow(host: str, _port: int) -> Sequence[str]:
            if host != "good.test":
                await asyncio.Event().wait()
            return ()

        made = ClientDocuments(frozenset({"*"}), lookup=slow)
        running = []
        for number in range(2 * fetch.MAX_HOSTS):
            running.append(asyncio.create_task(made(f"https://h{number}.test/c")))
            await asyncio.sleep(0)  # it is under way
            assert len(made._running) <= fetch.MAX_HOSTS
        with pytest.raises(InvalidRequestError, match="public"):
            await made("https://good.test/c")
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        assert made._running == {}

    asyncio.run(main())


@pytest.mark.attack("OAU-11")
@pytest.mark.parametrize("broken", [OSError("no"), TimeoutError(), UnavailableError("its URL answered 404")])
def test_what_could_not_be_fetched_is_not_asked_for_again_at_once(broken: Exception) -> None:
    asked: list[str] = []
    now = [0.0]

    async def failing(host: str, _port: int) -> Sequence[str]:
        asked.append(host)
        raise broken

    async def main() -> None:
        made = ClientDocuments(frozenset({"*"}), lookup=failing, now=lambda: now[0])
        for url in ("https://app.test/c", "https://app.test/c", "https://app.test/d"):
            with pytest.raises(UnavailableError):
                await made(url)
        assert len(asked) == 2
        now[0] = fetch.FAILED
        with pytest.raises(UnavailableError):
            await made("https://app.test/c")
        assert len(asked) == 3
        for number in range(fetch.MAX_FAILED + 10):
            with pytest.raises(UnavailableError):
                await made(f"https://app.test/{number}")
        assert len(made._failed) == fetch.MAX_FAILED

    asyncio.run(main())


@pytest.mark.parametrize(("name", "reached"), [("app.test", True), ("evil.test", False)])
def test_the_certificate_has_to_be_of_the_name_not_of_the_address(tmp_path: Path, name: str, *, reached: bool) -> None:
    ours = authority(tmp_path)

    async def main() -> None:
        server, port, heads = await served(answer("200 OK"), ours.server("leaf", host=name))
        async with server:
            made = ClientDocuments(
                frozenset({"app.test"}),
                private=True,
                lookup=resolving("127.0.0.1"),
                transport=lambda: BoundedTransport(ours.trust(), MAX_CLIENT_DOCUMENT),
            )
            url = f"https://app.test:{port}/client.json"
            if reached:
                assert await made(url) == b"{}"
                assert f"host: app.test:{port}\r\n".encode() in heads[0].lower()
            else:
                with pytest.raises(UnavailableError):
                    await made(url)
                assert heads == []

    asyncio.run(main())
