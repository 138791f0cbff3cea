"""Clients of MCP as they are published, with OAuth, at an MCP server behind the gateway: no details, and no proofs.

The upstream is the server of the Python SDK. It has no authorization of its own; nobody but the gateway reaches it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest
import uvicorn
from mcp.client import ClientSession
from mcp.client.auth import OAuthClientProvider, OAuthFlowError
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import MCPServer
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl

from remit.core.secret import Secret
from remit.ports import Resource
from tests.broker.world import details
from tests.live import idp
from tests.live.fleet import claims_of
from tests.live.idp import Provider
from tests.live.test_clients import APP, Stage, stage

pytestmark = pytest.mark.live

TOOLS = {"type": "http", "resource": "search", "actions": ["DELETE", "GET", "POST"], "paths": ["/mcp"], "args": "any"}
ADD = {"type": "mcp", "resource": "tools", "actions": ["tools/call"], "tools": {"add": "any"}}
SAID = {"purpose": "use the tools", "title": "Use the tools", "ttl": 900}  # of a scope
SCOPES: Mapping[str, object] = {"search": {"authorization_details": [TOOLS], **SAID}}
REDIRECT = "http://127.0.0.1:8123/cb"
KEY = "sk-canary-of-the-upstream-0123456789"


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    """Serve a real identity provider."""
    with idp.served() as found:
        yield found


def add(a: int, b: int) -> str:
    return str(a + b)


def wipe(what: str) -> str:
    return f"{what} is gone"


@contextlib.contextmanager
def upstream(*tools: Callable[..., str], server: MCPServer | None = None) -> Iterator[tuple[str, list[str]]]:
    """Serve an MCP server until the block ends; yield its URL, and what `Authorization` it got."""
    made, seen = server or MCPServer("tools"), list[str]()
    for tool in (add, *tools):
        made.tool()(tool)
    app = made.streamable_http_app()

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        seen.extend(value.decode() for name, value in scope.get("headers", ()) if name == b"authorization")
        await app(scope, receive, send)

    sock = socket.create_server(("127.0.0.1", 0))
    serving = uvicorn.Server(uvicorn.Config(watched, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=serving.run, kwargs={"sockets": [sock]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}", seen
    finally:
        serving.should_exit = True
        thread.join()


@asynccontextmanager
async def tools(
    directory: Path, provider: Provider, *, bear: bool = True, detail: Mapping[str, object] = TOOLS
) -> AsyncIterator[tuple[Stage, str, list[str]]]:
    """Run a broker with an MCP server behind the resource of a detail; yield it and the server's URL at the gateway."""
    kind, name = str(detail["type"]), str(detail["resource"])
    with upstream(wipe) as (url, seen):
        async with stage(directory, provider, {name: {"authorization_details": [detail], **SAID}}) as found:
            application = found.edges.application
            place = url if kind == "http" else f"mcp+{url}/mcp"
            resource = Resource(name, kind, place, details(detail), None, {"bearer": bear})
            await application.broker.put_resource(application.operator, resource, Secret(KEY))
            gateway = application.settings.gateway
            assert gateway is not None
            yield found, f"{gateway.url}/{name}{'/mcp' if kind == 'http' else ''}", seen


def play(directory: Path, provider: Provider, scene: Callable[..., Awaitable[None]], **more: Any) -> None:
    """Run a scene."""

    async def main() -> None:
        async with tools(directory, provider, **more) as found:
            await scene(*found)

    asyncio.run(main())


