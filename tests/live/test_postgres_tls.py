from __future__ import annotations

import asyncio
import secrets
import ssl
import struct
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from remit.core.secret import Secret
from remit.errors import EngineError
from remit.kinds.postgres.engine import PostgresEngine
from remit.ports import Issued, Resource
from tests.live.warehouse import Warehouse, dsn, issue, now, warehouse

pytestmark = pytest.mark.live


def _certificate(folder: Path, host: str) -> tuple[Path, Path]:
    """Make a self-signed certificate for ``host``, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now() - timedelta(hours=1))
        .not_valid_after(now() + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / f"{host}.crt", folder / f"{host}.key"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.touch(0o600)
    pem, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, pem, plain))
    return cert_file, key_file


class TlsFront:
    """What a server with TLS does at the start of a session, in front of one that was built without."""

    def __init__(self, certificate: Path, key: Path, behind: int) -> None:
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(certificate, key)
        self._behind = behind
        self.encrypted = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, ssl.SSLError, asyncio.IncompleteReadError):
            assert await reader.readexactly(8) == struct.pack("!II", 8, 80877103)  # SSLRequest, and nothing in clear
            writer.write(b"S")
            await writer.start_tls(self._context)
            self.encrypted += 1
            back, forth = await asyncio.open_connection("127.0.0.1", self._behind)
            await asyncio.gather(_copy(reader, forth), _copy(back, writer))
        writer.transport.abort()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        sink.write(data)
        await sink.drain()
    sink.close()


def _issue_over(shop: Warehouse, host: str, port: int) -> PostgresEngine:
    address = f"postgresql://{shop.login}@{host}:{port}/{shop.name}"
    resource = Resource("warehouse", "postgres", address, (), "warehouse", {})
    return PostgresEngine(resource, Secret(shop.password), clock=now, random=secrets.token_bytes)


def _connected(issued: Issued, trusted: Path) -> object:
    with psycopg.connect(dsn(issued), sslrootcert=str(trusted)) as connection:
        return connection.execute("SELECT quarter FROM sales.revenue").fetchone()


def test_the_servers_certificate_is_verified_name_and_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    certificate, key = _certificate(tmp_path, "localhost")
    stranger, _ = _certificate(tmp_path, "stranger")

    async def attempt(shop: Warehouse, host: str, port: int) -> Issued:
        engine = _issue_over(shop, host, port)
        try:
            return (await issue(engine, shop.detail()))[1]
        finally:
            await engine.close()

    async def run(shop: Warehouse) -> None:
        front = TlsFront(certificate, key, shop.server.port)
        async with await asyncio.start_server(front.serve, "127.0.0.1", 0) as listening:
            port = listening.sockets[0].getsockname()[1]
            monkeypatch.setenv("SSL_CERT_FILE", str(stranger))
            with pytest.raises(EngineError):
                await attempt(shop, "localhost", port)
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            with pytest.raises(EngineError):
                await attempt(shop, "127.0.0.1", port)  # which the certificate does not name
            issued = await attempt(shop, "localhost", port)
            assert "sslmode=verify-full&sslrootcert=system" in dsn(issued)
            assert await asyncio.to_thread(_connected, issued, certificate) == ("2026Q3",)
            assert front.encrypted >= 3

    with warehouse() as shop:
        asyncio.run(run(shop))


def test_a_server_that_offers_no_tls_is_refused() -> None:
    async def run(shop: Warehouse) -> None:
        engine = _issue_over(shop, "localhost", shop.server.port)
        with pytest.raises(EngineError):
            await issue(engine, shop.detail())
        await engine.close()

    with warehouse() as shop:
        asyncio.run(run(shop))
