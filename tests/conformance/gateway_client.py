"""An agent whose MCP server wants OAuth: a human connects it, remit keeps the token, and the agent shows none.

Only what everybody has is used: the control socket by the client library, the broker's own page, and the gateway.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import httpx

import remit
from remit.errors import ConflictError, EngineRefusedError, RemitError
from remit.sdk import Client, verbs

Json = Mapping[str, Any]
NEWEST = "2026-07-28"
META = "io.modelcontextprotocol/"
PATIENCE = 60  # seconds for an answer: all scenarios run at once
MOST_ASKED = 2  # times that a human is asked for more, for one request
DETAIL: Json = {"type": "mcp", "actions": ["tools/call"], "tools": "any"}


class RefusedError(Exception):
    """What the suite hears: a human was not asked, or the answer was none."""


@dataclass
class GatewayClient:
    """The client that the suite sees."""

    numbers: Iterator[int] = field(default_factory=count)

    def play(self, told: Json) -> str:
        """Do what the suite's clients do: connect, list the tools, call one, and connect again for more."""
        name = f"upstream-{next(self.numbers)}"
        body: dict[str, Any] = {"kind": "mcp", "destination": f"mcp+{told['url']}", "settings": {"oauth": {}}}
        context = json.loads(told["context"] or "{}")
        if told["scenario"] == "auth/pre-registration":
            body["settings"] = {"oauth": {"issuer": context["issuer"], "client_id": context["client_id"]}}
            body["secret"] = context["client_secret"]
        body["bound"] = [{**DETAIL, "resource": name}]
        with Client() as client:
            client.run(verbs.put_resource(name, body))
            self.connect(client, name, body)
            with client.task("use its tools", grants=[name], bounds=verbs.Bounds()) as task:
                said = [self.said(client, task, each, told, body) for each in messages(told["protocol_version"])]
        return json.dumps(said)

    def connect(self, client: Client, name: str, body: Json, scopes: Sequence[str] = ()) -> None:
        """Be the human: let the browser go where it is sent, and type what its last page shows."""
        try:
            begun = client.run(verbs.connect(name, scopes=scopes))
        except (ConflictError, EngineRefusedError) as error:  # the operator names the provider, as they are told to
            if "`issuer`" not in (error.help or ""):
                raise
            parts = urlsplit(body["destination"].removeprefix("mcp+"))
            another = isinstance(error, ConflictError)
            issuer = error.detail.rsplit(" ", 1)[1] if another else f"{parts.scheme}://{parts.netloc}"
            client.run(verbs.put_resource(name, {**body, "settings": {"oauth": {"issuer": issuer}}}))
            begun = client.run(verbs.connect(name, scopes=scopes))
        with httpx.Client(follow_redirects=True, trust_env=False, timeout=PATIENCE) as browser:
            page = browser.get(begun["url"]).text
        code = re.search("<code>([A-Z]{4}-[A-Z]{4})</code>", page)
        if code is None:
            raise RefusedError(" ".join(re.sub("<style>.*</style>|<[^>]+>", " ", page, flags=re.DOTALL).split()))
        client.run(verbs.confirm_connection(name, begun["begun"], code[1]))

    def said(self, client: Client, task: remit.Task, message: Json, told: Json, body: Json) -> str:
        """Say one thing by the gateway; where the upstream wants more of the human, have them asked."""
        [name] = {each["resource"] for each in body["bound"]}
        for tried in count():
            headers = {"accept": "application/json, text/event-stream", **heads(message, told["protocol_version"])}
            answer = httpx.post(
                task.url(name), json=message, headers=headers, auth=task.auth, trust_env=False, timeout=PATIENCE
            )
            problem = told_of(answer)
            if "remit connect" not in problem.get("help", ""):
                return answer.raise_for_status().text
            if tried == MOST_ASKED:
                raise RefusedError(problem["detail"])
            self.connect(client, name, body, re.findall(r"--scope ([^\s`]+)", problem["help"]))
        raise AssertionError


def messages(version: str) -> Sequence[Json]:
    """Return what is said in a revision: before the newest, a handshake comes first."""
    who = {"name": "agent", "version": "1"}
    call = {"name": "test-tool", "arguments": {}}
    if version == NEWEST:
        meta = {f"{META}protocolVersion": version, f"{META}clientInfo": who, f"{META}clientCapabilities": {}}
        return message(1, "tools/list", _meta=meta), message(2, "tools/call", _meta=meta, **call)
    shake = message(1, "initialize", protocolVersion=version, capabilities={}, clientInfo=who)
    done = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    return shake, done, message(2, "tools/list"), message(3, "tools/call", **call)


def message(id_: int, method: str, **params: Any) -> Json:
    return {"jsonrpc": "2.0", "id": id_, "method": method, "params": params}


def heads(said: Json, version: str) -> Mapping[str, str]:
    if version != NEWEST:
        return {"mcp-protocol-version": version}
    name = {"mcp-name": said["params"]["name"]} if "name" in said["params"] else {}
    return {"mcp-protocol-version": version, "mcp-method": said["method"], **name}


def told_of(answer: httpx.Response) -> Json:
    """Return the problem of a refusal: MCP has it in a tool's result, or in an error."""
    if not answer.headers.get("content-type", "").startswith("application/json"):
        return {}
    said = answer.json()
    held = {**said.get("result", {}).get("_meta", {}), **said.get("error", {}).get("data", {})}
    return dict(held.get("remit/problem", {}))


@contextmanager
def driven(environ: Mapping[str, str]) -> Iterator[int]:
    """Serve what `drive.py` asks, as a user with this state; yield the port."""
    os.environ["REMIT_STATE_DIR"] = environ["REMIT_STATE_DIR"]
    player = GatewayClient()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_POST(self) -> None:
            told = json.loads(self.rfile.read(int(self.headers["content-length"])))
            try:
                status, said = 200, player.play(told)
            except (RemitError, RefusedError, httpx.HTTPError) as error:
                status, said = 502, f"{type(error).__name__}: {error}"
            self.send_response(status)
            self.end_headers()
            self.wfile.write(said.encode())

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()
