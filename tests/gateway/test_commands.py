"""MCP servers that are commands, over HTTP: what their launcher is told, and what either side hears of the other."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from remit.core import scope
from remit.core.request import GrantRequest
from remit.gateway import commands, stdio
from remit.gateway.server import Channel
from remit.ports import Closing, Resource
from tests.broker.world import OPERATOR, details
from tests.gateway.rig import Reply, Rig, Wire, http, play, rig
from tests.gateway.test_stdio import CALLS, EVERYTHING, LISTED, Side, connected

JSON, EVENTS = "Content-Type: application/json", "Accept: text/event-stream"
Json = dict[str, Any]
BEGIN = {"protocolVersion": "2025-11-25", "capabilities": {"sampling": {}, "elicitation": {}}}


@dataclass
class Scene:
    """A gateway, and a launcher as a test plays it."""

    rig: Rig
    grant: str
    port: int
    path: Path
    control: Side
    listener: Closing
    sides: list[Side] = field(default_factory=list)

    async def connected(self) -> Side:
        self.sides.append(await connected(self.path))
        return self.sides[-1]

    async def post(
        self, message: Mapping[str, object], session: str = "", port: int | None = None, at: str = "/gh"
    ) -> Reply:
        lines = [JSON, *([f"Mcp-Session-Id: {session}"] if session else [])]
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        return await self.rig.get(at, *lines, method="POST", body=body, port=port or self.port)

    def asks(
        self, message: Mapping[str, object], session: str = "", port: int | None = None, at: str = "/gh"
    ) -> asyncio.Task[Reply]:
        return asyncio.create_task(self.post(message, session, port, at))

    async def started(self) -> tuple[Side, str]:
        """Start the server that the launcher is told to; return its side, and the session's name."""
        told = await self.control.hears()
        assert told == {"start": "gh", "as": told["as"]}
        server = await self.connected()
        await server.say(told["as"].encode() + b"\n")
        return server, told["as"]

    async def session(self, able: Json | None = None) -> tuple[Side, str]:
        """Begin a session; return its server's side, and what the client names it by."""
        asked = self.asks({"id": 0, "method": "initialize", "params": BEGIN})
        server, _ = await self.started()
        heard = await server.hears()
        assert heard["params"]["capabilities"] == (able or {})
        await server.say({"jsonrpc": "2.0", "id": 0, "result": {"capabilities": {"tools": {}}}})
        reply = await asked
        assert reply.headers["content-type"] == "application/json"
        return server, reply.headers["mcp-session-id"]

    async def listening(self, session: str) -> Wire:
        wire = await self.rig.wire(self.port)
        await wire.send(self.rig.request("/gh", EVENTS, f"Mcp-Session-Id: {session}", port=self.port))
        return wire


@asynccontextmanager
async def scene(folder: Path, *raw: Mapping[str, object], settings: Json | None = None) -> AsyncIterator[Scene]:
    async with rig(http()) as made:
        bound = scope.parse([{**EVERYTHING, "actions": [*EVERYTHING["actions"], "roots/list"]}])
        given = {"command": ["server"]} if settings is None else settings
        await made.broker.put_resource(OPERATOR, Resource("gh", "mcp", "mcp+stdio:gh", bound, None, given))
        grant = await made.opened(*(raw or (CALLS,)))
        task = (await made.broker.find(grant.id)).task
        path, sock = folder / "s", socket.socket(socket.AF_UNIX)
        sock.bind(str(path))
        sock.listen()
        sock.setblocking(False)
        listener = await made.gateway.commands(sock, task, ("gh",))
        control = await connected(path)
        await made.settled(lambda: task in made.gateway.plane.pools.launchers)
        port = await made.listen(Channel(grant.id, {}))
        there = Scene(made, grant.id, port, path, control, listener, [control])
        try:
            yield there
        finally:
            listener.close()
            for side in there.sides:
                side.writer.close()


