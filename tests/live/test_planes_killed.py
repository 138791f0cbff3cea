"""kill -9 of each process of a real broker, and of two, under load: it serves again, and the run goes on."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from remit.core import scope
from remit.core.audit import ungrouped
from tests.live.fleet import SEARCH
from tests.live.terminal import COMMAND, PATIENCE, Terminal, configure
from tests.live.test_crash import left_behind
from tests.live.warehouse import Warehouse, warehouse
from tests.support.postgres_server import free_port

pytestmark = [
    *(pytest.mark.live, pytest.mark.timeout(240)),
    # httpx leaves a socket that was refused to the collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SECRET = "k-0123456789abcdef"
VICTIMS = [
    *(("edge",), ("web",), ("targets",), ("authority",), ("supervisor",)),
    *(("edge", "targets"), ("edge", "web"), ("authority", "edge"), ("edge-own",), ("supervisor", "edge-own")),
]
APART = VICTIMS.index(("edge", "web"))  # the second edge that dies under one authority
LOAD = """
import http.client, os, sys, threading
def ask(name):
    number = 0
    with open(f"seen-{name}", "w", buffering=1) as seen:
        while True:
            number += 1
            web = http.client.HTTPConnection("127.0.0.1", 8471, timeout=5)
            try:
                web.request("GET", f"/search/v1/{name}-{number}", headers={"authorization": key})
                print(f"{name}-{number}", web.getresponse().status, file=seen)
            except (OSError, http.client.HTTPException):
                print(f"{name}-{number}", 0, file=seen)
                threading.Event().wait(0.02)
            finally:
                web.close()
key = "Bearer " + os.environ["REMIT_KEY_SEARCH"]
for name in "abcd":
    threading.Thread(target=ask, args=(name,), daemon=True).start()
