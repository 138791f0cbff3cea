"""The endpoint of all servers of a grant, with the official clients of MCP and two of its official servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest
from mcp import Client
from mcp.client import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import MCPServer

from remit.gateway.server import Channel
from remit.ports import Resource
from tests.broker.world import OPERATOR, details
from tests.gateway.mcp.town import detail
from tests.gateway.rig import play, rig
from tests.live.test_mcp_oauth import upstream

pytestmark = pytest.mark.live
OTHER = {"type": "http", "resource": "api", "actions": ["GET"], "paths": ["/**"]}
PEERS = Path(__file__).parents[1] / "peers"


def server(name: str) -> MCPServer:
    """Return a server that says who it is."""
    made = MCPServer(name, instructions=f"I am {name}.")

    def look(what: str) -> str:
        return f"{name}: {what}"

    def note() -> str:
        return f"a note of {name}"

    def ask() -> str:
        return f"ask {name}"

    made.add_tool(look, description="Look.")
    made.resource("note://here/a")(note)
    made.prompt("ask")(ask)
    return made


@asynccontextmanager
async def endpoint(*names: str) -> AsyncIterator[str]:
    """Serve servers behind one endpoint."""
    with ExitStack() as stack:
        places = {name: stack.enter_context(upstream(server=server(name)))[0] for name in names}
        async with rig(OTHER) as gate:
            for name, url in places.items():
                there = Resource(name, "mcp", f"mcp+{url}/mcp", details(detail(name)), None, {})
                await gate.broker.put_resource(OPERATOR, there)
            grant = await gate.opened(*map(detail, names))
            yield f"http://127.0.0.1:{await gate.listen(Channel(grant.id, {}))}/mcp"


def test_a_session_of_the_python_client_has_all_servers() -> None:
    async def scene() -> None:
        async with (
            endpoint("bank", "shop") as url,
            streamable_http_client(url) as streams,
            ClientSession(*streams[:2]) as session,
        ):
            begun = await session.initialize()
            assert "> I am bank." in (begun.instructions or "")
            names = {tool.name for tool in (await session.list_tools()).tools}
            assert {"bank__look", "shop__look"} <= names
            told = await session.call_tool("shop__look", {"what": "x"})
            assert "shop: x" in told.content[0].text  # type: ignore[union-attr]  # text
            uris = {str(one.uri) for one in (await session.list_resources()).resources}
            assert uris == {"remit:bank/note://here/a", "remit:shop/note://here/a"}
            [read] = (await session.read_resource("remit:bank/note://here/a")).contents
            assert read.text == "a note of bank"  # type: ignore[union-attr]  # text
            [asked] = (await session.get_prompt("shop__ask")).messages
            assert asked.content.text == "ask shop"  # type: ignore[union-attr]  # text
            assert (await session.call_tool("mall__look", {})).is_error

    play(scene)


def test_the_newest_python_client_has_all_servers() -> None:
    async def scene() -> None:
        async with endpoint("bank", "shop") as url, Client(url) as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
            assert {"bank__look", "shop__look"} <= names
            told = await client.call_tool("bank__look", {"what": "x"})
            assert "bank: x" in told.content[0].text  # type: ignore[union-attr]  # text

    play(scene)


def test_the_typescript_client_has_all_servers() -> None:
    async def scene() -> None:
        async with endpoint("bank", "shop") as url:
            run = await asyncio.create_subprocess_exec(
                "node", str(PEERS / "mcp-many.mjs"), url, stdout=asyncio.subprocess.PIPE
            )
            said, _ = await run.communicate()
            assert run.returncode == 0
            found = json.loads(said)
            assert {"bank__look", "shop__look"} <= set(found["tools"])
            assert found["called"] == "shop: x"
            assert found["read"] == "a note of bank"

    play(scene)
