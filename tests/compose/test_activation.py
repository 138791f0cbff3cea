"""Listeners that systemd passes, by one of our own: it binds, passes on, and becomes the broker."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from remit.compose import activation
from remit.config.settings import load
from remit.errors import UnavailableError
from remit.process import kernel
from remit.sdk.place import answered
from tests.support.postgres_server import free_port

REMIT = Path(sys.executable).with_name("remit")
ACTIVATE = """
import os, sys
count = int(sys.argv[1])
for number, descriptor in enumerate(map(int, sys.argv[3 : 3 + count])):
    os.dup2(descriptor, 100 + number)
for number in range(count):
    os.dup2(100 + number, 3 + number)
    os.close(100 + number)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(count), "LISTEN_FDNAMES": sys.argv[2]}
os.execv(sys.argv[3 + count], sys.argv[3 + count :])
"""


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return the environment of a broker with an API, whose runtime directory is there."""
    config = tmp_path / "config" / "remit"
    config.mkdir(parents=True)
    (config / "config.toml").write_text(f'[listen]\napi = "127.0.0.1:{free_port()}"\ngateway = "off"\n', "utf-8")
    (tmp_path / "s" / "run").mkdir(parents=True)
    for folder in ("s", "s/run"):
        (tmp_path / folder).chmod(0o700)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(config.parent))
    monkeypatch.setenv("REMIT_STATE_DIR", str(tmp_path / "s"))
    return dict(os.environ)


def bound(environ: Mapping[str, str]) -> dict[str, socket.socket]:
    """Bind what a broker listens on, as systemd does."""
    found = {}
    for name, where in activation.addresses(load(environ)).items():
        sock = socket.socket(socket.AF_UNIX if isinstance(where, str) else socket.AF_INET)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
        sock.listen()
        found[name] = sock
    return found


def refuses() -> bool:
    """Whether this kernel lets a socket refuse descriptors."""
    with socket.socket(socket.AF_UNIX) as sock:
        return kernel.refuse_descriptors(sock)


@contextmanager
def started(sockets: Mapping[str, socket.socket], environ: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    numbers = [sock.fileno() for sock in sockets.values()]
    command = [sys.executable, "-c", ACTIVATE, str(len(numbers)), ":".join(sockets), *map(str, numbers)]
    whole = [*command, str(REMIT), "up", "--json"]
    with subprocess.Popen(whole, env=environ, pass_fds=numbers, stdout=subprocess.PIPE, text=True) as broker:
        try:
            yield broker
        finally:
            broker.terminate()


def test_who_connects_while_no_broker_serves_is_answered_by_the_next(environ: dict[str, str]) -> None:
    sockets, settings = bound(environ), load(environ)
    control = settings.places.control
    waiting = [socket.socket(socket.AF_UNIX), socket.create_connection(settings.api or ("", 0))]
    waiting[0].connect(str(control))
    for sock in waiting:
        host = f"127.0.0.1:{settings.api[1] if settings.api else 0}"
        sock.settimeout(30)
        sock.sendall(f"GET /healthz HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
    for _ in range(2):  # it keeps them for the next one
        with started(sockets, environ) as broker:
            assert broker.stdout is not None
            assert json.loads(broker.stdout.readline())["control"] == str(control)
            while waiting:
                with waiting.pop() as sock:
                    assert sock.recv(100).startswith(b"HTTP/1.1 200 OK")
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(control))) as client:
                [authority] = [
                    one["pid"]
                    for one in client.get("http://localhost/v1/processes").json()["processes"]
                    if one["name"] == "authority"
                ]
            assert answered(control) == (authority, os.geteuid())  # as its note has it
            assert json.loads(settings.places.note.read_text())["pid"] == authority
            if refuses():
                assert sockets["control"].getsockopt(socket.SOL_SOCKET, kernel._PASS_RIGHTS) == 0
            broker.send_signal(signal.SIGTERM)
            assert broker.wait(30) == 0
        assert control.is_socket()
        waiting.append(socket.socket(socket.AF_UNIX))
        waiting[0].settimeout(30)
        waiting[0].connect(str(control))
        waiting[0].sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
    for sock in (*waiting, *sockets.values()):
        sock.close()


def refused(environ: dict[str, str], names: str, *sockets: socket.socket) -> str:
    """Return what a broker says to which listeners are passed by other names."""
    passed = {f"{number}": sock for number, sock in enumerate(sockets)}
    numbers = [sock.fileno() for sock in passed.values()]
    command = [sys.executable, "-c", ACTIVATE, str(len(numbers)), names, *map(str, numbers), str(REMIT), "up"]
    done = subprocess.run(
        command, env=environ, pass_fds=numbers, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 1
    assert "remit service install" in done.stderr
    return done.stderr


def test_a_listener_that_is_not_ours_is_refused(environ: dict[str, str]) -> None:
    sockets = bound(environ)
    control, api = sockets["control"], sockets["api"]
    assert "as `gateway`" in refused(environ, "gateway", api)  # it is off
    assert "as `control`" in refused(environ, "control", api)
    with control.dup() as twice:
        assert "as `control`" in refused(environ, "control:control", control, twice)
    assert "without their names" in refused(environ, "", control, api)
    with socket.socket(socket.AF_UNIX) as deaf:
        control.close()
        load(environ).places.control.unlink()
        deaf.bind(str(load(environ).places.control))
        assert "as `control`" in refused(environ, "control", deaf)
    api.close()


def test_what_is_passed_to_another_process_is_not_ours(environ: dict[str, str]) -> None:
    told = environ | {"LISTEN_PID": str(os.getpid() + 1), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "control"}
    assert activation.passed(told, load(environ)) == {}
    assert not set(activation.VARIABLES) & set(told)
    with pytest.raises(UnavailableError, match="without their names"):
        activation.passed(told | {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2"}, load(environ))