print(os.environ["REMIT_GRANT"], flush=True)
sys.stdin.read()
"""


class _Counted(BaseHTTPRequestHandler):
    seen: list[str]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.seen.append(self.path)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def upstream() -> Iterator[tuple[str, list[str]]]:
    """Serve what counts each request by its path."""
    seen = list[str]()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Counted", (_Counted,), {"seen": seen}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Killed:
    """A broker with a run, whoever of its processes is dead just now."""

    here: Terminal
    dice: random.Random
    up: subprocess.Popen[str] = field(init=False)

    def start(self) -> None:
        self.up = self.here.start("up", "--json")
        assert self.up.stdout is not None
        assert self.up.stdout.readline()

    def control(self) -> httpx.Client:
        transport = httpx.HTTPTransport(uds=str(self.here.state / "run" / "control.sock"))
        return httpx.Client(transport=transport, base_url="http://control", timeout=PATIENCE)

    def pass_by(self, seconds: float) -> None:
        """Let time pass."""
        with suppress(subprocess.TimeoutExpired):
            self.up.wait(seconds)

    def until(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 25
        while not is_so():
            assert time.monotonic() < deadline, is_so
            self.pass_by(0.05)

    def processes(self) -> dict[str, psutil.Process]:
        supervisor = psutil.Process(self.up.pid)
        found = {"supervisor": supervisor}
        for child in supervisor.children():
            with suppress(psutil.Error):
                found[child.name().removeprefix("remit ").partition(".")[0]] = child
        return found

    def kill(self, *victims: str) -> None:
        known = self.processes()
        for name in victims:
            self.pass_by(self.dice.random() * 0.1)
            if name in known:  # targets are there when something is to be reached
                with suppress(psutil.NoSuchProcess):  # it died with another
                    known[name].send_signal(signal.SIGKILL)
        if "supervisor" in victims:
            self.up.communicate(timeout=PATIENCE)
            psutil.wait_procs(known.values(), PATIENCE)
            assert not [name for name, process in known.items() if process.is_running()]
            self.start()

    def asked(self) -> Counter[str]:
        """Return how often the run was answered how, so far."""
        lines = list[list[str]]()
        for path in (self.here.home / "work").glob("seen-*"):
            lines += map(str.split, path.read_text().splitlines())
        return Counter(line[1] for line in lines if len(line) == 2)  # the last may be half there

    def issue(self, task: str, grant: str, detail: object) -> None:
        """Have a role made at the database, whoever dies meanwhile."""
        with suppress(httpx.HTTPError), self.control() as control:
            control.post(f"/v1/tasks/{task}/leases", json={"grant": grant, "detail": detail})

    def answers(self) -> bool:
        with suppress(httpx.HTTPError), self.control() as control:
            return control.get("/v1/tasks").is_success
        return False

    def uses(self) -> list[str]:
        """Return the ids of all requests that were permitted, by the log."""
        found, start = list[str](), 0
        with self.control() as control:
            while entries := control.get("/v1/audit", params={"start": start, "limit": 1000}).json()["entries"]:
                start += len(entries)
                for entry in entries:
                    if entry.get("event") == "resource.use" and entry.get("decision") == "allow":
                        found += ungrouped(entry["request"])
        return found


@contextmanager
def _set_up(home: Path, house: Warehouse, url: str, seed: int) -> Iterator[tuple[Killed, Any]]:
    configure(home, ["[listen]", f'api = "127.0.0.1:{free_port()}"', f'gateway = "127.0.0.1:{free_port()}"'])
    (home / "work").mkdir()
    made = Killed(Terminal(home, "https://idp.test", work=home / "work"), random.Random(seed))  # noqa: S311 - told
    made.start()
    try:
        store = house.resource
        bound = scope.dump(store.bound)
        search = {"kind": "http", "destination": url, "bound": [SEARCH], "settings": {}, "secret": SECRET}
        shop = {
            "kind": "postgres",
            "destination": store.destination,
            "bound": bound,
            "settings": {**store.settings, "accept": ["public-connect", "public-temp"]},
        }
        with made.control() as control:
            for name, body in (("search", search), ("warehouse", {**shop, "secret": house.password})):
                put = control.put(f"/v1/resources/{name}", json=body)
                assert put.is_success, put.text
        yield made, scope.dump((house.detail(),))[0]
    finally:
        made.up.terminate()
        made.up.communicate(timeout=PATIENCE)


@pytest.mark.parametrize("seed", [1])
def test_whoever_is_killed_the_run_goes_on_and_nothing_is_lost_or_left(tmp_path: Path, seed: int) -> None:
    with upstream() as (url, seen), warehouse() as house, _set_up(tmp_path, house, url, seed) as (made, detail):
        held = made.here.told("open", "t", "-r", "warehouse", "--ttl", "1h", "--as-owner")
        bound = "search:actions=GET,paths=/v1/**,args=any"
        command = [*COMMAND, "run", "-r", bound, "--", sys.executable, "-c", LOAD]
        run = subprocess.Popen(
            command,
            cwd=made.here.work,
            env=made.here.environ(),
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert run.stdout is not None
        grant = run.stdout.readline().strip()
        assert grant, run.communicate()
        for number, victims in enumerate(VICTIMS):
            before = made.asked()["200"]
            made.until(lambda before=before: made.asked()["200"] > before + 10)  # type: ignore[misc]  # of this round
            issuing = threading.Thread(target=made.issue, args=(held["task"], held["grant"], detail))
            issuing.start()
            made.kill(*victims)
            issuing.join()
            made.until(made.answers)
            after = made.asked()["200"]
            made.until(lambda after=after: made.asked()["200"] > after + 10)  # type: ignore[misc]  # as above
            assert ("edge-own" in made.processes()) is (number >= APART), victims
        _ended(made, run, held["task"], seen)
        made.until(lambda: left_behind(house) == set())
        verified = made.here.told("audit", "verify")
        assert verified["verified"] is True, verified


def _ended(made: Killed, run: subprocess.Popen[str], task: str, seen: list[str]) -> None:
    """End both tasks: nothing arrives after that, and each request that ever did is in the log, under its own id."""
    with made.control() as control:
        [mine] = [row["task"] for row in control.get("/v1/tasks").json()["tasks"] if row["task"] != task]
        assert control.post(f"/v1/tasks/{mine}/close").json()["state"] == "closed"
        arrived = len(seen)
        refused = made.asked().total()
        made.until(lambda: made.asked().total() > refused + 20 or run.poll() is not None)
        assert len(seen) == arrived
        made.until(lambda: control.post(f"/v1/tasks/{task}/close").json()["state"] == "closed")
    run.communicate(timeout=PATIENCE)
    made.until(lambda: "edge-own" not in made.processes())
    ids = made.uses()
    assert len(set(seen)) == len(seen)
    assert len(set(ids)) == len(ids)
    assert made.asked()["200"] <= len(seen) <= len(ids) <= len(seen) + 8 * len(VICTIMS)