async def until(wire: Wire, text: bytes) -> bytes:
    """Read until something has come."""
    heard = b""
    async with asyncio.timeout(20):
        while text not in heard:
            heard += await wire.reader.read(65_536)
    return heard


def events(reply: Reply) -> list[Json]:
    return [json.loads(line[6:]) for line in reply.body.decode().splitlines() if line.startswith("data: ")]


def problem(reply: Reply) -> Json:
    found: Any = reply.json()
    holder = found["error"]["data"] if "error" in found else found["result"]["_meta"]
    told: Json = holder["remit/problem"]
    return told


def called(id_: object, tool: str = "look", **more: object) -> Json:
    return {"id": id_, "method": "tools/call", "params": {"name": tool, "arguments": {}, **more}}


def test_what_is_permitted_reaches_the_server_and_its_answer_comes_back(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path) as s:
            server, name = await s.session()
            assert (await s.post({"method": "notifications/initialized"}, name)).status == 202
            assert (await server.hears())["method"] == "notifications/initialized"
            asked = s.asks({"id": 1, "method": "tools/list"}, name)
            await server.hears()
            await server.say(b"this is a log\n")
            await server.say({"jsonrpc": "2.0", "id": "1", "result": {"tools": LISTED}})  # of another request
            await server.say({"jsonrpc": "2.0", "id": 1, "result": {"tools": LISTED}})
            listed: Any = (await asked).json()
            assert [tool["name"] for tool in listed["result"]["tools"]] == ["add", "look"]
            refused = await s.post(called(2, "wipe"), name)
            assert problem(refused)["code"] == "scope"
            asked = s.asks(called(3), name)
            assert (await server.hears())["id"] == 3  # and nothing before it
            await server.say({"jsonrpc": "2.0", "id": 3, "result": {"content": []}})
            assert (await asked).json()["result"] == {"content": []}
            uses = [(e.decision, e.action) for e in await s.rig.events("resource.use") if e.resource == "gh"]
            assert ("allow", "tools/call look") in uses
            assert ("deny", "tools/call") in uses

    play(story)


