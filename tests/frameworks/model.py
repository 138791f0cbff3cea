"""A model on loopback that does what it is told, and a search API: what reaches them is written down.

A message of calls, such as ``call look {"path": "/v1/search"}``, one a line, is answered by calls of these tools, after
a blank line once the earlier have been answered; then what tools told is said. Chat completions and responses of
OpenAI, whole and streamed.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-proj-canary-0123456789abcdefghij"
_CALL = re.compile(r"call ([a-z_]+) (\{.*\})")

Json = dict[str, Any]


@dataclass
class Seen:
    """What arrived with the real key: paths, and the models asked for."""

    address: str = ""
    paths: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    strangers: int = 0  # requests without it
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
        if item.get("role") == "user":
            told, order = [], _text(item["content"])
        elif item.get("role") == "tool" or item.get("type") == "function_call_output":
            told.append(_text(item.get("content", item.get("output"))))
    left = len(told)
    for step in order.split("\n\n"):
        calls = [(match[1], match[2]) for match in map(_CALL.search, step.splitlines()) if match]
        if calls and left < len(calls):
            return "", calls
        left -= len(calls)
    return "told: " + " | ".join(told), []


def chat(asked: Json) -> Json:
    """Return a chat completion."""
    text, calls = answer_to(asked["messages"])
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
    calls = [{"index": n, **call} for n, call in enumerate(message.get("tool_calls", []))]
    delta = {"role": "assistant", "content": message["content"] or ""} | ({"tool_calls": calls} if calls else {})
    yield {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    reason = whole["choices"][0]["finish_reason"]
    yield {**base, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}], "usage": whole["usage"]}


def response(asked: Json) -> Json:
    """Return an answer of the responses API."""
    items = [{"role": "user", "content": asked["input"]}] if isinstance(asked["input"], str) else asked["input"]
    text, calls = answer_to(items)
    output: list[Json] = [
        {"type": "function_call", "id": f"fc_{n}", "call_id": f"call_{n}_{len(items)}", "name": a, "arguments": b}
        | {"status": "completed"}
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


def events(asked: Json) -> Iterator[Json]:
    """Yield the events of a streamed response."""
    whole = response(asked)
    yield {"type": "response.created", "sequence_number": 0, "response": {**whole, "output": []}}
    for n, item in enumerate(whole["output"]):
        yield {"type": "response.output_item.added", "sequence_number": 1 + n, "output_index": n, "item": item}
        yield {"type": "response.output_item.done", "sequence_number": 1 + n, "output_index": n, "item": item}
    yield {"type": "response.completed", "sequence_number": 99, "response": whole}


WHOLE = {"/v1/chat/completions": chat, "/v1/responses": response}
STREAMED = {"/v1/chat/completions": chunks, "/v1/responses": events}


class Handler(BaseHTTPRequestHandler):
    """Answers whoever has the key."""

    seen: Seen

    def do_GET(self) -> None:
        if self._known():
            if self.path.endswith("?meet"):
                self.seen.meeting.wait(20)
            self._say(json.dumps({"found": self.path}), "application/json")

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not self._known():
            return
        self.seen.models.append(asked["model"])
        path = self.path.partition("?")[0]
        if not asked.get("stream"):
            self._say(json.dumps(WHOLE[path](asked)), "application/json")
            return
        found = STREAMED[path](asked)
        typed = path == "/v1/responses"
        lines = [(f"event: {e['type']}\n" if typed else "") + f"data: {json.dumps(e)}\n\n" for e in found]
        self._say("".join([*lines, "" if typed else "data: [DONE]\n\n"]), "text/event-stream")

    def _known(self) -> bool:
        if self.headers.get("authorization") != f"Bearer {KEY}":
            self.seen.strangers += 1
            self.send_error(401)
            return False
        self.seen.paths.append(self.path)
        return True

    def _say(self, text: str, kind: str) -> None:
        body = text.encode()
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
