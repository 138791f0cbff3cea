"""A resource that a human connects, in a real broker: with a real authorization server, and an agent in a run."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.live.idp import Provider
from tests.live.terminal import Terminal, configure
from tests.support.postgres_server import free_port

pytestmark = pytest.mark.live

ASK = """
import json, os, sys, urllib.error, urllib.request
answer = {"tokens": 0}
while answer.get("tokens", 99) < int(sys.argv[1]):
    try:
        with urllib.request.urlopen(os.environ["REMIT_GATEWAY"] + "/tracker/issues") as found:
            answer = json.load(found)
    except urllib.error.HTTPError as error:
        answer = json.load(error)
print(json.dumps(answer))
"""
BOUND = "actions=GET,paths=/**,args=any"
DETAIL = json.dumps({"type": "http", "resource": "tracker", "actions": ["GET"], "paths": ["/**"], "args": "any"})


@dataclass
class Tracker:
    """A resource server that believes one authorization server, and says who that is (RFC 9728)."""

    url: str = ""
    provider: Provider | None = None
    seen: list[Mapping[str, object]] = field(default_factory=list)  # what each request's token was good for
    tokens: list[str] = field(default_factory=list)

    def answer(self, path: str, authorization: str) -> tuple[int, Mapping[str, object]]:
        assert self.provider is not None
        if path == "/.well-known/oauth-protected-resource":
            served = {"resource": self.url, "authorization_servers": [self.provider.issuer]}
            return 200, {**served, "scopes_supported": ["issues:read"]}
        if not authorization:  # asked who its provider is
            return 401, {"error": "invalid_token"}
        token = authorization.removeprefix("Bearer ")
        found = self.provider.token_info(token)
        self.tokens.append(token)
        self.seen.append(found)
        good = found["active"] and found["aud"] == self.url
        issues = {"issues": [f"of {found['login']}"], "tokens": len(set(self.tokens))}
        return (200, issues) if good else (401, {"error": "invalid_token"})


@contextmanager
def tracking() -> Iterator[Tracker]:
    made = Tracker()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            status, answer = made.answer(self.path, self.headers.get("authorization", ""))
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Scene:
    here: Terminal
    tracker: Tracker
    provider: Provider
    api: int

    def add(self, **oauth: object) -> None:
        setting = f"oauth={json.dumps(oauth)}"
        code, _, err = self.here.run("resource", "add", "tracker", self.tracker.url, "-b", BOUND, "--setting", setting)
        assert code == 0, err

    def connect(self, typed: str = "") -> tuple[str, str]:
        """Connect, typing ``typed``, or what the page shows that the browser comes back to."""
        with self.here.start("connect", "tracker", "--as-owner", "--json", stdin=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stderr is not None
            heard = ""
            while not heard.endswith("comes back to: ") and (more := process.stderr.read(1)):
                heard += more
            code = re.search("<code>([A-Z]{4}-[A-Z]{4})</code>", (self.here.home / "page").read_text())
            assert code is not None, heard
            out, err = process.communicate(f"{typed or code[1]}\n", timeout=60)
        return out, err

    def ask(self, tokens: int = 1) -> dict[str, object]:
        """Make requests as an agent in a run, by its gateway, until the resource has seen so many tokens."""
        code, out, err = self.here.run("run", "-d", DETAIL, "--as-owner", "--", "python3", "-c", ASK, str(tokens))
        assert code == 0, err
        return dict(json.loads(out))


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Serve a broker, a resource, and its authorization server."""
    api = free_port()
    (tmp_path / "policies").mkdir(mode=0o700)
    (tmp_path / "policies" / "all.cedar").write_text('@id("all")\npermit (principal, action, resource);\n')
    lines = ["[listen]", f'api = "127.0.0.1:{api}"', 'gateway = "off"']
    configure(tmp_path, [*lines, "[policy]", f'directory = "{tmp_path / "policies"}"'])
    with tracking() as tracker:
        provider = Provider(registered(api), {"alice": ()}, {tracker.url: "issues:read issues:write"})
        provider.start()
        tracker.provider = provider
        (tmp_path / "work").mkdir()
        here = Terminal(tmp_path, provider.issuer, work=tmp_path / "work")
        broker = here.start("up", "--json")
        try:
            assert broker.stdout is not None
            assert broker.stdout.readline()
            yield Scene(here, tracker, provider, api)
        finally:
            broker.terminate()
            broker.wait(20)
            provider.stop()
            for stream in (broker.stdout, broker.stderr):
                assert stream is not None
                stream.close()


def registered(api: int) -> list[dict[str, object]]:
    return [
        {
            "client_id": "remit-tracker",
            "token_endpoint_auth_method": "none",
            "redirect_uris": [f"http://127.0.0.1:{api}/oauth/connected/tracker"],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "application_type": "native",
        }
    ]


def test_a_human_connects_a_resource_and_an_agent_uses_it_without_a_token(scene: Scene) -> None:
    scene.add()
    refused = scene.ask()
    assert (refused["code"], refused["help"]) == ("connect", "on the broker's host: `remit connect tracker`")
    assert scene.tracker.seen == []
    assert "this is not the code on the page" in scene.connect("BCDF-GHJK")[1]
    assert scene.here.told("connection", "list") == {"connections": []}
    told = json.loads(scene.connect()[0])
    assert (told["state"], told["issuer"], told["scope"]) == ("live", scene.provider.issuer, "issues:read")
    assert scene.ask() == {"issues": ["of alice"], "tokens": 1}
    assert scene.tracker.seen[-1]["scope"] == "issues:read"
    ended = scene.here.told("disconnect", "tracker", "--as-owner")
    assert ended["state"] == "over"
    assert scene.ask()["code"] == "connect"
    while scene.provider.token_info(scene.tracker.tokens[0])["active"]:  # the provider is told, too
        assert scene.here.told("connection", "list")
    kept = b"".join(path.read_bytes() for path in scene.here.state.rglob("*") if path.is_file())
    assert scene.tracker.tokens[0].encode() not in kept


def test_a_token_is_renewed_by_a_client_that_was_registered_before_and_each_refresh_token_counts_once(
    scene: Scene,
) -> None:
    scene.provider.stop()
    scene.provider.lifetime = 4
    scene.provider.start()
    scene.add(client_id="remit-tracker", issuer=scene.provider.issuer, scopes=["issues:read", "issues:write"])
    scene.connect()
    assert scene.ask(tokens=3) == {"issues": ["of alice"], "tokens": 3}
    assert {str(seen["scope"]) for seen in scene.tracker.seen} == {"issues:read issues:write"}
