from __future__ import annotations

import asyncio
import json
import re
import time
from pathlib import Path

import psutil
import pytest

from remit.compose.app import routes
from remit.core.principal import Holder, Right
from remit.web.routes import Route
from tests.attacks import forge
from tests.broker.world import TABLE
from tests.oauth.plane import Agent, Plane, access, opening, play

INSIDE = ("Traceback", "remit.", ".py", "sqlite", "Error(", "/home", "/root", "broker.", "starlette", "uvicorn")
PUBLIC = {
    "/oauth/jwks",
    "/oauth/status",
    "/oauth/status/1",
    "/.well-known/oauth-authorization-server",
    "/.well-known/oauth-protected-resource",
    "/.well-known/oauth-protected-resource/{path:path}",
    "/healthz",
    "/problems/{code}",
    "/v1/identity",
    "/approvals/{approval}",
    "/oauth/client/{resource}",  # what providers read of remit as their client
    "/oauth/connected/{resource}",  # where they send a browser back to, that began it
}
PROVING = {
    "/oauth/token",
    "/oauth/revoke",
    "/oauth/introspect",
    "/v1/approvals/{approval}/approve",
    "/v1/approvals/{approval}/deny",
}


async def raw(plane: Plane, data: bytes) -> bytes:
    """Send bytes as they are; return what comes back until the server stops."""
    host, _, port = plane.base.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(data)
        await writer.drain()
        return await asyncio.wait_for(reader.read(65_536), 5)
    finally:
        writer.close()


def status_of(answer: bytes) -> int:
    """Return the status of a raw answer."""
    return int(answer.split(b" ", 2)[1])


# -- OAU-06 -----------------------------------------------------------------------------------------------------------


@pytest.mark.attack("OAU-06")
@pytest.mark.parametrize("name", ["access_token", "token", "subject_token", "DPoP", "id_token"])
def test_a_token_in_a_url_is_refused_and_not_logged(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "remit")
    caplog.set_level("DEBUG", "uvicorn")

    async def scene(plane: Plane, agent: Agent) -> None:
        for row in routes(plane.deps):
            path = _path(row, agent)
            headers = plane.headers(agent, row.method, path)
            answer = await plane.web.request(row.method, f"{path}?{name}={agent.token}", headers=headers)
            assert answer.status_code == 400, row.path
            assert answer.headers["referrer-policy"] == "no-referrer"
        assert agent.token not in caplog.text
        assert agent.token[-40:] not in caplog.text

    forge.walk(tmp_path, scene)


def _path(row: Route, agent: Agent) -> str:
    names = {"task": agent.task, "grant": agent.grant, "lease": "lse_x", "resource": "search", "secret": "search"}
    return re.sub(r"\{(\w+)\}", lambda found: names.get(found[1], "scope"), row.path)


# -- API-02 -----------------------------------------------------------------------------------------------------------


@pytest.mark.attack("API-02")
def test_what_is_foreign_looks_like_what_is_not_there(tmp_path: Path) -> None:
    async def shape(plane: Plane, agent: Agent, method: str, path: str, body: object) -> tuple[int, object, list[str]]:
        answer = await plane.call(agent, method, path, **({"json": body} if body is not None else {}))
        content = {name: value for name, value in answer.json().items() if name != "instance"}
        return answer.status_code, content, sorted(answer.headers)

    async def scene(plane: Plane, agent: Agent) -> None:
        other = Agent()
        await plane.opened(other)
        channel = await plane.channel(Holder(other.task, other.grant))
        asked = {"grant": other.grant, "detail": TABLE}
        lease = (await channel.post(f"/v1/tasks/{other.task}/leases", json=asked)).json()["lease"]
        foreign = [
            ("GET", f"/v1/tasks/{other.task}", None),
            ("POST", f"/v1/tasks/{other.task}/close", {}),
            ("POST", f"/v1/tasks/{other.task}/grants/{other.grant}/revoke", {}),
            ("POST", f"/v1/tasks/{agent.task}/grants/{other.grant}/revoke", {}),
            ("POST", f"/v1/tasks/{other.task}/leases", asked),
            ("POST", f"/v1/tasks/{agent.task}/leases", asked),
            ("POST", f"/v1/leases/{lease}/revoke", {}),
            ("POST", f"/v1/leases/{lease}/renew", {"ttl": 60}),
        ]
        for method, path, body in foreign:
            here = await shape(plane, agent, method, path, body)
            gone = path.replace(other.task, "task_none").replace(other.grant, "grt_none").replace(lease, "lse_none")
            nobody = json.loads(json.dumps(body).replace(other.grant, "grt_none"))
            assert here == await shape(plane, agent, method, gone, nobody), path
            assert here[0] == 404

    forge.walk(tmp_path, scene)