class Kept:
    """What a client keeps. It was told its ``client_id`` by whoever set it up."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return OAuthClientInformationFull(
            client_id=APP, redirect_uris=[AnyUrl(REDIRECT)], token_endpoint_auth_method="none"
        )

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        raise AssertionError(client_info)


class Registering(Kept):
    """One that nobody set up: it registers itself."""

    def __init__(self) -> None:
        super().__init__()
        self.info: OAuthClientInformationFull | None = None

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.info

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.info = client_info


def python_client(found: Stage, server: str, kept: Kept) -> OAuthClientProvider:
    """Return the Python SDK's way to be authorized, with the human at its browser."""
    back: list[str] = []

    async def visit(url: str) -> None:
        back.append(await asyncio.to_thread(found.human.visit, url))

    async def answered() -> AuthorizationCodeResult:
        answer = dict(parse_qsl(urlsplit(back.pop()).query))
        return AuthorizationCodeResult(code=answer.get("code", ""), state=answer.get("state"), iss=answer.get("iss"))

    metadata = OAuthClientMetadata(
        redirect_uris=[AnyUrl(REDIRECT)], token_endpoint_auth_method="none", client_name="Tool User"
    )
    return OAuthClientProvider(server, metadata, kept, visit, answered)


def test_the_python_client_calls_a_tool_by_a_token_for_that_endpoint_alone(tmp_path: Path, provider: Provider) -> None:
    async def scene(found: Stage, server: str, seen: list[str]) -> None:
        kept = Kept()
        async with (
            httpx2.AsyncClient(auth=python_client(found, server, kept)) as http,
            streamable_http_client(server, http_client=http) as streams,
            ClientSession(*streams[:2]) as session,
        ):
            await session.initialize()
            assert [tool.name for tool in (await session.list_tools()).tools] == ["add", "wipe"]
            said = await session.call_tool("add", {"a": 2, "b": 3})
            assert said.content[0].text == "5"  # type: ignore[union-attr]  # it is text
        assert kept.tokens is not None
        claims = claims_of(kept.tokens.access_token)
        assert (kept.tokens.token_type, kept.tokens.scope) == ("Bearer", "search")
        assert (claims["aud"], claims["authorization_details"]) == (server.removesuffix("/mcp"), [TOOLS])
        assert set(seen) == {f"Bearer {KEY}"}
        assert any("works for whoever has it" in page for page in found.human.pages)

    play(tmp_path, provider, scene)


def test_the_python_client_gets_from_the_url_of_many_servers_to_a_tool_of_each(
    tmp_path: Path, provider: Provider
) -> None:
    many = [{**ADD, "resource": name} for name in ("forge", "tools")]

    async def scene() -> None:
        kept = Kept()
        with upstream() as (one, heard), upstream() as (other, heard_too):
            async with stage(tmp_path, provider, {"work": {"authorization_details": many, **SAID}}) as found:
                application = found.edges.application
                for detail, url in zip(many, (one, other), strict=True):
                    name = str(detail["resource"])
                    there = Resource(name, "mcp", f"mcp+{url}/mcp", details(detail), None, {"bearer": True})
                    await application.broker.put_resource(application.operator, there, Secret(f"{KEY}-{name}"))
                assert application.settings.gateway is not None
                server = f"{application.settings.gateway.url}/mcp"
                async with (
                    httpx2.AsyncClient(auth=python_client(found, server, kept)) as http,
                    streamable_http_client(server, http_client=http) as streams,
                    ClientSession(*streams[:2]) as session,
                ):
                    await session.initialize()
                    listed = [tool.name for tool in (await session.list_tools()).tools]
                    assert listed == ["forge__add", "tools__add"]
                    for name in listed:
                        said = await session.call_tool(name, {"a": 2, "b": 3})
                        assert said.content[0].text == "5"  # type: ignore[union-attr]  # it is text
                assert kept.tokens is not None
                assert (kept.tokens.token_type, kept.tokens.scope) == ("Bearer", "work")
                assert claims_of(kept.tokens.access_token)["aud"] == server
                assert (set(heard), set(heard_too)) == ({f"Bearer {KEY}-forge"}, {f"Bearer {KEY}-tools"})
                assert any("the one endpoint of all these" in page for page in found.human.pages)

    asyncio.run(scene())


