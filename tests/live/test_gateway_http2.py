"""Upstreams that nobody here wrote, before which TLS decides what is spoken: Node, nginx, and hosts of both."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from grpclib.server import Server

from tests.attacks.certificates import Authority, authority
from tests.broker.world import OPERATOR
from tests.gateway.rig import ALL, PLACEHOLDER, SECRET, Rig, Wire, play, rig
from tests.live.idp import NODE
from tests.peers import require
from tests.support.postgres_server import free_port

pytestmark = pytest.mark.live
# What it has heard goes to its standard output, a line each.
SERVER = """
const fs = require("node:fs"), { createHash } = require("node:crypto");
const [pem, both] = process.argv.slice(1);
const options = { cert: fs.readFileSync(pem), key: fs.readFileSync(pem), allowHTTP1: both === "both" };
const say = (value) => process.stdout.write(JSON.stringify(value) + "\\n");
const server = require("node:http2").createSecureServer(options, (request, response) => {
  const digest = createHash("sha256"), path = request.url;
  let size = 0;
  request.on("data", (data) => { digest.update(data); size += data.length; });
  request.on("aborted", () => say({ aborted: path }));
  request.on("end", () => {
    const { headers } = request;
    say({ path, version: request.httpVersion, headers, size, digest: digest.digest("hex") });
    if (path === "/events") {
      response.writeHead(200, { "content-type": "text/event-stream" });
      const timer = setInterval(() => response.write("data: tick\\n\\n"), 5);
      response.on("close", () => { clearInterval(timer); say({ closed: path }); });
    } else if (path === "/echo") {
      response.end("<" + headers.authorization + ">");
    } else if (path === "/trailers") {
      response.writeHead(200, { trailer: "x-sum" });
      response.write("body");
      response.addTrailers({ "x-sum": "1" });
      response.end();
    } else if (path === "/hints") {
      response.writeEarlyHints({ link: "</a.css>; rel=preload; as=style" });
      response.end("hinted");
    } else if (path.startsWith("/bytes/")) {
      response.end("x".repeat(Number(path.slice(7))));
    } else if (path === "/leave") {
      response.stream.session.close();
      response.end("last");
    } else if (path === "/break") {
      response.writeHead(200, { "content-length": "10" });
      response.write("half", () => response.stream.session.destroy());
    } else if (path.startsWith("/wait/")) {
      setTimeout(() => response.end(path), 300);
    } else {
      response.writeHead(path === "/none" ? 204 : 200);
      response.end(path === "/none" ? undefined : "fine");
    }
  });
});
server.on("session", () => say({ session: true }));
server.listen(0, "127.0.0.1", () => say({ port: server.address().port }));
"""
NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;
events {{ worker_connections 64; }}
http {{ access_log {folder}/seen; client_body_temp_path {folder}/a; proxy_temp_path {folder}/b;
  fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  server {{ listen 127.0.0.1:{port} ssl; http2 on; ssl_certificate {pem}; ssl_certificate_key {pem};
    location / {{ default_type text/plain; return 200 "$server_protocol"; }} }} }}
"""