@pytest.mark.attack("API-02")
def test_an_ancestor_and_a_sibling_look_like_nothing_too(tmp_path: Path) -> None:
    async def scene(plane: Plane, root: Agent) -> None:
        one, two = Agent(), Agent()
        await plane.delegated(root, one)
        await plane.delegated(root, two)
        for grant in (root.grant, two.grant, "grt_none"):
            answer = await plane.call(one, "POST", f"/v1/tasks/{root.task}/grants/{grant}/revoke")
            assert (answer.status_code, answer.json()["detail"]) == (
                404,
                "there is no such object, or you may not know of it",
            )
        tree = (await plane.call(one, "GET", f"/v1/tasks/{root.task}")).json()
        assert [grant["grant"] for grant in tree["grants"]] == [one.grant]

    forge.walk(tmp_path, scene)


FIELDS = ("ttl", "depth", "fan_out", "exercise", "authorization_details", "subject_token", "audience")
BODY: dict[str, object] = {"kind": "http", "destination": "https://a.test", "bound": [], "settings": {}}
ODD = ["'", '"', "\\", "é", "\0", "%00", "1 OR 1=1", "{}", "[]", "../../etc/passwd", "<b>", "a" * 5_000, "-1", "1e9"]


@pytest.mark.attack("API-02")
def test_malformed_parameters_are_named_and_nothing_inside_is(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        forms = [{**opening(), name: odd} for odd in ODD for name in FIELDS]
        bodies = [{**BODY, name: odd} for odd in ODD for name in (*BODY, "secret")]
        answers = [await plane.control.post("/oauth/token", data=form) for form in forms]
        answers += [await plane.control.put("/v1/resources/odd", json=body) for body in bodies]
        for answer in answers:
            assert 400 <= answer.status_code < 500, answer.text
            assert not [word for word in INSIDE if word in answer.text], answer.text

    play(tmp_path, scene)


@pytest.mark.attack("API-02")
def test_an_error_inside_is_told_by_its_instance_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "remit.web")

    async def scene(plane: Plane) -> None:
        plane.world.target.fail, plane.world.target.error = {"issue"}, OSError("secret inside")
        opened = await plane.opened()
        asked = {"grant": opened["grant"], "detail": TABLE}
        answer = await plane.control.post(f"/v1/tasks/{opened['task']}/leases", json=asked)
        assert answer.status_code >= 500
        assert "secret inside" not in answer.text
        assert answer.json()["instance"] in caplog.text

    play(tmp_path, scene)


# -- API-04 -----------------------------------------------------------------------------------------------------------


