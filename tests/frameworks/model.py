"""A model on loopback that does what it is told, and a search API: what reaches them is written down.

A message of calls, such as ``call look {"path": "/v1/search"}``, one a line, is answered by calls of these tools, after
a blank line once the earlier have been answered; then what tools told is said. Calls that a tool told of are made as
well: it obeys whatever it reads. It speaks as OpenAI does (chat completions and responses), as Anthropic and as Gemini,
whole and streamed.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from examples.demo import canary

SSE = "text/event-stream"
KEY = f"sk-proj-canary-{secrets.token_hex(16)}"  # in no file
_CALL = re.compile(r"call ([A-Za-z_]+) (\{.*\})")
_OBSERVED = re.compile(r"(?:Observation|Error):\n")  # how smolagents tells what tools told, one a line
_REPORTS = "Here is the final answer from your managed agent"  # before the line with what it said

Json = dict[str, Any]


@dataclass
class Seen:
    """What arrived with the real key: paths, and the models asked for."""

    address: str = ""
    paths: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    strangers: int = 0  # requests without it
    requests: list[bytes] = field(default_factory=list)  # all there was of them, but the headers of keys
    injected: str = ""  # what the search API says to whoever asks for it
    meeting: threading.Barrier = field(default_factory=lambda: threading.Barrier(2))  # where two have to be at once


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content or []
    return "\n".join(str(part.get("text", "")) for part in parts)


def answer_to(items: list[Json]) -> tuple[str, list[tuple[str, str]]]:
    """Return the text and the calls (name, arguments) that answer a conversation."""
    told: list[str] = []
    order = ""
    for item in items:
        if item.get("role") == "user" and (observed := _OBSERVED.search(_text(item["content"]))):
            lines = observed.string[observed.end() :].splitlines()
            told += [line for line in lines if line and not line.startswith(_REPORTS)]
        elif item.get("role") == "user":
            told, order = [], _text(item["content"])
        elif item.get("role") == "tool" or item.get("type") == "function_call_output":
            told.append(_text(item.get("content", item.get("output"))))
    left = len(told)
    for step in (*order.split("\n\n"), *(text for text in told if text.startswith("call "))):
        calls = [(match[1], match[2]) for match in map(_CALL.search, step.splitlines()) if match]
        if calls and left < len(calls):
            return "", calls
        left -= len(calls)
    return "told: " + " | ".join(told), []


def chat(asked: Json) -> Json:
    """Return a chat completion."""
    text, calls = answer_to(asked["messages"])
    if text and any(tool["function"]["name"] == "final_answer" for tool in asked.get("tools", [])):
        calls = [("final_answer", json.dumps({"answer": text}))]
    message: Json = {"role": "assistant", "content": text or None}
    if calls:
        message["tool_calls"] = [
            {"id": f"call_{n}_{len(asked['messages'])}", "type": "function", "function": {"name": a, "arguments": b}}
            for n, (a, b) in enumerate(calls)
        ]
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return {"id": "c1", "object": "chat.completion", "created": 1, "model": asked["model"], "choices": [choice]} | {
        "usage": usage
    }


def chunks(asked: Json) -> Iterator[Json]:
    """Yield the chunks of a streamed chat completion."""
    whole = chat(asked)
    message = whole["choices"][0]["message"]
    base = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": asked["model"]}
    begun = {"role": "assistant", "content": message["content"] or ""}
    calls = [{"tool_calls": [{"index": n, **call}]} for n, call in enumerate(message.get("tool_calls", []))]
    for delta in [begun, *calls]:
        yield {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    reason = whole["choices"][0]["finish_reason"]
    yield {**base, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}], "usage": whole["usage"]}


def response(asked: Json) -> Json:
    """Return an answer of the responses API."""
    items = [{"role": "user", "content": asked["input"]}] if isinstance(asked["input"], str) else asked["input"]
    text, calls = answer_to(items)
    output: list[Json] = [
        {"type": "function_call", "id": f"fc_{n}", "call_id": f"call_{n}_{len(items)}", "arguments": b}
        | {"status": "completed", **_named(a, asked)}
        for n, (a, b) in enumerate(calls)
    ]
    if not calls:
        part = {"type": "output_text", "text": text, "annotations": []}
        output = [{"type": "message", "id": "m1", "role": "assistant", "status": "completed", "content": [part]}]
    details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2, **details}
    fixed = {"object": "response", "created_at": 1, "status": "completed", "parallel_tool_calls": True}
    said = {"tools": [], "tool_choice": "auto", "model": asked["model"], "output": output, "usage": usage}
    return {"id": "r1", **fixed, **said}


def _named(tool: str, asked: Json) -> Json:
    """Return how a tool is called: Codex has those of a server in a namespace."""
    for space in asked.get("tools", []):
        name = tool.removeprefix(f"{space.get('name')}__")
        if space.get("type") == "namespace" and any(one["name"] == name for one in space["tools"]):
            return {"namespace": space["name"], "name": name}
    return {"name": tool}


def events(asked: Json) -> Iterator[Json]:
    """Yield the events of a streamed response."""
    whole = response(asked)
    yield {"type": "response.created", "sequence_number": 0, "response": {**whole, "output": []}}
    for n, item in enumerate(whole["output"]):
        at = {"sequence_number": 1 + n, "output_index": n}
        begun: Json = {"arguments": ""} if item["type"] == "function_call" else {"content": []}
        yield {"type": "response.output_item.added", **at, "item": {**item, **begun, "status": "in_progress"}}
        if item["type"] == "function_call":
            found = {**at, "item_id": item["id"], "name": item["name"]}
            yield {"type": "response.function_call_arguments.delta", **found, "delta": item["arguments"]}
            yield {"type": "response.function_call_arguments.done", **found, "arguments": item["arguments"]}
        else:
            part, found = item["content"][0], {**at, "item_id": item["id"], "content_index": 0, "logprobs": []}
            yield {"type": "response.content_part.added", **found, "part": {**part, "text": ""}}
            yield {"type": "response.output_text.delta", **found, "delta": part["text"]}
            yield {"type": "response.output_text.done", **found, "text": part["text"]}
            yield {"type": "response.content_part.done", **found, "part": part}
        yield {"type": "response.output_item.done", **at, "item": item}
    yield {"type": "response.completed", "sequence_number": 99, "response": whole}


def message(asked: Json) -> Json:
    """Return a message of Anthropic's API."""
    items: list[Json] = []
    for said in asked["messages"]:
        parts = [{"type": "text", "text": said["content"]}] if isinstance(said["content"], str) else said["content"]
        told = [{"role": "tool", "content": part["content"]} for part in parts if part["type"] == "tool_result"]
        text = "\n".join(part["text"] for part in parts if part["type"] == "text" and part["text"][:1] != "<")
        items += told or ([{"role": said["role"], "content": text}] if text else [])
    text, calls = answer_to(items)
    content: list[Json] = [
        {"type": "tool_use", "id": f"toolu_{secrets.token_hex(8)}", "name": a, "input": json.loads(b)}
        for a, b in (calls if asked.get("tools") else [])
    ]
    reason = "tool_use" if content else "end_turn"
    usage = {"input_tokens": 1, "output_tokens": 1}
    base = {"id": "msg_1", "type": "message", "role": "assistant", "model": asked["model"], "stop_sequence": None}
    return {**base, "content": content or [{"type": "text", "text": text}], "stop_reason": reason, "usage": usage}


