"""A real broker that is told to end while requests are under way: each has an entry of how it ended."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from remit.core.audit import ungrouped
from tests.live.terminal import COMMAND, PATIENCE, Terminal, configure

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]
BOUND = "actions=GET,paths=/v1/**,args=any"
ASK = """
import http.client, os, sys, threading
def ask(path, times):
    for _ in range(times):
        web = http.client.HTTPConnection("127.0.0.1", 8471, timeout=20)
        try:
            web.request("GET", "/search/v1/" + path, headers={"authorization": key})
            answer = web.getresponse()
            print(path, answer.status, answer.read().decode(), flush=True)
        except (OSError, http.client.HTTPException):
            print(path, 0, flush=True)
            return
key = "Bearer " + os.environ["REMIT_KEY_SEARCH"]
for path, times in (("held", 1), ("quick", 100_000), ("quick", 100_000)):
    threading.Thread(target=ask, args=(path, times), daemon=True).start()
sys.stdin.read()
"""


class _Held(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: threading.Event
    over: threading.Event

    def do_GET(self) -> None:
        if self.path.endswith("held"):
            self.seen.set()
            self.over.wait(PATIENCE)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def upstream() -> Iterator[tuple[str, threading.Event]]:
    """Serve what answers at once, or not at all; yield what is set once somebody waits for that."""
    seen, over = threading.Event(), threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Holding", (_Held,), {"seen": seen, "over": over}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        over.set()
        server.shutdown()
        server.server_close()


def _up(here: Terminal) -> subprocess.Popen[str]:
    broker = here.start("up", "--json")
    assert broker.stdout is not None
    assert broker.stdout.readline()
    return broker


def _entries(here: Terminal) -> Iterator[dict[str, str]]:
    transport = httpx.HTTPTransport(uds=str(here.state / "run" / "control.sock"))
    with httpx.Client(transport=transport, base_url="http://control", timeout=PATIENCE) as control:
        start = 0
        while entries := control.get("/v1/audit", params={"start": start, "limit": 1000}).json()["entries"]:
            start += len(entries)
            yield from entries


def test_what_is_under_way_when_a_broker_is_told_to_end_has_an_outcome(tmp_path: Path) -> None:
    configure(tmp_path, ["[listen]", 'api = "off"', 'gateway = "off"'])
    (tmp_path / "work").mkdir()
    here = Terminal(tmp_path, "https://idp.test", work=tmp_path / "work")
    command = [*COMMAND, "run", "-q", "-r", "search", "--", sys.executable, "-c", ASK]
    with upstream() as (url, seen):
        broker = _up(here)
        added = here.run("resource", "add", "search", url, "--bound", BOUND)
        assert added[0] == 0, added[2]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, cwd=here.work, env=here.environ(), text=True, **pipes) as run:  # type: ignore[call-overload]  # of one kind
            lines = iter(run.stdout.readline, "")
            assert seen.wait(PATIENCE)
            for _ in range(20):
                assert next(lines).split()[:2] == ["quick", "200"]
            broker.send_signal(signal.SIGTERM)
            broker.communicate(timeout=PATIENCE)
            assert broker.returncode == 0
            held = next((line for line in lines if line.startswith("held")), "")
            assert held.startswith("held 503"), held
            broker = _up(here)
            run.communicate(timeout=PATIENCE)
        uses, outcomes = list[str](), Counter[str]()
        for entry in _entries(here):
            if entry["event"] == "resource.use" and entry["decision"] == "allow":
                uses += ungrouped(entry["request"])
            elif entry["event"] == "resource.outcome":
                outcomes.update(dict.fromkeys(ungrouped(entry["request"]), 1))
                assert entry["decision"] in {"done", "failed"}, entry
        broker.terminate()
        broker.communicate(timeout=PATIENCE)
    assert len(uses) > 20
    assert outcomes == Counter(uses)