def test_what_comes_before_an_answer_comes_on_its_stream(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path) as s:
            server, name = await s.session()
            first = s.asks(called(1, _meta={"progressToken": "a"}), name)
            await server.hears()
            second = s.asks(called(2), name)
            await server.hears()
            params = {"progressToken": "a", "progress": 1}
            await server.say({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
            for id_ in (2, 1):
                await server.say({"jsonrpc": "2.0", "id": id_, "result": {}})
            assert (await second).json()["id"] == 2
            assert [each.get("method", each.get("id")) for each in events(await first)] == ["notifications/progress", 1]

    play(story)


def test_what_a_server_says_by_itself_waits_for_the_stream_of_it(tmp_path: Path) -> None:
    note = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}

    async def story() -> None:
        async with scene(tmp_path, EVERYTHING) as s:
            asked = s.asks({"id": 0, "method": "initialize", "params": BEGIN})
            server, key = await s.started()
            assert (await server.hears())["params"]["capabilities"] == {"sampling": {}, "elicitation": {}}
            await server.say({"jsonrpc": "2.0", "id": 0, "result": {}})
            name = (await asked).headers["mcp-session-id"]
            await server.say(note)
            asked = s.asks(called(1), name)  # what came before it has been taken
            await server.hears()
            await server.say({"jsonrpc": "2.0", "id": 1, "result": {}})
            await asked
            wire = await s.listening(name)
            assert b"list_changed" in await until(wire, b"list_changed")
            again = await s.listening(name)
            assert (await again.reply()).status == 409
            await server.say({"jsonrpc": "2.0", "id": "s", "method": "sampling/createMessage", "params": {}})
            assert b"sampling" in await until(wire, b"sampling")
            answer = {"id": "s", "result": {"role": "assistant", "content": {}, "model": "m"}}
            assert (await s.post(answer, name)).status == 202
            assert (await server.hears())["result"]["model"] == "m"
            assert key not in name.partition(".")[0]

    play(story)


def test_what_waits_for_a_stream_has_so_many_bytes_and_the_newest_stays(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path, EVERYTHING) as s:
            server, name = await s.session({"sampling": {}, "elicitation": {}})
            for n in range(5):
                params = {"level": "info", "data": f"{n}" + "x" * 1_000_000}
                await server.say({"jsonrpc": "2.0", "method": "notifications/message", "params": params})
            [session] = [e for e in s.rig.gateway.plane.in_flight if isinstance(e, commands.CommandSession)]
            await s.rig.settled(lambda: b'"4xxx' in (session._waiting or [b""])[-1])
            assert sum(map(len, session._waiting)) <= stdio.MOST_TOLD
            heard = await until(await s.listening(name), b'"4xxx')
            assert b'"3xxx' in heard
            assert b'"2xxx' not in heard

    play(story)


@pytest.mark.attack("MCP-02")
def test_a_session_is_one_grants_and_a_server_of_its_own(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path, {**CALLS}) as s:
            server, name = await s.session()
            task = (await s.rig.broker.find(s.grant)).task
            assert task
            bob = await s.rig.opened(CALLS)
            port = await s.rig.listen(Channel(bob.id, {}))
            for taken in (name, name.partition(".")[2], "x"):
                assert (await s.post(called(1), taken, port)).status == 404
            none: Any = (await s.post({"id": 0, "method": "initialize", "params": BEGIN}, "", port)).json()
            assert "nothing starts `gh` for this task" in str(none)  # whose launcher is another
            asked = s.asks(called(1), name)
            assert (await server.hears())["id"] == 1
            await server.say({"jsonrpc": "2.0", "id": 1, "result": {}})
            assert (await asked).status == 200

    play(story)


def test_without_a_session_a_client_is_told_to_begin_one(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path) as s:
            reply = await s.post(called(1))
            assert (reply.status, "initialize" in str(reply.json())) == (400, True)
            meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
            lines = ("Mcp-Protocol-Version: 2026-07-28", "Mcp-Method: server/discover")
            body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": meta}})
            newest = await s.rig.get("/gh", JSON, *lines, method="POST", body=body.encode(), port=s.port)
            assert newest.status == 400
            assert b'"code":-32601' in newest.body
            through = await s.rig.get("/mcp", JSON, *lines, method="POST", body=body.encode(), port=s.port)
            assert b'"code":-32601' in through.body  # so that its client begins a session with all servers
            assert (await s.rig.get("/gh", EVENTS, port=s.port)).status == 400

    play(story)


def test_a_session_ends_with_a_word_of_the_client_its_server_or_its_grant(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path) as s:
            server, name = await s.session()
            ended = await s.rig.get("/gh", f"Mcp-Session-Id: {name}", method="DELETE", port=s.port)
            assert ended.status == 200
            assert await server.ended()
            assert name.endswith((await s.control.hears())["end"])
            assert (await s.post(called(1), name)).status == 404
            server, name = await s.session()
            asked = s.asks(called(1), name)
            await server.hears()
            server.writer.close()
            assert problem(await asked)["code"] == "upstream"
            assert "end" in await s.control.hears()
            server, name = await s.session()
            wire = await s.listening(name)
            await until(wire, b"\r\n\r\n")
            task = (await s.rig.broker.find(s.grant)).task
            await s.rig.broker.close(OPERATOR, task)
            assert await server.ended()
            assert "end" in await s.control.hears()
            assert not any(isinstance(each, commands.CommandSession) for each in s.rig.gateway.plane.in_flight)

    play(story)


def test_a_server_that_starts_as_its_grant_ends_is_ended(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path) as s:
            child = await s.rig.broker.delegate(OPERATOR, s.grant, GrantRequest(details(CALLS)))
            port = await s.rig.listen(Channel(child.id, {}))
            s.asks({"id": 0, "method": "initialize", "params": BEGIN}, port=port).add_done_callback(_heard)
            told = await s.control.hears()
            s.rig.gateway.mark(frozenset({child.id}))  # as an edge's thread does
            await s.rig.broker.revoke(OPERATOR, child.id)
            server = await s.connected()
            await server.say(told["as"].encode() + b"\n")
            assert await s.control.hears() == {"end": told["as"]}
            assert await server.ended()
            assert not any(isinstance(each, commands.CommandSession) for each in s.rig.gateway.plane.in_flight)

    play(story)


def _heard(asked: asyncio.Task[Reply]) -> None:
    """Take note that a request has failed: its connection was cut."""
    asked.exception()


def test_a_server_that_does_not_come_in_time_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "OPENING", 0.1)

    async def story() -> None:
        async with scene(tmp_path) as s:
            asked = s.asks({"id": 0, "method": "initialize", "params": BEGIN})
            told = await s.control.hears()
            assert "not started in time" in str((await asked).json())
            assert await s.control.hears() == {"end": told["as"]}

    play(story)


