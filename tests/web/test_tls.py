from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest
import uvloop
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from remit.errors import UnavailableError
from remit.web.authentication import SocketAuth, certificates_of
from remit.web.listen import serve
from remit.web.tls import ServerTLS, presented
from tests.broker.world import OPERATOR
from tests.identity.spire import Authority, Domain, Svid, server
from tests.oauth.plane import _tcp

WEB = Authority.root("the web")
DOMAIN = Domain("prod.example")
OTHER = Domain("other.example")


def der(authority: Authority) -> bytes:
    return authority.certificate.public_bytes(Encoding.DER)


class Place:
    """The files of a TLS listener and of its clients, and the authorities it asks clients for."""

    def __init__(self, directory: Path, anchors: tuple[bytes, ...] | None = (der(DOMAIN.authority),)) -> None:
        self.directory, self.anchors = directory, anchors
        self.certificate, self.key = directory / "server.pem", directory / "server.key"
        self.ca = directory / "ca.pem"
        self.ca.write_bytes(WEB.certificate.public_bytes(Encoding.PEM))
        self.renew()
        self.tls = ServerTLS(self.read, lambda: self.anchors)

    def read(self) -> tuple[bytes, bytes]:
        try:
            return self.certificate.read_bytes(), self.key.read_bytes()
        except OSError as error:
            raise UnavailableError from error

    def renew(self) -> Svid:
        """Replace the server's certificate, as an ACME client or SPIRE's helper would."""
        made = server(WEB, "127.0.0.1")
        for path in (self.certificate, self.key):
            fresh = path.with_suffix(".new")
            fresh.write_bytes(made.pem)
            fresh.replace(path)
        return made

    def client(self, svid: Svid | None = None) -> ssl.SSLContext:
        """Return the context of a client, with a certificate of its own if it has one."""
        made = ssl.create_default_context(cafile=self.ca)
        if svid is not None:
            path = self.directory / f"{svid.x5t}.pem"
            path.write_bytes(svid.pem)
            made.load_cert_chain(path)
        return made


async def shown(request: Request) -> Response:
    return JSONResponse([one.hex() for one in certificates_of(request)])


@asynccontextmanager
async def listening(place: Place) -> AsyncIterator[int]:
    sock = _tcp()
    app = Starlette(routes=[Route("/", shown)])
    listener = await serve(app, sock, SocketAuth(OPERATOR), tls=place.tls.context)
    try:
        yield int(sock.getsockname()[1])
    finally:
        listener.close()