def test_the_python_client_is_told_why_where_the_resource_takes_no_bearers(tmp_path: Path, provider: Provider) -> None:
    async def scene(found: Stage, server: str, seen: list[str]) -> None:
        async with httpx2.AsyncClient(auth=python_client(found, server, Kept())) as http:
            with pytest.raises(OAuthFlowError, match="DPoP proof"):
                await http.post(server, json={})
        assert seen == []

    play(tmp_path, provider, scene, bear=False)


def test_the_python_client_registers_itself_and_its_human_is_told(tmp_path: Path, provider: Provider) -> None:
    async def scene(found: Stage, server: str, seen: list[str]) -> None:
        kept = Registering()
        async with (
            httpx2.AsyncClient(auth=python_client(found, server, kept)) as http,
            streamable_http_client(server, http_client=http) as streams,
            ClientSession(*streams[:2]) as session,
        ):
            await session.initialize()
            said = await session.call_tool("add", {"a": 2, "b": 3})
            assert said.content[0].text == "5"  # type: ignore[union-attr]  # it is text
        assert kept.info is not None
        assert (kept.info.client_secret, kept.info.token_endpoint_auth_method) == (None, "none")
        assert any("calls itself “Tool User”; it registered itself" in page for page in found.human.pages)
        assert set(seen) == {f"Bearer {KEY}"}

    play(tmp_path, provider, scene)


@pytest.mark.parametrize("sdk", ["v1", "v2"])
def test_a_typescript_client_registers_itself(tmp_path: Path, provider: Provider, sdk: str) -> None:
    async def scene(found: Stage, server: str, seen: list[str]) -> None:
        said = await found.flow("mcp-oauth", "tools", server=server, redirect=REDIRECT, sdk=sdk, registers=True)
        assert "done" in said, said
        assert said["done"]["said"] == ["5", "7"]
        assert any("calls itself “Tool User”; it registered itself" in page for page in found.human.pages)
        assert set(seen) == {f"Bearer {KEY}"}

    play(tmp_path, provider, scene)


WAYS = [("v1", TOOLS, {}), ("v1", ADD, {}), ("v2", ADD, {}), ("v2", ADD, {"proofs": True})]


@pytest.mark.parametrize(("sdk", "detail", "more"), WAYS)
def test_a_typescript_client_calls_a_tool_and_refreshes(
    tmp_path: Path, provider: Provider, sdk: str, detail: Mapping[str, object], more: Mapping[str, bool]
) -> None:
    """One that makes proofs needs no resource that takes bearers."""

    async def scene(found: Stage, server: str, seen: list[str]) -> None:
        said = await found.flow("mcp-oauth", "tools", server=server, redirect=REDIRECT, sdk=sdk, **more)
        assert "done" in said, said
        done = said["done"]
        assert (done["tools"], done["said"]) == (["add", "wipe"] if detail is TOOLS else ["add"], ["5", "7"])
        bound = "DPoP" if more else "Bearer"
        assert (done["tokens"]["token_type"], done["tokens"]["scope"]) == (bound, detail["resource"])
        assert claims_of(done["tokens"]["access_token"])["aud"] == server.removesuffix("/mcp")
        assert set(seen) == {f"Bearer {KEY}"}
        if detail is ADD:
            assert done["refused"]["isError"]
            assert "wipe" in done["refused"]["content"][0]["text"]

    play(tmp_path, provider, scene, bear=not more, detail=detail)


@pytest.mark.parametrize("sdk", ["v1", "v2"])
def test_a_typescript_client_is_told_why_where_the_resource_takes_no_bearers(
    tmp_path: Path, provider: Provider, sdk: str
) -> None:
    async def scene(found: Stage, server: str, seen: list[str]) -> None:
        said = await found.flow("mcp-oauth", "tools", server=server, redirect=REDIRECT, sdk=sdk)
        assert "there is no DPoP proof and no client certificate" in said["failed"]
        assert seen == []

    play(tmp_path, provider, scene, bear=False)
