"""What is in the environment of ``remit up``, and steers nothing."""

from __future__ import annotations

import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from remit.compose.environ import OPERATOR
from tests.cli.test_broker import REMIT, environ, short
from tests.identity.spire import Authority, server

__all__ = ["environ", "short"]

OLD = """openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = old
[old]
MaxProtocol = TLSv1.2
"""
CALL = "import sys, ssl, urllib.request; urllib.request.urlopen(sys.argv[1], context=ssl.create_default_context())"


@contextmanager
def answering(folder: Path) -> Iterator[tuple[str, Path]]:
    """Answer 404 to every request, over TLS 1.3 alone; yield the URL, and the authority that vouches for it."""
    authority = Authority.root("the web")
    (folder / "pair.pem").write_bytes(server(authority, "127.0.0.1").pem)
    (folder / "ca.pem").write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(folder / "pair.pem")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        Thread(target=_answer, args=(listening, context), daemon=True).start()
        yield f"https://127.0.0.1:{listening.getsockname()[1]}/", folder / "ca.pem"
        listening.shutdown(socket.SHUT_RDWR)


def _answer(listening: socket.socket, context: ssl.SSLContext) -> None:
    while True:
        try:
            peer, _ = listening.accept()
        except OSError:
            return
        with suppress(OSError), context.wrap_socket(peer, server_side=True) as spoken:
            spoken.recv(4096)
            spoken.sendall(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")


@pytest.mark.attack("OPS-05")
def test_no_variable_has_keys_of_connections_written_down_or_another_library_configured(
    environ: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "openssl.cnf").write_text(OLD)
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "httpx.py").write_text("raise SystemExit('not mine')")
    keys = tmp_path / "keys.log"
    config = Path(environ["XDG_CONFIG_HOME"]) / "remit" / "config.toml"
    steered = {"OPENSSL_CONF": str(tmp_path / "openssl.cnf"), "SSLKEYLOGFILE": str(keys)}
    more = {"PYTHONPATH": str(tmp_path / "path"), "HTTPS_PROXY": "http://127.0.0.1:1", "GCONV_PATH": str(tmp_path)}
    with answering(tmp_path) as (url, authority):
        with config.open("a") as file:
            file.write(
                f'[[trust_domains]]\nname = "prod.test"\nallow = ["spiffe://prod.test/*"]\nbundle_url = "{url}"\n'
            )
        said = call(url, {"SSL_CERT_FILE": str(authority), **steered})
        assert "ALERT_PROTOCOL_VERSION" in said  # what it does to others
        assert "404" in call(url, {"SSL_CERT_FILE": str(authority), "SSLKEYLOGFILE": str(keys)})
        assert keys.stat().st_size
        keys.unlink()
        told = broker(environ | steered | more | {"SSL_CERT_FILE": str(authority)})
    assert "answered 404" in told
    assert not keys.exists()


def call(url: str, names: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", CALL, url], env=names, capture_output=True, text=True, check=False, timeout=30
    )
    return done.stderr


def broker(names: dict[str, str]) -> str:
    """Start a broker; return what it says of the one trust domain."""
    with subprocess.Popen([REMIT, "up"], env=names, stderr=subprocess.PIPE, text=True) as started:
        assert started.stderr is not None
        try:
            return next((line for line in started.stderr if "trust domain" in line), "")
        finally:
            started.send_signal(signal.SIGTERM)


@pytest.mark.attack("OPS-05")
def test_a_broker_begins_with_what_is_on_the_list_and_nothing_else(environ: dict[str, str]) -> None:
    names = environ | {"LD_PRELOAD": "", "PGSERVICE": "x", "MALLOC_PERTURB_": "1", "NETRC": "/x", "LANG": "C.UTF-8"}
    code = "import os; from remit.compose.environ import begin_anew; begin_anew(); print(*os.environ)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=names, capture_output=True, text=True, check=True, timeout=30
    )
    assert set(done.stdout.split()) <= OPERATOR
    assert {"REMIT_STATE_DIR", "XDG_CONFIG_HOME", "LANG"} <= set(done.stdout.split())
