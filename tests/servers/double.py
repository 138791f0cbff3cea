"""Providers on loopback that answer what the servers of this folder ask them, and write down how they were asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = Any
ANSWERS: dict[str, Json] = {  # by path, without its query
    "/search/repositories": {"total_count": 0, "incomplete_results": False, "items": []},
    "/user": {"login": "me", "id": 1},
    "/api/v4/projects": [],
    "/api/auth.test": {"ok": True, "team": "Acme", "user": "me", "team_id": "T1", "user_id": "U1"}
    | {"url": "https://acme.slack.com/"},
    "/api/conversations.list": {"ok": True, "channels": [{"id": "C1", "name": "general", "is_channel": True}]},
    "/api/conversations.history": {"ok": True, "messages": [], "has_more": False},
    "/api/users.list": {"ok": True, "members": [{"id": "U1", "name": "me", "profile": {}}]},
    "/res/v1/web/search": {
        "web": {"type": "search", "results": [{"title": "remit", "url": "https://example.com", "description": "d"}]}
    },
    "/maps/api/geocode/json": {
        "status": "OK",
        "results": [{"geometry": {"location": {"lat": 1, "lng": 2}}, "formatted_address": "Berlin", "place_id": "p"}],
    },
    "/v1/users/me": {"object": "user", "id": "1", "type": "bot", "bot": {}},
    "/api/0/auth/": {"id": "1", "name": "me", "email": "me@example.com"},
    "/v1/organizations": [{"id": "1", "slug": "acme", "name": "Acme"}],
    "/search": {"results": [], "query": "remit", "images": [], "response_time": 1},
    "/v2/scrape": {"success": True, "data": {"markdown": "text"}},
    "/rest/api/2/search": {"issues": [], "total": 0, "startAt": 0, "maxResults": 10},
    "/rest/api/3/search/jql": {"issues": [], "isLast": True},
}


@dataclass(frozen=True)
class Asked:
    """A request as it came to a provider."""

    method: str
    target: str
    headers: dict[str, str]  # by lower-case name
    body: bytes = field(repr=False)

    @property
    def whole(self) -> str:
        """All of it as text, to look for what must not be there."""
        return f"{self.method} {self.target} {self.headers} {self.body.decode('latin-1')}"


def _spoken(asked: Json) -> Json:
    """Answer as a remote MCP server (Streamable HTTP, JSON alone)."""
    results: dict[str, Json] = {
        "initialize": {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}}
        | {"serverInfo": {"name": "remote", "version": "1"}},
        "tools/list": {"tools": [{"name": "retrieve_balance", "inputSchema": {"type": "object"}}]},
        "tools/call": {"content": [{"type": "text", "text": "1 EUR"}]},
    }
    return {"jsonrpc": "2.0", "id": asked["id"], "result": results[asked["method"]]}


@contextmanager
def providers(answers: dict[str, Json] = ANSWERS) -> Iterator[tuple[str, list[Asked]]]:
    """Serve all of them at one address; give it, and what is asked."""
    seen: list[Asked] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            seen.append(Asked(self.command, self.path, headers, body))
            status, document = 200, answers.get(self.path.partition("?")[0], {})
            if self.path == "/":
                told = json.loads(body) if body else {}
                status, document = (200, _spoken(told)) if "id" in told else (405 if not body else 202, {})
            raw = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
    finally:
        server.shutdown()
        server.server_close()
