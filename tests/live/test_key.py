"""`remit resource test`: whether a key works, by one request that is permitted and recorded like any other."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.live.terminal import COMMAND, PATIENCE, Terminal, configure

pytestmark = pytest.mark.live
ACME = """
[acme]
title = "Acme"
key = { header = "X-Api-Key" }
variables = ["ACME_KEY"]
shape = "acme_<hex:40>"
check = { path = "/me", headers = { accept = "application/json" } }
"""
KEY = "sk-real-7fd1b2c3a4958677685746352413fedc"


class Provider(ThreadingHTTPServer):
    """Knows one key; ``seen`` are the requests, ``broken`` has it fail."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str, str, str | None]] = []
        self.broken = False


class Handler(BaseHTTPRequestHandler):
    server: Provider

    def do_GET(self) -> None:
        shown = self.headers["x-api-key"]
        self.server.seen.append((self.path, shown, self.headers["anthropic-version"]))
        status = 500 if self.server.broken else 200 if shown == KEY else 401
        body = b'{"of the answer": "nothing is told"}'
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def provider() -> Iterator[Provider]:
    server = Provider()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def here() -> Iterator[Terminal]:
    with tempfile.TemporaryDirectory(prefix="remit-") as folder:  # a run's folder of sockets has 90 characters at most
        yield from served(Path(folder))


def served(tmp_path: Path) -> Iterator[Terminal]:
    configure(tmp_path, ["[listen]", 'api = "off"', 'gateway = "off"'])
    (tmp_path / "config" / "remit" / "providers.toml").write_text(ACME)
    (tmp_path / "work").mkdir()
    terminal = Terminal(tmp_path, "https://idp.test", work=tmp_path / "work")
    with terminal.start("up", "--json") as broker:
        try:
            assert broker.stdout is not None
            assert broker.stdout.readline()
            yield terminal
        finally:
            broker.terminate()
            broker.communicate(timeout=PATIENCE)


def add(
    here: Terminal, url: str, bound: str = "actions=GET,paths=/v1/**,args=any", provider: str = "anthropic"
) -> None:
    words = ["resource", "add", "llm", url, "--provider", provider, "--bound", bound, "--secret"]
    subprocess.run([*COMMAND, *words], cwd=here.work, env=here.environ(), input=KEY, text=True, check=True)


def test_a_key_that_works_one_that_does_not_and_a_provider_that_fails_are_told_apart(here: Terminal) -> None:
    with provider() as server:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        add(here, url)
        code, out, err = here.run("resource", "test", "llm", "--json")
        assert code == 0, err
        told = json.loads(out)
        assert told == {"resource": "llm", "works": True, "status": 200, "milliseconds": told["milliseconds"]}
        assert server.seen == [("/v1/models", KEY, "2023-06-01")]
        other = "sk-real-another-0123456789abcdef0123"
        words = [*COMMAND, "secret", "set", "llm"]
        subprocess.run(words, cwd=here.work, env=here.environ(), input=other, text=True, check=True)
        code, out, err = here.run("resource", "test", "llm")
        assert (code, out.split(":")[0]) == (1, "the key of `llm` does not work"), err
        server.broken = True
        code, out, _ = here.run("resource", "test", "llm")
        assert (code, out.split(":")[0]) == (1, "the key of `llm` may or may not work")
        assert "nothing is told" not in out + err
        log = here.run("audit", "tail", "--json")[1]
        asked = [event for event in map(json.loads, log.splitlines()) if event["event"] == "resource.use"]
        assert len(asked) == 3
        assert KEY not in log


def test_what_the_bound_does_not_permit_is_not_asked(here: Terminal) -> None:
    with provider() as server:
        add(here, f"http://127.0.0.1:{server.server_address[1]}", bound="actions=POST,paths=/v1/messages,args=any")
        code, out, err = here.run("resource", "test", "llm")
        assert (code, out, server.seen) == (1, "", [])
        assert "error:" in err


def test_a_destination_with_a_base_is_asked_below_it_once(here: Terminal) -> None:
    with provider() as server:
        add(here, f"http://127.0.0.1:{server.server_address[1]}/v1", bound="actions=GET,paths=/models,args=any")
        assert here.run("resource", "test", "llm")[0] == 0
        assert [path for path, _, _ in server.seen] == ["/v1/models"]


def test_a_provider_of_ones_own_is_one_in_every_process_of_a_broker(here: Terminal) -> None:
    with provider() as server:
        add(here, f"http://127.0.0.1:{server.server_address[1]}", "actions=GET,paths=/**,args=any", "acme")
        assert here.run("resource", "test", "llm")[0] == 0
        code, out, err = here.run("run", "-q", "--unsandboxed", "-r", "llm", "--", "sh", "-c", "echo $ACME_KEY")
        assert (code, out.startswith("acme_"), len(out)) == (0, True, 46), err
        assert server.seen == [("/me", KEY, None)]


def test_a_resource_whose_provider_has_no_such_request_is_refused(here: Terminal) -> None:
    words = ["resource", "add", "plain", "http://127.0.0.1:9", "--bound", "actions=GET,paths=/**"]
    assert here.run(*words)[0] == 0
    code, _, err = here.run("resource", "test", "plain")
    assert (code, "error: no request is known that tests the key of `plain`" in err) == (1, True)