def test_the_launcher_that_starts_a_server_is_asked_and_a_newer_one_changes_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path) as s:
            server, name = await s.session()
            task = (await s.rig.broker.find(s.grant)).task
            path, sock = tmp_path / "another", socket.socket(socket.AF_UNIX)
            sock.bind(str(path))
            sock.listen()
            sock.setblocking(False)
            listener = await s.rig.gateway.commands(sock, task, ("db",))
            s.sides.append(await connected(path))
            await s.rig.settled(lambda: len(s.rig.gateway.plane.pools.launchers[task]) > 1)
            asked = s.asks(called(1), name)
            assert (await server.hears())["id"] == 1
            await server.say({"jsonrpc": "2.0", "id": 1, "result": {}})
            assert (await asked).status == 200
            await s.session()  # of the first launcher, as it is its side that hears of it
            s.control.writer.close()
            await s.rig.settled(lambda: len(s.rig.gateway.plane.pools.launchers[task]) == 1)
            none = await s.post({"id": 0, "method": "initialize", "params": BEGIN})
            assert "nothing starts `gh`" in str(none.json())
            listener.close()

    play(story)


def test_sessions_end_with_their_launcher(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path) as s:
            server, name = await s.session()
            s.control.writer.close()
            assert await server.ended()
            await s.rig.settled(lambda: not s.rig.gateway.plane.pools.launchers)
            again = await s.post(called(1), name)
            assert "nothing starts" in str(again.json())

    play(story)


def test_the_session_that_was_used_least_makes_room_and_one_that_is_used_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "MOST", 2)

    async def story() -> None:
        async with scene(tmp_path) as s:
            first, one = await s.session()
            second, two = await s.session()
            asked = s.asks(called(1), one)
            await first.hears()
            _, three = await s.session()
            assert await second.ended()
            assert two.endswith((await s.control.hears())["end"])
            wire = await s.listening(three)
            await until(wire, b"\r\n\r\n")
            full = await s.post({"id": 0, "method": "initialize", "params": BEGIN})
            assert problem(full)["code"] == "limit"
            await first.say({"jsonrpc": "2.0", "id": 1, "result": {}})
            assert (await asked).json()["id"] == 1

    play(story)


def test_an_id_is_that_of_one_request_and_what_was_cancelled_is_over(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path) as s:
            server, name = await s.session()
            asked = s.asks(called(1), name)
            await server.hears()
            assert problem(await s.post(called(1), name))["code"] == "invalid-request"
            cancel = {"method": "notifications/cancelled", "params": {"requestId": 1}}
            assert (await s.post(cancel, name)).status == 202
            assert problem(await asked)["code"] == "upstream"
            assert (await server.hears())["method"] == "notifications/cancelled"
            assert problem(await s.post(called(1), name))["code"] == "invalid-request"  # an answer may be on its way
            await server.say({"jsonrpc": "2.0", "id": 1, "result": {"late": True}})
            asked = s.asks(called(2), name)  # what came before it has been taken
            await server.hears()
            await server.say({"jsonrpc": "2.0", "id": 2, "result": {}})
            await asked
            asked = s.asks(called(1), name)
            await server.hears()
            await server.say({"jsonrpc": "2.0", "id": 1, "result": {"late": False}})
            assert (await asked).json()["result"] == {"late": False}

    play(story)


