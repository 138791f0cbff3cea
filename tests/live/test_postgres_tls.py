from __future__ import annotations

import asyncio
import secrets
import ssl
import struct
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from urllib.parse import quote

import asyncpg
import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from remit.core.request import Bounds, GrantRequest
from remit.core.secret import Secret
from remit.errors import EngineError
from remit.kinds.postgres import KIND, local
from remit.kinds.postgres.engine import PostgresEngine
from remit.ports import Issued, Resource
from tests.broker.world import OPERATOR
from tests.gateway.rig import Rig, play, rig
from tests.live.idp import NODE, PEERS
from tests.live.test_gateway_pipe import listening
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
        self.encrypted = self.serving = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.serving += 1
        with suppress(OSError, ssl.SSLError, asyncio.IncompleteReadError):
            assert await reader.readexactly(8) == struct.pack("!II", 8, 80877103)  # SSLRequest, and nothing in clear
            writer.write(b"S")
            await writer.start_tls(self._context)
            self.encrypted += 1
            back, forth = await asyncio.open_connection("127.0.0.1", self._behind)
            await asyncio.gather(_copy(reader, forth), _copy(back, writer))
        writer.transport.abort()
        self.serving -= 1


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        sink.write(data)
        await sink.drain()
    sink.close()


def _issue_over(shop: Warehouse, host: str, port: int) -> PostgresEngine:
    address = f"postgresql://{shop.login}@{host}:{port}/{shop.name}"
    resource = Resource("warehouse", "postgres", address, (), "warehouse", {})
    return PostgresEngine(resource, Secret(shop.password), clock=now, random=secrets.token_bytes)


QUERY = "SELECT quarter FROM sales.revenue ORDER BY quarter"
REFUSED = (OSError, psycopg.OperationalError, subprocess.CalledProcessError)
Driver = Callable[[str], Awaitable[object]]


async def _asyncpg(place: str) -> object:
    connection = await asyncpg.connect(place)
    try:
        return await connection.fetchval(QUERY)
    finally:
        await connection.close()


async def _psycopg(place: str) -> object:
    async with await psycopg.AsyncConnection.connect(place) as connection:
        row = await (await connection.execute(QUERY)).fetchone()
        return row and row[0]


async def _node(place: str) -> object:
    command = (str(NODE), "postgres.mjs", QUERY)
    pipe = asyncio.subprocess.PIPE
    asked = await asyncio.create_subprocess_exec(*command, cwd=PEERS, env={}, stdin=pipe, stdout=pipe, stderr=pipe)
    said, complaint = await asked.communicate(place.encode())
    if asked.returncode:
        raise subprocess.CalledProcessError(asked.returncode, command, said, complaint)
    return said.decode().strip()


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
            assert dsn(issued).endswith(f"&sslmode=verify-full&sslrootcert={quote(str(certificate), safe='')}")
            for query in (_asyncpg, _psycopg, _node):
                assert await query(dsn(issued)) == "2026Q3"
                with pytest.raises(REFUSED):
                    await query(dsn(issued).replace(certificate.name, stranger.name))
            assert front.encrypted >= 5

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


@pytest.mark.parametrize("query", [_asyncpg, _psycopg, _node])
def test_in_a_run_the_gateway_speaks_tls_to_the_server(
    query: Driver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certificate, key = _certificate(tmp_path, "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    async def scene(shop: Warehouse) -> None:
        front = TlsFront(certificate, key, shop.server.port)
        async with (
            await asyncio.start_server(front.serve, "127.0.0.1", 0) as listening,
            rig(make=_engine, plan=KIND.plan, tls=ssl.create_default_context) as r,
        ):
            behind = listening.sockets[0].getsockname()[1]
            port, credential = await _in_a_run(r, shop, behind)
            assert f"@127.0.0.1:{port}/" in credential
            before = front.encrypted
            assert await query(credential) == "2026Q3"
            assert front.encrypted == before + 1
            with pytest.raises((psycopg.OperationalError, asyncpg.PostgresError, subprocess.CalledProcessError)):
                await query(shop.server.dsn(shop.name).replace(str(shop.server.port), str(port)))
            assert front.encrypted == before + 1
            await r.broker._registry.close()
            await r.settled(lambda: not front.serving)

    with warehouse() as shop:
        play(lambda: scene(shop))


def test_the_gateway_takes_no_other_certificate_and_no_server_without(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certificate, key = _certificate(tmp_path, "localhost")
    stranger, _ = _certificate(tmp_path, "stranger")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    async def scene(shop: Warehouse) -> None:
        front = TlsFront(certificate, key, shop.server.port)
        async with (
            await asyncio.start_server(front.serve, "127.0.0.1", 0) as listening,
            rig(make=_engine, plan=KIND.plan, tls=partial(_only, stranger)) as r,
        ):
            _, credential = await _in_a_run(r, shop, listening.sockets[0].getsockname()[1])
            with pytest.raises(asyncpg.CannotConnectNowError, match="remit: the database could not be reached"):
                await _asyncpg(credential)
            [failed] = await r.outcomes(1)
            assert (failed.decision, failed.code) == ("failed", "upstream")
            await r.settled(lambda: not r.gateway.quota.pipes and not r.gateway.plane.in_flight)
            moved = replace(r.broker._registry.resource("warehouse"), destination=_place(shop, shop.server.port))
            r.broker._registry._resources["warehouse"] = moved
            with pytest.raises(asyncpg.CannotConnectNowError, match="remit: the database does not speak TLS"):
                await _asyncpg(credential)
            await r.settled(lambda: not r.gateway.quota.pipes and not r.gateway.plane.in_flight)
            await r.broker._registry.close()
            await r.settled(lambda: not front.serving)

    with warehouse() as shop:
        play(lambda: scene(shop))


def _only(authority: Path) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.load_verify_locations(authority)
    return made


def _engine(resource: Resource, secret: Secret | None) -> PostgresEngine:
    return PostgresEngine(resource, secret, clock=now, random=secrets.token_bytes)


def _place(shop: Warehouse, port: int) -> str:
    return f"postgresql://{shop.login}@localhost:{port}/{shop.name}"


async def _in_a_run(r: Rig, shop: Warehouse, behind: int) -> tuple[int, str]:
    """Open a database port, and issue a lease; return the port and the connection string that a run gets."""
    r.now[0] = now()
    accepted = {"accept": ["public-connect", "public-temp"]}
    resource = Resource("warehouse", "postgres", _place(shop, behind), (shop.detail(),), None, accepted)
    await r.broker.put_resource(OPERATOR, resource, Secret(shop.password))
    wanted = GrantRequest((shop.detail(),), Bounds(timedelta(minutes=15)), purpose="read")
    grant = (await r.broker.open(OPERATOR, wanted)).grant
    port = await listening(r, grant.id)
    credential = (await r.broker.issue(OPERATOR, grant.id, shop.detail())).credential
    plain = {name: value.reveal() if isinstance(value, Secret) else value for name, value in credential.items()}
    return port, local(plain, port)["dsn"]