@pytest.mark.attack("API-04")
def test_every_route_is_classified_and_the_public_ones_are_these(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        table = routes(plane.deps)
        assert {row.path for row in table if access(row) == "public"} == PUBLIC
        assert {row.path for row in table if access(row) == "proving"} == PROVING

    play(tmp_path, scene)


@pytest.mark.attack("API-04")
def test_no_route_answers_a_caller_without_a_proven_token(tmp_path: Path) -> None:
    async def scene(plane: Plane, agent: Agent) -> None:
        credentials = [
            {},
            {"authorization": f"Bearer {agent.token}"},
            {"authorization": f"DPoP {agent.token}"},
            {"cookie": f"session={agent.token}"},
            {"authorization": f"DPoP {plane.proof(agent, 'GET', '/v1/self')}"},
        ]
        paths = {_path(row, agent) for row in routes(plane.deps) if row.right is not None}
        variants = {path + "/" for path in paths} | {"/" + path for path in paths} | {path.upper() for path in paths}
        variants |= {"/v1", "/v1/", "/admin", "/oauth/authorize", "/docs", "/openapi.json", "/metrics"}
        for path in sorted(paths | variants):
            for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
                for headers in credentials if path in paths else credentials[:2]:
                    answer = await plane.web.request(method, plane.base + path, headers=headers)
                    assert answer.status_code == 401, (method, path, headers)

    forge.walk(tmp_path, scene)


@pytest.mark.attack("API-04")
def test_an_agent_is_refused_what_is_the_operators(tmp_path: Path) -> None:
    async def scene(plane: Plane, agent: Agent) -> None:
        channel = await plane.channel(Holder(agent.task, agent.grant))
        for row in routes(plane.deps):
            if row.right is Right.OPERATE:
                path = _path(row, agent)
                assert (await plane.call(agent, row.method, path)).status_code == 403, row.path
                assert (await channel.request(row.method, path)).status_code == 403, row.path
        assert (await channel.post("/oauth/token", data=opening())).json()["error"] == "access_denied"

    forge.walk(tmp_path, scene)


# -- MCP-01 -----------------------------------------------------------------------------------------------------------

HOSTS = [
    "evil.test",
    "rebind.network:{port}",
    "127.0.0.1.nip.io",
    "[::1]",
    "[::1]:{port}",
    "localhost:1",
    "",
    "127.0.0.1",
]


@pytest.mark.attack("MCP-01")
@pytest.mark.parametrize("host", HOSTS)
def test_a_foreign_host_is_misdirected(tmp_path: Path, host: str) -> None:
    async def scene(plane: Plane) -> None:
        named = host.format(port=plane.base.rpartition(":")[2]).encode()
        for path in (b"/oauth/jwks", b"/v1/self", b"/oauth/token", b"/nothing"):
            answer = await raw(plane, b"GET %b HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % (path, named))
            assert status_of(answer) in {400, 421}
            assert b'"keys"' not in answer

    play(tmp_path, scene)


@pytest.mark.attack("MCP-01")
@pytest.mark.parametrize("hosts", [b"", b"Host: %b\r\nHost: evil.test\r\n", b"Host: evil.test\r\nHost: %b\r\n"])
def test_a_missing_or_second_host_is_misdirected(tmp_path: Path, hosts: bytes) -> None:
    async def scene(plane: Plane) -> None:
        lines = hosts.replace(b"%b", plane.base.removeprefix("http://").encode())
        answer = await raw(plane, b"GET /oauth/jwks HTTP/1.1\r\n%bConnection: close\r\n\r\n" % lines)
        assert status_of(answer) in {400, 421}

    play(tmp_path, scene)


@pytest.mark.attack("MCP-01")
@pytest.mark.parametrize("origin", ["http://evil.test", "null", "https://127.0.0.1", "http://localhost:8470"])
def test_a_foreign_origin_changes_nothing(tmp_path: Path, origin: str) -> None:
    async def scene(plane: Plane, agent: Agent) -> None:
        path = f"/v1/tasks/{agent.task}/close"
        headers = {**plane.headers(agent, "POST", path), "origin": origin}
        assert (await plane.web.post(path, headers=headers)).status_code == 403
        assert (await plane.call(agent, "GET", "/v1/self")).status_code == 200

    forge.walk(tmp_path, scene)


@pytest.mark.attack("MCP-01")
def test_our_own_origin_and_none_are_admitted(tmp_path: Path) -> None:
    async def scene(plane: Plane, agent: Agent) -> None:
        path = f"/v1/tasks/{agent.task}/close"
        headers = {**plane.headers(agent, "POST", path), "origin": plane.base}
        assert (await plane.web.post(path, headers=headers)).status_code == 200
        assert (await plane.web.get("/oauth/jwks")).status_code == 200

    forge.walk(tmp_path, scene)


# -- DOS-02 -----------------------------------------------------------------------------------------------------------

SHAPES = {
    "deep lists": b"[" * 30_000 + b"]" * 30_000,
    "deep objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "many names": b"{" + b",".join(b'"%d":1' % n for n in range(6_000)) + b"}",
    "one name often": b"{" + b",".join(b'"a":1' for n in range(9_000)) + b"}",
    "a long number": b'{"a":' + b"9" * 60_000 + b"}",
    "not a number": b'{"a":NaN}',
    "an infinity": b'{"a":1e999}',
    "escapes": b'{"a":"' + b"\\u0061" * 10_000 + b'"}',
    "half a surrogate": b'{"a":"\\ud800"}',
    "not UTF-8": b'{"a":"\xff"}',
    "a million names": b"{" + b",".join(b'"%d":1' % n for n in range(1_000_000)) + b"}",
    "a million digits": b"9" * 1_000_000,
    "a hundred thousand deep": b"[" * 100_000,
}


@pytest.mark.attack("DOS-02")
@pytest.mark.parametrize("shape", SHAPES)
def test_json_that_costs_is_refused_at_once(tmp_path: Path, shape: str) -> None:
    async def scene(plane: Plane) -> None:
        json_type = {"content-type": "application/json"}
        details = {**opening(), "authorization_details": SHAPES[shape][:40_000].decode("latin-1")}
        before = psutil.Process().memory_info().rss
        requests = [
            {"method": "PUT", "url": "/v1/resources/a", "content": SHAPES[shape], "headers": json_type},
            {"method": "POST", "url": "/oauth/token", "data": details},
        ]
        for request in requests:
            took = []
            for _ in range(3):
                start = time.thread_time()
                answer = await plane.control.send(plane.control.build_request(**request))  # type: ignore[arg-type]  # drawn
                took.append(time.thread_time() - start)
                assert answer.status_code in {400, 413}, answer.text[:200]
            assert min(took) < 0.05
        assert psutil.Process().memory_info().rss - before < 20_000_000

    play(tmp_path, scene)


@pytest.mark.attack("DOS-02")
@pytest.mark.parametrize("framing", [b"Content-Length: 100000000\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_a_hundred_megabytes_are_refused_without_being_kept(tmp_path: Path, framing: bytes) -> None:
    async def scene(plane: Plane) -> None:
        host = plane.base.removeprefix("http://").encode()
        head = b"POST /oauth/token HTTP/1.1\r\nHost: %b\r\nContent-Type: application/x-www-form-urlencoded\r\n%b\r\n"
        body = b"a" * 200_000 if framing.startswith(b"Content") else b"30d40\r\n" + b"a" * 200_000 + b"\r\n"
        before = psutil.Process().memory_info().rss
        answer = await raw(plane, head % (host, framing) + body)
        assert status_of(answer) == 413
        assert b"connection: close" in answer.lower()
        assert psutil.Process().memory_info().rss - before < 20_000_000

    play(tmp_path, scene)


@pytest.mark.attack("DOS-02")
def test_a_head_that_does_not_end_is_cut(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        line = b"GET /v1/self HTTP/1.1\r\nX: "
        host, _, port = plane.base.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(line)
        sent = 0
        while not reader.at_eof() and sent < 10_000_000:
            writer.write(b"a" * 50_000)
            sent += 50_000
            try:
                await writer.drain()
                await asyncio.wait_for(reader.read(1), 0.01)
            except TimeoutError:
                continue
            except OSError:
                break
        writer.close()
        assert sent < 10_000_000

    play(tmp_path, scene)
