"""How long a key stays in the clear in the broker's memory, and who can look there."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest

from examples.demo import house as houses
from examples.demo.house import House
from remit.sdk import verbs
from tests.support.process_memory import copies

CANARY = "rmt-memory-5d41402abc4b2a76b9719d911017c592"
MOST = 12  # copies; docs/explanation/limits.md publishes this number
CALL = "import os, urllib.request as u; print(u.urlopen(os.environ['REMIT_URL_API'] + '/v1/x').status)"
DETAIL = {"type": "http", "resource": "api", "actions": ["GET"], "paths": ["/v1/**"]}


class Answer(BaseHTTPRequestHandler):
    """An upstream that says yes."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


def _used(house: House) -> None:
    """Store a key and use it ten times, each time in a run of its own."""
    upstream = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    try:
        destination = f"http://127.0.0.1:{upstream.server_port}"
        body = {"kind": "http", "destination": destination, "bound": [DETAIL], "settings": {}, "secret": CANARY}
        with house.client() as client:
            client.run(verbs.put_resource("api", body))
        work = house.folder / "work"
        work.mkdir()
        for _ in range(10):
            command = house.command("run", "--purpose", "use", "-r", "api", "-q", "--", sys.executable, "-c", CALL)
            done = subprocess.run(command, env=house.environment, cwd=work, capture_output=True, text=True, check=False)
            assert done.stdout.strip() == "200", done.stderr
    finally:
        upstream.shutdown()
        upstream.server_close()


@pytest.mark.attack("STO-06")
@pytest.mark.live
def test_the_broker_keeps_few_copies_of_a_key_and_nobody_of_its_own_user_can_look(tmp_path: Path) -> None:
    with houses.broker(tmp_path) as house:
        _used(house)
        supervisor = psutil.Process(house.process.pid)
        known = {each.pid: each.name() for each in (supervisor, *supervisor.children(recursive=True))}
        if os.geteuid() == 0:
            found = {name: copies(pid, CANARY) for pid, name in known.items()}
            assert 1 <= sum(found.values()) <= MOST, found
            assert found[supervisor.name()] == 0
            assert {Path(f"/proc/{pid}").stat().st_uid for pid in known} == {0}
        for pid in known if os.geteuid() else ():
            with pytest.raises(PermissionError):
                Path(f"/proc/{pid}/mem").read_bytes()
        written = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert all(CANARY.encode() not in path.read_bytes() for path in written)