def message_events(asked: Json) -> Iterator[Json]:
    """Yield the events of a streamed message."""
    whole = message(asked)
    yield {"type": "message_start", "message": {**whole, "content": [], "stop_reason": None}}
    for n, block in enumerate(whole["content"]):
        empty: Json = {"input": {}} if block["type"] == "tool_use" else {"text": ""}
        yield {"type": "content_block_start", "index": n, "content_block": {**block, **empty}}
        delta = {"type": "text_delta", "text": block.get("text")}
        if block["type"] == "tool_use":
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        yield {"type": "content_block_delta", "index": n, "delta": delta}
        yield {"type": "content_block_stop", "index": n}
    reason = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": reason, "usage": {"output_tokens": 1}}
    yield {"type": "message_stop"}


def content(asked: Json) -> Json:
    """Return a candidate of Gemini's API. What another agent did, ADK tells as the user's words."""
    items: list[Json] = []
    for said in asked["contents"]:
        texts = [part["text"] for part in said["parts"] if "text" in part]
        found = [part["functionResponse"]["response"] for part in said["parts"] if "functionResponse" in part]
        told = [str(each.get("result", each.get("error", each))) for each in found]
        if texts and texts[0].startswith("For context:"):
            told += ["handed over" for text in texts if " tool returned result:" in text]
        elif not told:
            items.append({"role": said.get("role", "user"), "content": "\n".join(texts)})
        items += [{"role": "tool", "content": each} for each in told]
    text, calls = answer_to(items)
    parts: list[Json] = [{"functionCall": {"name": a, "args": json.loads(b)}} for a, b in calls] or [{"text": text}]
    candidate = {"content": {"role": "model", "parts": parts}, "finishReason": "STOP", "index": 0}
    return {"candidates": [candidate], "usageMetadata": {"totalTokenCount": 2}, "modelVersion": "gemini-test"}