ASK = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def ask(port: int, context: ssl.SSLContext) -> tuple[bytes, bytes]:
    """Return the server's certificate and its answer; a connection that is cut off answers nothing."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.write(ASK)
        return certificate, await asyncio.wait_for(reader.read(65_536), 5)
    except (ConnectionError, ssl.SSLError):
        return b"", b""
    finally:
        writer.close()


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_handler_sees_the_chain_that_the_client_presented(tmp_path: Path, loop: object) -> None:
    async def scene() -> None:
        place, svid = Place(tmp_path), DOMAIN.authority.below("node").svid(DOMAIN.id())
        async with listening(place) as port:
            _, answer = await ask(port, place.client(svid))
            assert b"200 OK" in answer
            for one in svid.ders:
                assert one.hex().encode() in answer
            _, answer = await ask(port, place.client())
            assert answer.endswith(b"[]")

    with asyncio.Runner(loop_factory=loop) as runner:  # type: ignore[arg-type]  # one of two factories
        runner.run(scene())


def test_a_certificate_that_no_authority_signed_ends_the_handshake(tmp_path: Path) -> None:
    async def scene() -> None:
        place = Place(tmp_path)
        async with listening(place) as port:
            for bad in (OTHER.svid(), DOMAIN.authority.below("x").svid(DOMAIN.id(), life=timedelta(seconds=-1))):
                assert (await ask(port, place.client(bad)))[1] == b""
            assert b"200 OK" in (await ask(port, place.client(DOMAIN.svid())))[1]

    asyncio.run(scene())


def test_without_trust_domains_no_certificate_is_asked_for(tmp_path: Path) -> None:
    async def scene() -> None:
        place = Place(tmp_path, None)
        async with listening(place) as port:
            assert (await ask(port, place.client(OTHER.svid())))[1].endswith(b"[]")

    asyncio.run(scene())


def test_without_a_bundle_no_certificate_is_believed_and_others_come_in(tmp_path: Path) -> None:
    async def scene() -> None:
        place = Place(tmp_path, ())
        async with listening(place) as port:
            assert (await ask(port, place.client(DOMAIN.svid())))[1] == b""
            assert (await ask(port, place.client()))[1].endswith(b"[]")

    asyncio.run(scene())


def test_authorities_are_replaced_while_it_serves(tmp_path: Path) -> None:
    async def scene() -> None:
        place = Place(tmp_path)
        async with listening(place) as port:
            assert b"200 OK" in (await ask(port, place.client(DOMAIN.svid())))[1]
            place.anchors = (der(OTHER.authority),)
            assert place.tls.refresh()
            assert (await ask(port, place.client(DOMAIN.svid())))[1] == b""
            assert b"200 OK" in (await ask(port, place.client(OTHER.svid())))[1]

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("before", "after", "gone"),
    [
        ((DOMAIN,), (DOMAIN,), False),
        ((DOMAIN,), (DOMAIN, OTHER), False),
        ((DOMAIN, OTHER), (DOMAIN,), True),
        ((DOMAIN,), (), True),
        ((), (DOMAIN,), False),
    ],
)
def test_it_is_said_when_an_authority_is_gone(
    tmp_path: Path,
    before: tuple[Domain, ...],
    after: tuple[Domain, ...],
    gone: bool,  # noqa: FBT001 - a case
) -> None:
    place = Place(tmp_path, tuple(der(one.authority) for one in before))
    place.anchors = tuple(der(one.authority) for one in after)
    assert place.tls.refresh() is gone
    assert place.tls.refresh() is False


def test_connections_that_a_certificate_opened_can_be_cut_and_no_others(tmp_path: Path) -> None:
    async def scene() -> None:
        place = Place(tmp_path)
        sock = _tcp()
        listener = await serve(Starlette(routes=[Route("/", shown)]), sock, SocketAuth(OPERATOR), tls=place.tls.context)
        port, kept = sock.getsockname()[1], b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        opened = []
        for svid in (DOMAIN.svid(), None):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=place.client(svid))
            writer.write(kept)
            assert b"200 OK" in await asyncio.wait_for(reader.readuntil(b"]"), 5)
            opened.append((reader, writer))
        listener.cut_certified()
        certified, plain = opened
        with suppress(ConnectionError):
            assert await asyncio.wait_for(certified[0].read(), 5) == b""
        plain[1].write(kept)
        assert b"200 OK" in await asyncio.wait_for(plain[0].readuntil(b"]"), 5)
        for _, writer in opened:
            writer.close()
        listener.close()

    asyncio.run(scene())


def test_an_authority_that_is_none_keeps_nobody_else_out(tmp_path: Path) -> None:
    async def scene() -> None:
        place = Place(tmp_path)
        async with listening(place) as port:
            place.anchors = (b"\x30\x00", b"", der(OTHER.authority), der(OTHER.authority))
            place.tls.refresh()
            assert b"200 OK" in (await ask(port, place.client(OTHER.svid())))[1]
            assert (await ask(port, place.client(DOMAIN.svid())))[1] == b""

    asyncio.run(scene())


def test_a_renewed_certificate_serves_from_the_next_handshake(tmp_path: Path) -> None:
    async def scene() -> None:
        place = Place(tmp_path)
        async with listening(place) as port:
            first, _ = await ask(port, place.client())
            renewed = place.renew()
            assert (await ask(port, place.client()))[0] == first
            place.tls.refresh()
            assert (await ask(port, place.client()))[0] == renewed.ders[0]

    asyncio.run(scene())


def test_a_certificate_that_cannot_be_used_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        place = Place(tmp_path)
        async with listening(place) as port:
            first, _ = await ask(port, place.client())
            for told, bad in enumerate((b"not PEM", server(WEB, "127.0.0.1").pem, None), 1):  # the second: another key
                place.certificate.unlink()
                if bad is not None:
                    place.certificate.write_bytes(bad)
                for _ in range(3):
                    place.tls.refresh()
                assert len(caplog.records) == told  # once, not at every look
                assert (await ask(port, place.client()))[0] == first
            renewed = place.renew()
            place.tls.refresh()
            assert (await ask(port, place.client()))[0] == renewed.ders[0]

    with caplog.at_level(logging.WARNING, "remit.web"):
        asyncio.run(scene())


def test_authorities_are_withdrawn_though_the_certificate_cannot_be_read(tmp_path: Path) -> None:
    async def scene() -> None:
        place = Place(tmp_path)
        async with listening(place) as port:
            first, answer = await ask(port, place.client(DOMAIN.svid()))
            assert b"200 OK" in answer
            place.certificate.unlink()
            place.anchors = (der(OTHER.authority),)
            assert place.tls.refresh()
            assert (await ask(port, place.client(DOMAIN.svid())))[1] == b""
            found, answer = await ask(port, place.client(OTHER.svid()))
            assert found == first
            assert b"200 OK" in answer

    asyncio.run(scene())


def test_a_door_needs_a_certificate_and_its_key_without_a_password(tmp_path: Path) -> None:
    place = Place(tmp_path)
    made = server(WEB, "127.0.0.1")
    locked = made.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))
    for content in (b"", b"not PEM", locked, Domain("x").svid().pem):
        place.key.write_bytes(content)
        with pytest.raises(UnavailableError):
            ServerTLS(place.read, lambda: None)


def test_old_versions_of_tls_and_resumption_are_not_spoken(tmp_path: Path) -> None:
    async def scene() -> None:
        place = Place(tmp_path)
        async with listening(place) as port:
            modern = place.client()
            modern.maximum_version = ssl.TLSVersion.TLSv1_2
            assert b"200 OK" in (await ask(port, modern))[1]
            weak = place.client()
            weak.maximum_version = ssl.TLSVersion.TLSv1_2
            weak.set_ciphers("ECDHE-ECDSA-AES128-SHA256")  # forward secret, and not authenticated encryption
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await ask(port, weak)
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=place.client())
            writer.write(ASK)
            await asyncio.wait_for(reader.read(65_536), 5)
            session = writer.get_extra_info("ssl_object").session
            assert session is None or not session.has_ticket
            writer.close()

    asyncio.run(scene())


def test_without_tls_nobody_presented_anything() -> None:
    assert presented(None) == ()