class NodeServer:
    """Node's server, and what it has said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        self._process, self._out = process, process.stdout

    async def said(self, wanted: str) -> dict[str, object]:
        """Return the next thing that it says which has a member of this name."""
        async with asyncio.timeout(20):
            while True:
                value = json.loads(await self._out.readline())
                assert isinstance(value, dict)
                if wanted in value:
                    return value

    async def sessions(self, until: str) -> int:
        """Return how many connections there have been when it has got a request for a path."""
        count = 0
        async with asyncio.timeout(20):
            while (value := json.loads(await self._out.readline())).get("path") != until:
                count += "session" in value
        return count


@asynccontextmanager
async def node(ca: Authority, *words: str) -> AsyncIterator[tuple[Rig, NodeServer]]:
    ca.server("node")
    command = [str(NODE), "-e", SERVER, str(ca.folder / "node.pem"), *words]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    server = NodeServer(process)
    try:
        port = (await server.said("port"))["port"]
        async with rig(ALL, destination=f"https://localhost:{port}", tls=ca.trust) as r:
            yield r, server
    finally:
        process.kill()
        await process.wait()


def test_a_server_of_http_2_alone_gets_the_key_and_answers(tmp_path: Path) -> None:
    async def scene() -> None:
        async with node(authority(tmp_path)) as (r, server):
            reply = await r.get("/api/v1/models?q=1", f"Authorization: Bearer {PLACEHOLDER}")
            assert (reply.status, reply.body) == (200, b"fine")
            seen = await server.said("path")
            headers = seen["headers"]
            assert isinstance(headers, dict)
            assert (seen["version"], seen["path"]) == ("2.0", "/v1/models?q=1")
            assert headers["authorization"] == f"Bearer {SECRET}"
            assert headers[":authority"] == r.gateway.plane.routes._targets["api"].destination.authority
            assert {"host", "connection", "transfer-encoding"}.isdisjoint(headers)
            for path, body in (("trailers", b"body"), ("hints", b"hinted"), ("bytes/3000000", b"x" * 3_000_000)):
                assert (await r.get(f"/api/{path}")).body == body
            assert (await r.get("/api/none")).status == 204
            assert (await r.get("/api/bytes/10", method="HEAD")).status == 200
            assert await server.sessions("/bytes/10") == 0  # after the first

    play(scene)


def test_a_server_of_both_is_asked_in_http_1_1(tmp_path: Path) -> None:
    async def scene() -> None:
        async with node(authority(tmp_path), "both") as (r, server):
            assert (await r.get("/api/v1/models")).body == b"fine"
            assert (await server.said("path"))["version"] == "1.1"

    play(scene)


def test_many_requests_at_a_time_share_one_connection(tmp_path: Path) -> None:
    async def scene() -> None:
        async with node(authority(tmp_path)) as (r, server):
            wires = [await r.wire() for _ in range(64)]
            for number, wire in enumerate(wires):
                await wire.send(r.request(f"/api/wait/{number}"))
            for number, wire in enumerate(wires):
                assert (await wire.reply()).body == b"/wait/%d" % number
            assert (await r.get("/api/v1/last")).status == 200
            assert await server.sessions("/v1/last") == 1

    play(scene)


@pytest.mark.parametrize("chunked", [True, False])
def test_a_large_body_arrives_whole(tmp_path: Path, *, chunked: bool) -> None:
    async def scene() -> None:
        body = os.urandom(8_000_000)
        async with node(authority(tmp_path)) as (r, server):
            wire = await r.wire()
            framed = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
            sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body
            await wire.send(r.request("/api/upload", framed, method="POST") + sent)
            assert (await wire.reply("POST")).status == 200
            seen = await server.said("path")
            assert (seen["size"], seen["digest"]) == (len(body), hashlib.sha256(body).hexdigest())

    play(scene)


def test_a_key_in_an_answer_is_withheld(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        async with node(authority(tmp_path)) as (r, server):
            wire = await r.wire()
            await wire.send(r.request("/api/echo", "Connection: close"))
            rest = await wire.rest()
            assert SECRET[:20].encode() not in rest
            assert SECRET[-20:].encode() not in rest
            assert SECRET in json.dumps(await server.said("path"))

    play(scene)
    assert "repeated the credential" in caplog.text


async def _ticking(r: Rig, *lines: str) -> Wire:
    wire = await r.wire()
    await wire.send(r.request("/api/events", *lines))
    await wire.reader.readuntil(b"tick")
    return wire


@pytest.mark.attack("REV-01")
def test_events_are_cut_with_their_grant_and_others_go_on(tmp_path: Path) -> None:
    async def scene() -> None:
        async with node(authority(tmp_path)) as (r, server):
            child = await r.child(ALL)
            cut, other = await _ticking(r, f"Remit-Grant: {child.id}"), await _ticking(r)
            await r.broker.revoke(OPERATOR, child.id)
            assert (await server.said("closed"))["closed"] == "/events"
            assert not (await cut.rest()).endswith(b"0\r\n\r\n")
            for _ in range(10):
                await other.reader.readuntil(b"tick")
            await r.broker.revoke(OPERATOR, r.grant.id)
            assert (await server.said("closed"))["closed"] == "/events"
            assert not (await other.rest()).endswith(b"0\r\n\r\n")

    play(scene)


def test_a_server_that_leaves_is_asked_on_another_connection(tmp_path: Path) -> None:
    async def scene() -> None:
        async with node(authority(tmp_path)) as (r, server):
            assert (await r.get("/api/leave")).body == b"last"
            assert (await r.get("/api/v1/x")).status == 200
            wire = await r.wire()
            await wire.send(r.request("/api/break", "Connection: close"))
            assert not (await wire.rest()).endswith(b"half" + b"x" * 6)
            assert [event.decision for event in await r.outcomes(3)].count("failed") == 1
            assert (await r.get("/api/v1/y")).status == 200
            assert await server.sessions("/v1/y") == 3

    play(scene)


@contextmanager
def nginx(folder: Path, pem: Path) -> Iterator[int]:
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port, pem=pem))
    process = subprocess.Popen(
        [require("nginx"), "-p", str(folder), "-c", str(config), "-e", str(folder / "error.log")]
    )
    try:
        yield port
    finally:
        process.terminate()
        process.wait(10)


def test_nginx_with_both_is_asked_in_http_1_1(tmp_path: Path) -> None:
    async def scene() -> None:
        ca = authority(tmp_path)
        ca.server("nginx")
        with nginx(tmp_path, tmp_path / "nginx.pem") as port:
            async with rig(ALL, destination=f"https://localhost:{port}", tls=ca.trust) as r:
                async with asyncio.timeout(20):
                    while (reply := await r.get("/api/v1/x")).status == 502:  # noqa: ASYNC110 - it starts
                        await asyncio.sleep(0.02)
                assert reply.body == b"HTTP/1.1"
                await r.settled(lambda: b" HTTP/1.1" in (tmp_path / "seen").read_bytes())

    play(scene)


def test_a_server_that_does_not_refuse_http_1_1_and_speaks_none_is_found_out(tmp_path: Path) -> None:
    async def scene() -> None:
        ca = authority(tmp_path)
        context = ca.server("grpc")
        context.set_alpn_protocols(["h2"])
        server = Server([])
        await server.start("127.0.0.1", port := free_port(), ssl=context)
        try:
            async with rig(ALL, destination=f"https://localhost:{port}", tls=ca.trust) as r:
                codes = [(await r.get("/api/a.B/C", *_GRPC, method="POST", body=bytes(5))) for _ in range(2)]
        finally:
            server.close()
            await server.wait_closed()
        assert [reply.status for reply in codes] == [502, 400]
        assert "te: trailers" in codes[1].headers["grpc-message"]  # which is what remit has left out

    play(scene)


_GRPC = "Content-Type: application/grpc", "TE: trailers"
