"""The processes of a real broker: what each reaches and sees."""

from __future__ import annotations

import os
import ssl
import subprocess
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from tests.cli.test_broker import REMIT
from tests.identity.spire import Authority, Domain, pem, server
from tests.identity.workload_api import Agent
from tests.support.postgres_server import free_port

CONFIG = """
[listen]
api = "off"
gateway = "off"

[[trust_domains]]
name = "{name}"
workload_api = "{url}"
allow = ["spiffe://{name}/**"]
"""


TLS = """
[listen]
api = "off"
gateway = "off"

[tls]
listen = "127.0.0.1:{port}"
names = ["127.0.0.1"]
certificate = "{place}/tls.crt"
key = "{place}/tls.key"
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    config = tmp_path / "config" / "remit"
    config.mkdir(parents=True)
    return {**os.environ, "XDG_CONFIG_HOME": str(config.parent), "REMIT_STATE_DIR": str(tmp_path / "state")}


def configured(environ: dict[str, str], text: str) -> None:
    (Path(environ["XDG_CONFIG_HOME"]) / "remit" / "config.toml").write_text(text, "utf-8")


@pytest.mark.live
def test_a_bundle_comes_from_an_agent_on_a_unix_socket(environ: dict[str, str], tmp_path: Path) -> None:
    domain, sockets = Domain("prod.example"), tmp_path / "agent"
    sockets.mkdir()
    with Agent(sockets / "agent.sock", (domain,)) as agent:
        configured(environ, CONFIG.format(name=domain.name, url=agent.url))
        with subprocess.Popen([REMIT, "up"], env=environ, stderr=subprocess.PIPE, text=True) as broker:
            assert broker.stderr is not None
            told = next((line.strip() for line in broker.stderr if "trust domain" in line), "")
            broker.terminate()
    assert told == f"trust domain {domain.name}: loaded"


@pytest.mark.live
def test_a_certificate_that_takes_the_place_of_another_is_shown_without_a_restart(
    environ: dict[str, str], tmp_path: Path
) -> None:
    web, port = Authority.root("the web", now=datetime.now(UTC)), free_port()
    configured(environ, TLS.format(port=port, place=tmp_path / "live"))
    editions = [server(web, "127.0.0.1", now=datetime.now(UTC)) for _ in "ab"]

    def shown() -> bytes:
        return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port), timeout=10))

    def laid(number: int) -> None:
        place, made = tmp_path / f"edition-{number}", editions[number]
        place.mkdir()
        (place / "tls.crt").write_bytes(made.chain[0].public_bytes(Encoding.PEM))
        (place / "tls.key").touch(0o600)
        (place / "tls.key").write_bytes(pem(made.key))
        (tmp_path / "fresh").symlink_to(place.name)
        (tmp_path / "fresh").replace(tmp_path / "live")

    laid(0)
    with subprocess.Popen([REMIT, "up", "--json"], env=environ, stdout=subprocess.PIPE, text=True) as broker:
        assert broker.stdout is not None
        assert broker.stdout.readline()
        assert shown() == editions[0].ders[0]
        laid(1)
        deadline = time.monotonic() + 15
        while (seen := shown()) != editions[1].ders[0] and time.monotonic() < deadline:
            with suppress(subprocess.TimeoutExpired):
                broker.wait(0.1)
        broker.terminate()
    assert seen == editions[1].ders[0]