KEYED = ("authorization", "x-api-key", "x-goog-api-key")
CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
WHOLE = {CHAT: chat, RESPONSES: response, MESSAGES: message}
STREAMED = {CHAT: chunks, RESPONSES: events, MESSAGES: message_events}


class Handler(BaseHTTPRequestHandler):
    """Answers whoever has the key."""

    seen: Seen

    def do_GET(self) -> None:
        if self._known():
            if self.path.endswith("?meet"):
                self.seen.meeting.wait(90)
            if "encoding=" in self.path:
                self._echo()
                return
            said = {"said": self.seen.injected} if self.path.endswith("?injected") else {}
            self._say(json.dumps({"found": self.path, **said}))

    def _echo(self) -> None:
        """Answer with what was asked, as careless upstreams do, in all forms that are listed, or plain."""
        forms = canary.ENCODINGS if "encoding=encoded" in self.path else ("plain",)
        headers = [value.removeprefix("Bearer ") for value in self.headers.values()]
        said = b"\n".join(canary.encode(value, form) for value in headers for form in forms)
        self._say(said, "application/octet-stream")

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["content-length"]))
        if not self._known(sent) or len(sent) < int(self.headers["content-length"]):  # it was cut
            return
        asked = json.loads(sent)
        path = self.path.partition("?")[0]
        if path.endswith("enerateContent"):
            whole = json.dumps(content(asked))
            streamed = ":stream" in path
            self._say(f"data: {whole}\n\n" if streamed else whole, *([SSE] if streamed else []))
            return
        self.seen.models.append(asked["model"])
        if not asked.get("stream"):
            self._say(json.dumps(WHOLE[path](asked)))
            return
        found = STREAMED[path](asked)
        typed = path != CHAT
        lines = [(f"event: {e['type']}\n" if typed else "") + f"data: {json.dumps(e)}\n\n" for e in found]
        self._say("".join([*lines, "" if typed else "data: [DONE]\n\n"]), SSE)

    def _known(self, sent: bytes = b"") -> bool:
        rest = "".join(f"{name}: {value}\n" for name, value in self.headers.items() if name.lower() not in KEYED)
        self.seen.requests.append(f"{self.requestline}\n{rest}\n".encode("latin-1") + sent)
        keys = [self.headers.get(name, "") for name in KEYED]
        if KEY not in {key.removeprefix("Bearer ") for key in keys}:
            self.seen.strangers += 1
            self.send_error(401)
            return False
        self.seen.paths.append(self.path)
        return True

    def _say(self, text: str | bytes, kind: str = "application/json") -> None:
        body = text if isinstance(text, bytes) else text.encode()
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def obedient() -> Iterator[Seen]:
    """Serve the model and the search API."""
    seen = Seen()
    handler = type("Serving", (Handler,), {"seen": seen})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        seen.address = f"http://127.0.0.1:{server.server_port}"
        yield seen
        server.shutdown()