def test_what_is_cancelled_again_and_again_keeps_no_request_from_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stdio, "AT_ONCE", 2)

    async def story() -> None:
        async with scene(tmp_path) as s:
            server, name = await s.session()
            for id_ in range(1, 6):
                asked = s.asks(called(id_), name)
                await server.hears()
                cancel = {"method": "notifications/cancelled", "params": {"requestId": id_}}
                assert (await s.post(cancel, name)).status == 202
                assert problem(await asked)["code"] == "upstream"
                await server.hears()
            waits = [s.asks(called(id_), name) for id_ in (6, 7)]
            for _ in waits:
                await server.hears()
            assert problem(await s.post(called(8), name))["code"] == "limit"
            for id_ in (6, 7):
                await server.say({"jsonrpc": "2.0", "id": id_, "result": {}})
            assert {(await each).status for each in waits} == {200}

    play(story)


def test_a_server_that_says_too_much_at_once_is_not_waited_for(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path) as s:
            server, name = await s.session()
            asked = s.asks(called(1), name)
            await server.hears()
            await server.say(b"x" * 2_200_000 + b"\n")
            assert problem(await asked)["code"] == "upstream"
            assert problem(await s.post(called(1), name))["code"] == "invalid-request"  # it may be told again
            asked = s.asks(called(2), name)
            await server.hears()
            await server.say({"jsonrpc": "2.0", "id": 2, "result": {"text": "y" * 1_000_000}})
            assert len((await asked).body) > 1_000_000

    play(story)


def test_a_connection_that_nobody_asked_for_is_cut(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path) as s:
            stray = await s.connected()
            await stray.say(b"made-up\n")
            assert await stray.ended()

    play(story)


def test_a_command_that_nothing_says_how_to_start_is_not_reached(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path, settings={}) as s:
            reply = await s.post({"id": 0, "method": "initialize", "params": BEGIN})
            assert "not reached through the gateway" in str(reply.json())

    play(story)


def test_a_server_that_starts_slowly_is_waited_for_at_the_endpoint_of_all(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path) as s:
            s.rig.gateway.plane.patience = 0.0
            asked = s.asks({"id": 0, "method": "initialize", "params": BEGIN}, at="/mcp")
            server, _ = await s.started()
            said = await server.hears()
            able = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}}
            await server.say({"jsonrpc": "2.0", "id": said["id"], "result": able})
            reply = await asked
            assert b"- gh: `gh__`" in reply.body
            s.rig.gateway.plane.patience = 20.0
            session = reply.headers["mcp-session-id"]
            listing = s.asks({"id": 1, "method": "tools/list"}, session, at="/mcp")
            said = await server.hears()
            await server.say({"jsonrpc": "2.0", "id": said["id"], "result": {"tools": LISTED}})
            listed = json.loads((await listing).body)["result"]["tools"]
            assert [tool["name"] for tool in listed] == ["gh__add", "gh__look"]

    play(story)


def test_a_server_whose_beginning_nobody_waits_for_any_more_is_ended(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path) as s:
            s.rig.gateway.plane.starting = 0.3
            begin = {"id": 0, "method": "initialize", "params": BEGIN}
            asked = s.asks(begin, at="/mcp")
            server, key = await s.started()
            await server.hears()
            assert b"did not answer within 0.3 seconds" in (await asked).body
            assert await s.control.hears() == {"end": key}
            assert await server.reader.read() == b""
            wire = await s.rig.wire(s.port)
            body = json.dumps({"jsonrpc": "2.0", **begin}).encode()
            await wire.send(s.rig.request("/gh", JSON, method="POST", body=body, port=s.port))
            server, key = await s.started()
            await server.hears()
            wire.writer.close()
            assert await s.control.hears() == {"end": key}
            assert await server.reader.read() == b""

    play(story)
