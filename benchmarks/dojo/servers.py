"""AgentDojo's toolkits as MCP servers, each with a key of its own. For the interpreter of `.venv-agentdojo`.

Beside its own tools each server has ``whoami``, as careless servers do: it tells what headers it was asked with. At
``/debug`` it tells them to whoever has its key, and ``/redirect`` sends whoever asks to another place.
"""

from __future__ import annotations

import base64
import gzip
import json
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import mcp_types as types
import uvicorn
from agentdojo.agent_pipeline.tool_execution import tool_result_to_str
from agentdojo.functions_runtime import Function, FunctionCall, FunctionsRuntime
from mcp.server.lowlevel.server import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

WHOAMI = "whoami"
FORMS: Mapping[str, Callable[[str], str]] = {
    "plain": lambda text: text,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "hex": lambda text: text.encode().hex(),
    "gzip": lambda text: base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode(),
}


@dataclass
class Stage:
    """What the servers act on now, and what they have been asked for since it was set."""

    runtime: FunctionsRuntime = field(default_factory=FunctionsRuntime)
    env: Any = None
    trace: list[FunctionCall] = field(default_factory=list)  # of calls that reached a server
    heard: list[bytes] = field(default_factory=list)  # their arguments, as text
    keyless: int = 0  # requests without the right key

    def enter(self, runtime: FunctionsRuntime, env: object) -> None:
        """Act on another environment from now on."""
        self.runtime, self.env = runtime, env
        self.trace.clear()
        self.heard.clear()


def kit_of(function: Function) -> str:
    """Return the toolkit that a tool is from: its module's name."""
    name = str(function.run.__module__).rpartition(".")[2]
    return name.removesuffix("_client").replace("_", "-")


class Kits:
    """All servers at one port."""

    def __init__(self, stage: Stage, tools: Mapping[str, Mapping[str, Function]], keys: Mapping[str, str]) -> None:
        self._stage, self._keys = stage, dict(keys)
        self._managers = {
            kit: StreamableHTTPSessionManager(self._server(kit, listed), stateless=True)
            for kit, listed in tools.items()
        }
        self._stack = AsyncExitStack()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve (ASGI)."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        kit, _, rest = scope["path"].strip("/").partition("/")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if rest == "redirect":
            [to] = parse_qs(scope["query_string"].decode())["to"]
            await _answer(send, 307, b"", [(b"location", to.encode())])
        elif kit not in self._managers or headers.get("authorization") != f"Bearer {self._keys[kit]}":
            self._stage.keyless += 1
            told = f"the key `{headers.get('authorization', '')}` is not known here"
            await _answer(send, 401, told.encode(), [])
        elif rest == "debug":
            await _answer(send, 200, json.dumps(headers).encode(), [(b"content-type", b"application/json")])
        else:
            await self._managers[kit].handle_request(scope, receive, send)

    async def _live(self, receive: Any, send: Any) -> None:
        await receive()
        for manager in self._managers.values():
            await self._stack.enter_async_context(manager.run())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._stack.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    def _server(self, kit: str, listed: Mapping[str, Function]) -> Server[Any]:
        stage = self._stage

        async def list_tools(_context: Any, _params: Any) -> types.ListToolsResult:
            tools = [
                types.Tool(name=one.name, description=one.description, input_schema=one.parameters.model_json_schema())
                for one in listed.values()
            ]
            schema = {"type": "object", "properties": {"form": {"type": "string"}}}
            told = types.Tool(name=WHOAMI, description="Tell who asks.", input_schema=schema)
            return types.ListToolsResult(tools=[*tools, told])

        async def call_tool(context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
            arguments = params.arguments or {}
            stage.heard.append(json.dumps(arguments, ensure_ascii=False).encode())
            if params.name == WHOAMI:
                headers, form = json.dumps(dict(context.request.headers)), arguments.get("form", "plain")
                return _result(FORMS.get(form, FORMS["plain"])(headers), error=form not in FORMS)
            stage.trace.append(FunctionCall(function=params.name, args=arguments))
            found, error = stage.runtime.run_function(stage.env, params.name, arguments)
            return _result(error or tool_result_to_str(found), error=error is not None)

        return Server(kit, version="1", on_list_tools=list_tools, on_call_tool=call_tool)


def _result(text: str, *, error: bool) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=error)


async def _answer(send: Any, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


def serve(app: Any) -> int:
    """Serve in a thread until this process ends; return the port of loopback."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", access_log=False))
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.01)  # it is in another thread, and tells nobody
    return int(server.servers[0].sockets[0].getsockname()[1])
