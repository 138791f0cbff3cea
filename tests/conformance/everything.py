"""An upstream in Python that has what the conformance suite calls: `everything.json`, served by the official SDK.

Run by path; it prints its port.
"""

from __future__ import annotations

import hmac
import json
import secrets
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import uvicorn
from mcp import types
from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, PromptsListChanged, ToolsListChanged
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata

Context = ServerRequestContext[Any, Any]
Spec = Mapping[str, Any]

HAS: Spec = json.loads((Path(__file__).parent / "everything.json").read_text("utf-8"))
KEY = secrets.token_bytes(32)
BUS = InMemorySubscriptionBus()
ASKED: Mapping[str, tuple[Any, Any]] = {
    "sampling/createMessage": (types.CreateMessageRequest, types.CreateMessageResult),
    "elicitation/create": (types.ElicitRequest, types.ElicitResult),
    "roots/list": (types.ListRootsRequest, types.ListRootsResult),
}
NEEDED = {"sampling/createMessage": "sampling", "elicitation/create": "elicitation", "roots/list": "roots"}


class Kept(EventStore):
    """What was said on streams that may be taken up again."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    async def store_event(self, stream_id: str, message: Any) -> str:
        self.events.append((stream_id, message))
        return str(len(self.events))

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        after = int(last_event_id)
        stream = self.events[after - 1][0]
        for number, (name, message) in enumerate(self.events[after:], after + 1):
            if name == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


def sealed(number: int) -> str:
    return f"{number}.{hmac.digest(KEY, str(number).encode(), 'sha256').hex()}"


def filled(value: Any, words: Mapping[str, str]) -> Any:
    said = json.dumps(value)
    for name, word in words.items():
        said = said.replace(f"{{{name}}}", json.dumps(word)[1:-1])
    return json.loads(said)


def able(ctx: Context, name: str) -> bool:
    capabilities = ctx.session.client_capabilities
    return capabilities is not None and getattr(capabilities, name) is not None


def round_of(ctx: Context, spec: Spec, params: Any) -> types.InputRequiredResult | None:
    """Return what is asked before there is a result (2026-07-28), if anything is left to ask."""
    rounds, at = spec.get("rounds", []), 0
    if spec.get("sealed") and params.request_state is not None:
        at = int(params.request_state.partition(".")[0])
        if not hmac.compare_digest(sealed(at), params.request_state):
            raise MCPError(types.INVALID_PARAMS, "this is not the state that was given")
    if at < len(rounds) and (params.input_responses or {}).keys() >= rounds[at].keys():
        at += 1
    if at >= len(rounds):
        return None
    asked = {key: one for key, one in rounds[at].items() if able(ctx, NEEDED[one["method"]])}
    state = sealed(at) if spec.get("sealed") else None
    return types.InputRequiredResult.model_validate({"inputRequests": asked or rounds[at], "requestState": state})


async def walk(ctx: Context, step: Spec) -> str:
    match step:
        case {"say": notification}:
            said: Any = types.LoggingMessageNotification.model_validate(notification)
            level, data = said.params.level, said.params.data
            await ctx.session.send_log_message(level, data, related_request_id=ctx.request_id)
        case {"progress": progress}:
            await ctx.session.report_progress(progress, 100)
        case {"ask": request}:
            asked, answered = ASKED[request["method"]]
            related = ServerMessageMetadata(related_request_id=ctx.request_id)
            answer = await ctx.session.send_request(asked.model_validate(request), answered, metadata=related)
            return str(answer.model_dump_json(by_alias=True))
        case {"cut": _} if ctx.close_sse_stream is not None:
            await ctx.close_sse_stream()
    return ""


async def call_tool(
    ctx: Context, params: types.CallToolRequestParams
) -> types.CallToolResult | types.InputRequiredResult:
    spec = HAS["tools"].get(params.name)
    if spec is None:
        raise MCPError(types.INVALID_PARAMS, "there is no such tool")
    if (missing := spec.get("needs")) and not able(ctx, missing):
        data: Spec = {"requiredCapabilities": {missing: {}}}
        raise MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, f"{missing} is needed", data)
    if (asked := round_of(ctx, spec, params)) is not None:
        return asked
    heard = "".join([await walk(ctx, step) for step in spec.get("steps", ())])
    if changed := spec.get("changed"):
        await BUS.publish(ToolsListChanged() if changed == "tools" else PromptsListChanged())
    content = [{**one, **({"text": one["text"] + heard} if "text" in one else {})} for one in spec["content"]]
    return types.CallToolResult.model_validate({"content": content, "isError": spec.get("isError", False)})


async def list_tools(_: Context, __: types.PaginatedRequestParams | None) -> types.ListToolsResult:
    tools = [
        {"name": name, "description": name, "inputSchema": spec["inputSchema"]} for name, spec in HAS["tools"].items()
    ]
    return types.ListToolsResult.model_validate({"tools": tools})


async def list_resources(_: Context, __: types.PaginatedRequestParams | None) -> types.ListResourcesResult:
    found = [
        {"uri": uri, "name": uri, "description": uri, "mimeType": spec["mimeType"]}
        for uri, spec in HAS["resources"].items()
    ]
    return types.ListResourcesResult.model_validate({"resources": found})


async def list_templates(_: Context, __: types.PaginatedRequestParams | None) -> types.ListResourceTemplatesResult:
    template = HAS["template"]
    found = {"uriTemplate": template["uriTemplate"], "name": "data", "mimeType": template["mimeType"]}
    return types.ListResourceTemplatesResult.model_validate({"resourceTemplates": [found]})


async def read_resource(_: Context, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
    start, _, end = HAS["template"]["uriTemplate"].partition("{id}")
    spec = HAS["resources"].get(params.uri)
    if spec is None and params.uri.startswith(start) and params.uri.endswith(end):
        word = params.uri.removeprefix(start).removesuffix(end)
        spec = filled({name: HAS["template"][name] for name in ("mimeType", "text")}, {"id": word})
    if spec is None:
        raise MCPError(types.INVALID_PARAMS, "there is no such resource", {"uri": params.uri})
    return types.ReadResourceResult.model_validate({"contents": [{"uri": params.uri, **spec}]})


async def list_prompts(_: Context, __: types.PaginatedRequestParams | None) -> types.ListPromptsResult:
    prompts = [
        {
            "name": name,
            "description": name,
            "arguments": [{"name": one, "description": one, "required": True} for one in spec.get("arguments", ())],
        }
        for name, spec in HAS["prompts"].items()
    ]
    return types.ListPromptsResult.model_validate({"prompts": prompts})


async def get_prompt(
    ctx: Context, params: types.GetPromptRequestParams
) -> types.GetPromptResult | types.InputRequiredResult:
    spec = HAS["prompts"].get(params.name)
    if spec is None:
        raise MCPError(types.INVALID_PARAMS, "there is no such prompt")
    if (asked := round_of(ctx, spec, params)) is not None:
        return asked
    return types.GetPromptResult.model_validate({"messages": filled(spec["messages"], params.arguments or {})})


async def complete(_: Context, __: types.CompleteRequestParams) -> types.CompleteResult:
    return types.CompleteResult.model_validate({"completion": {"values": ["Paris", "Parma"], "total": 2}})


async def nothing(_: Context, __: Any) -> types.EmptyResult:
    return types.EmptyResult()


def main() -> None:
    server: Server[Any] = Server(
        "everything",
        version="1.0.0",
        cache_hints={
            name: CacheHint(60_000)
            for name in (
                "tools/list",
                "prompts/list",
                "resources/list",
                "resources/templates/list",
                "resources/read",
                "server/discover",
            )
        },
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
        on_subscribe_resource=nothing,
        on_unsubscribe_resource=nothing,
        on_subscriptions_listen=ListenHandler(BUS),
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
        on_completion=complete,
        on_set_logging_level=nothing,
    )
    sock = socket.create_server(("127.0.0.1", 0))
    app = server.streamable_http_app(event_store=Kept(), retry_interval=50)
    sys.stdout.write(f"{sock.getsockname()[1]}\n")
    sys.stdout.flush()
    uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1)).run(sockets=[sock])


if __name__ == "__main__":
    main()
