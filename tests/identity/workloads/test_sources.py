from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from remit.errors import UnavailableError
from remit.identity.workloads import bundles
from remit.identity.workloads.bundles import MAX_BUNDLE, ApiSource, FileSource, SpiffeSource, WebSource
from tests.identity.spire import NOW, Authority, Domain, Svid, server
from tests.identity.workload_api import Agent

DOMAIN = Domain("prod.example")
OTHER = Domain("other.example")
WEB = Authority.root("the web")


# -- file -------------------------------------------------------------------------------------------------------------


def test_a_file_is_read_anew_when_it_changes(tmp_path: Path) -> None:
    async def scene() -> None:
        path = tmp_path / "bundle.json"
        path.write_bytes(DOMAIN.bundle())
        source = FileSource(path)
        first = await source.fetch(DOMAIN.name)
        assert first.authorities
        assert first.hint is None  # looking costs nothing
        assert await source.fetch(DOMAIN.name) is first
        fresh = tmp_path / "new.json"
        fresh.write_bytes(OTHER.bundle())
        fresh.replace(path)
        assert (await source.fetch(DOMAIN.name)).authorities != first.authorities

    asyncio.run(scene())


def test_a_file_that_is_missing_unreadable_or_no_bundle_gives_none(tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(b'{"keys": []' + b" " * MAX_BUNDLE + b"}")
    torn = tmp_path / "torn"
    torn.write_bytes(DOMAIN.bundle()[:-10])
    for path in (tmp_path / "none", tmp_path, large, torn):
        with pytest.raises(UnavailableError):
            asyncio.run(FileSource(path).fetch(DOMAIN.name))


# -- https_web --------------------------------------------------------------------------------------------------------


@dataclass
class Endpoint:
    """A bundle endpoint on loopback, with a certificate that ``WEB`` signed."""

    body: bytes = field(default_factory=DOMAIN.bundle)
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    url: str = ""
    asked: int = 0


@contextmanager
def endpoint(directory: Path, host: str = "127.0.0.1", certificate: Svid | None = None) -> Iterator[Endpoint]:
    made = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked += 1
            self.send_response(made.status)
            for name, value in (*made.headers, ("content-length", str(len(made.body)))):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(made.body)

        def log_message(self, *_: object) -> None:
            pass

    (directory / "server.pem").write_bytes((certificate or server(WEB, host)).pem)
    (directory / "ca.pem").write_bytes(WEB.certificate.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "server.pem")
    listening = HTTPServer(("127.0.0.1", 0), Handler)
    listening.socket = context.wrap_socket(listening.socket, server_side=True)
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    made.url = f"https://127.0.0.1:{listening.server_port}/bundle"
    try:
        yield made
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()


def fetched(url: str, ca_file: Path | None) -> object:
    return asyncio.run(WebSource(url, ca_file).fetch(DOMAIN.name))


def test_an_endpoint_is_believed_by_its_certificate(tmp_path: Path) -> None:
    with endpoint(tmp_path) as there:
        found = asyncio.run(WebSource(there.url, tmp_path / "ca.pem").fetch(DOMAIN.name))
        assert found.authorities
        assert found.hint is not None
        assert found.sequence == 1


def test_an_endpoint_that_nobody_vouches_for_is_not(tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(Authority.root("another").certificate.public_bytes(Encoding.PEM))
    with endpoint(tmp_path) as there:
        for ca_file in (None, other, tmp_path / "missing.pem"):
            with pytest.raises(UnavailableError):
                fetched(there.url, ca_file)
        assert there.asked == 0


def test_an_endpoint_of_another_name_is_not_believed(tmp_path: Path) -> None:
    with endpoint(tmp_path, "bundles.example") as there, pytest.raises(UnavailableError):
        fetched(there.url, tmp_path / "ca.pem")


@pytest.mark.parametrize("status", [301, 302, 307, 308, 204, 403, 404, 500])
def test_any_answer_but_success_is_none_and_no_redirect_is_followed(tmp_path: Path, status: int) -> None:
    with endpoint(tmp_path) as there:
        there.status, there.headers = status, (("location", there.url),)
        with pytest.raises(UnavailableError):
            fetched(there.url, tmp_path / "ca.pem")
        assert there.asked == 1


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"keys": []' + b" " * MAX_BUNDLE + b"}"])
def test_an_answer_that_is_no_bundle_or_too_large_is_none(tmp_path: Path, body: bytes) -> None:
    with endpoint(tmp_path) as there:
        there.body = body
        with pytest.raises(UnavailableError):
            fetched(there.url, tmp_path / "ca.pem")


def test_an_endpoint_that_is_down_or_hangs_is_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "TIMEOUT", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for port in (silent.getsockname()[1], 1):
            with pytest.raises(UnavailableError, match="cannot be fetched"):
                fetched(f"https://127.0.0.1:{port}/", None)


# -- https_spiffe -----------------------------------------------------------------------------------------------------

ID = DOMAIN.id("/spire/server")


def spiffe(there: Endpoint, directory: Path, bootstrap: bytes | None = None) -> SpiffeSource:
    """Return a source that begins with the bundle of ``DOMAIN``, or another."""
    first = directory / "first.json"
    first.write_bytes(DOMAIN.bundle() if bootstrap is None else bootstrap)
    return SpiffeSource(there.url, ID, FileSource(first))


def test_an_endpoint_with_an_svid_is_believed_under_the_bundle_that_there_is(tmp_path: Path) -> None:
    with endpoint(tmp_path, certificate=DOMAIN.svid("/spire/server")) as there:
        there.body = DOMAIN.bundle(spiffe_sequence=2)
        assert asyncio.run(spiffe(there, tmp_path).fetch(DOMAIN.name)).sequence == 2


def test_an_endpoint_of_an_intermediate_authority_is_believed_also_where_the_bundle_has_no_root(tmp_path: Path) -> None:
    below = DOMAIN.authority.below("below")
    alone = Domain(DOMAIN.name)
    alone.authority = replace(below, above=())
    with endpoint(tmp_path, certificate=below.svid(ID)) as there:
        asyncio.run(spiffe(there, tmp_path).fetch(DOMAIN.name))
        asyncio.run(spiffe(there, tmp_path, alone.bundle()).fetch(DOMAIN.name))


@pytest.mark.parametrize(
    "certificate",
    [
        DOMAIN.svid("/ns/agents/planner"),  # another workload of the trust domain
        OTHER.authority.svid(ID),  # of another trust domain, which says that it is the one
        Domain(DOMAIN.name).svid("/spire/server"),  # of an authority with the same name
        DOMAIN.authority.svid(ID, DOMAIN.id("/other")),
        DOMAIN.authority.svid(ID, now=NOW - timedelta(hours=2)),  # it has ended
        server(WEB, "127.0.0.1"),  # the web's authorities vouch for nothing here
        server(DOMAIN.authority, "127.0.0.1"),  # no SPIFFE ID
    ],
)
def test_an_endpoint_that_is_somebody_else_is_not_believed(tmp_path: Path, certificate: Svid) -> None:
    with endpoint(tmp_path, certificate=certificate) as there, pytest.raises(UnavailableError):
        asyncio.run(spiffe(there, tmp_path).fetch(DOMAIN.name))


def test_the_next_look_is_under_the_bundle_that_came_last(tmp_path: Path) -> None:
    rotated = Domain(DOMAIN.name)
    with endpoint(tmp_path, certificate=DOMAIN.svid("/spire/server")) as there:
        there.body = rotated.bundle(spiffe_sequence=2)  # the keys of before are withdrawn
        source = spiffe(there, tmp_path)
        assert asyncio.run(source.fetch(DOMAIN.name)).sequence == 2
        with pytest.raises(UnavailableError):
            asyncio.run(source.fetch(DOMAIN.name))
    with endpoint(tmp_path, certificate=rotated.svid("/spire/server")) as after:
        source.url, after.body = after.url, rotated.bundle(spiffe_sequence=3)
        assert asyncio.run(source.fetch(DOMAIN.name)).sequence == 3


@pytest.mark.parametrize("keys", [{"spiffe_sequence": 0}, {"keys": [], "spiffe_sequence": 2}])
def test_an_earlier_edition_or_one_that_nothing_could_follow_is_refused(tmp_path: Path, keys: dict[str, Any]) -> None:
    with endpoint(tmp_path, certificate=DOMAIN.svid("/spire/server")) as there:
        source = spiffe(there, tmp_path)
        there.body = DOMAIN.bundle(**keys)
        with pytest.raises(UnavailableError, match=r"earlier edition|no authority"):
            asyncio.run(source.fetch(DOMAIN.name))
        there.body = DOMAIN.bundle()
        assert asyncio.run(source.fetch(DOMAIN.name)).sequence == 1


def test_a_first_bundle_without_authorities_or_that_is_not_there_believes_nobody(tmp_path: Path) -> None:
    with endpoint(tmp_path, certificate=DOMAIN.svid("/spire/server")) as there:
        for source in (
            spiffe(there, tmp_path, b'{"keys": []}'),
            SpiffeSource(there.url, ID, FileSource(tmp_path / "none")),
        ):
            with pytest.raises(UnavailableError):
                asyncio.run(source.fetch(DOMAIN.name))
        assert there.asked == 0


# -- Workload API -----------------------------------------------------------------------------------------------------


def test_an_agent_gives_the_bundle_of_one_trust_domain(tmp_path: Path) -> None:
    with Agent(tmp_path / "agent.sock", (DOMAIN, OTHER)) as agent:
        for domain in (DOMAIN, OTHER):
            found = asyncio.run(ApiSource(agent.url).fetch(domain.name))
            assert found.authorities == (domain.authority.certificate.public_bytes(Encoding.DER),)
            assert [one.kid for one in found.jwt.keys] == ["jwt-1"]
            assert found.jwt.keys[0].key.public_key == domain.jwt_key.public_key()


def test_a_trust_domain_that_the_agent_does_not_know_has_no_bundle(tmp_path: Path) -> None:
    with Agent(tmp_path / "agent.sock", (OTHER,)) as agent, pytest.raises(UnavailableError, match="no bundle"):
        asyncio.run(ApiSource(agent.url).fetch(DOMAIN.name))


def test_an_agent_that_is_not_there_is_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "TIMEOUT", 0.2)
    for socket_ in (f"unix://{tmp_path}/none.sock", "tcp://127.0.0.1:1", "tcp://localhost:1", "unix://"):
        with pytest.raises(UnavailableError):
            asyncio.run(ApiSource(socket_).fetch(DOMAIN.name))


def test_an_agent_that_has_no_identity_for_us_is_out(tmp_path: Path) -> None:
    with Agent(tmp_path / "agent.sock", (DOMAIN,), entitled=False) as agent, pytest.raises(UnavailableError):
        asyncio.run(ApiSource(agent.url).fetch(DOMAIN.name))
