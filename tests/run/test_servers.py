"""Servers that a launcher starts for sessions, as the edge has it do, which a test plays here."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import psutil
import pytest

from remit.run import servers
from remit.run.sandbox import Bind
from remit.run.spec import LaunchSpec

PATIENCE = 20.0
ECHO = "import sys\nfor line in sys.stdin: print(sys.argv[1:], line.strip(), flush=True)"
STUBBORN = f"import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{ECHO}\nwhile True: time.sleep(9)"
SILENT = (
    "import os, sys\nos.close(0); os.close(1)\nwhile not os.path.exists('go'): os.sched_yield()\n"
    "sys.stderr.write('no such database'); sys.stderr.flush(); os._exit(3)"
)
FAILS = "import sys; sys.stderr.write('a' * 9_000 + '\\nno such database\\n\\x1b[2J'); sys.exit(3)"


@dataclass
class Edge:
    """The edge's end of a launcher's servers."""

    runs: servers.ServerRuns
    listener: socket.socket
    control: socket.socket
    said: list[str]
    sockets: ExitStack

    def tell(self, **what: str) -> None:
        self.control.sendall(json.dumps(what).encode() + b"\n")

    def start(self, key: str, name: str = "forge") -> socket.socket:
        """Have a server started; return the connection to it."""
        self.tell(**{"start": name, "as": key})
        sock = self.listener.accept()[0]
        self.sockets.callback(sock.close)
        sock.settimeout(PATIENCE)
        assert sock.recv(len(key) + 1) == key.encode() + b"\n"
        return sock


def asked(sock: socket.socket) -> str:
    sock.sendall(b"hello\n")
    with sock.makefile("rb") as lines:
        return lines.readline().decode()


def ended(sock: socket.socket) -> bool:
    with suppress(ConnectionError):
        while sock.recv(65_536):
            pass
    return True


@contextmanager
def edge(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str, request: dict[str, object]) -> Iterator[Edge]:
    monkeypatch.setattr(servers, "_REMIT", (sys.executable, "-c", code))
    monkeypatch.setattr(servers, "GRACE", 0.5)
    binds = (Bind(PurePosixPath("/srv/a")), Bind(PurePosixPath("/srv/b"), writable=True))
    spec = LaunchSpec(("agent",), folder / "control.sock", request, folder, {}, binds)
    said: list[str] = []
    runs = servers.ServerRuns(spec, frozenset({"forge"}), said.append)
    with socket.socket(fileno=os.dup(runs.listener)) as listener, ExitStack() as sockets:
        listener.settimeout(PATIENCE)
        runs.begin()
        with listener.accept()[0] as control:
            try:
                yield Edge(runs, listener, control, said, sockets)
            finally:
                runs.end()
    os.close(runs.listener)
    assert list(folder.iterdir()) == []


def children() -> list[psutil.Process]:
    """The servers that were started, among what other tests of this process have left."""
    found = []
    for each in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # a zombie too
            found += [each] if each.cmdline()[-1:] == ["forge"] else []
    return found


def test_each_session_has_a_server_that_is_spoken_to_directly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with edge(tmp_path, monkeypatch, ECHO, {"open": {}}) as at:
        first, second = at.start("k1"), at.start("k2")
        for sock in (first, second):
            heard = asked(sock)
            assert heard.startswith("['mcp', 'start', '--parent', ")
            assert heard.endswith("'--bind=/srv/a', '--bind=/srv/b:rw', '--as-owner', 'forge'] hello\n")
        assert len(children()) == 2
        gone = children()[0]
        at.tell(end="k1")
        assert ended(first)
        gone.wait(PATIENCE)
        left = children()
        assert len(left) == 1
    assert not left[0].is_running()
    assert at.said == []


@pytest.mark.parametrize("request_", [{"grant": "grt_1"}, {"open": {"id_token": "t"}}])
def test_a_server_is_opened_for_whom_its_run_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request_: dict[str, object]
) -> None:
    with edge(tmp_path, monkeypatch, ECHO, request_) as at:
        assert "--as-owner" not in asked(at.start("k1"))


def test_a_stubborn_server_is_killed_and_all_of_them_when_the_edge_has_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with edge(tmp_path, monkeypatch, STUBBORN, {"open": {}}) as at:
        sockets = [at.start(f"k{n}") for n in range(3)]
        for sock in sockets:
            assert asked(sock)  # it ignores the signal by now
        found = children()
        at.tell(end="k0")
        assert ended(sockets[0])
        at.control.shutdown(socket.SHUT_RDWR)
        for each in found:
            each.wait(PATIENCE)
        at.runs.begin()  # the next edge
        with at.listener.accept()[0] as control:
            at.control = control
            assert asked(at.start("k9"))


def test_the_last_words_of_a_server_that_fails_are_for_whoever_started_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with edge(tmp_path, monkeypatch, FAILS, {"open": {}}) as at:
        sock = at.start("k1")
        assert ended(sock)
        while not (at.said and "no such" in at.said[-2]):
            os.sched_yield()
        assert at.said[0] == "remit: the server `forge` ended with 3; it said last:"
        assert sum(map(len, at.said)) < servers.TAIL + 200


def test_a_server_that_fails_is_told_of_although_its_edge_has_seen_its_end_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(there)
    with edge(tmp_path / "runs", monkeypatch, SILENT, {"open": {}}) as at:
        monkeypatch.setattr(servers, "GRACE", PATIENCE)
        sock = at.start("k1")
        assert ended(sock)
        at.tell(end="k1")
        assert ended(at.start("k2"))  # so the launcher has read what was told before
        (there / "go").touch()
    assert at.said == ["remit: the server `forge` ended with 3; it said last:", "  no such database"] * 2


STRANGE = (
    b'{"start": "../x", "as": "k"}',
    b'{"start": "forge", "as": "k\\n"}',
    b'["start"]',
    b'{"start": "other", "as": "k"}',
)


@pytest.mark.parametrize("line", STRANGE)
def test_what_its_run_was_not_granted_or_is_no_name_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: bytes
) -> None:
    with edge(tmp_path, monkeypatch, ECHO, {"open": {}}) as at:
        at.control.sendall(line + b"\n")
        assert asked(at.start("k1"))
        assert len(children()) == 1


def test_there_are_so_many_and_the_next_is_told_by_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "MOST", 1)
    with edge(tmp_path, monkeypatch, ECHO, {"open": {}}) as at:
        first = at.start("k1")
        assert ended(at.start("k2"))
        assert asked(first)


def test_a_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, threading, time\nfrom remit.cli.start import _end_with\n"
        "_end_with(int(sys.argv[1]))\nprint('bound', flush=True)\ntime.sleep(60)"
    )
    outer = (
        "import subprocess, sys, threading, time\n"
        f"subprocess.Popen([sys.executable, '-c', {code!r}, str(threading.get_native_id())])\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", outer], cwd=tmp_path, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"bound\n"
        [inner] = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGKILL)
        psutil.wait_procs([inner], timeout=PATIENCE)
        assert not inner.is_running()
