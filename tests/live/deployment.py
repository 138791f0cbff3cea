"""A broker that believes a real identity provider, with a real database and an upstream behind it, and its humans."""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import psycopg

from remit.config import settings
from remit.core import scope
from tests.live import idp
from tests.live.fleet import EXCHANGE, ID_TOKEN, SEARCH, Key
from tests.live.idp import Browser, Provider
from tests.live.warehouse import Warehouse, warehouse
from tests.support.one_process import Edges, served
from tests.support.postgres_server import free_port
from tests.support.upstream import Upstream

POLICY = '@id("humans-do-what-resources-allow")\npermit (principal, action, resource);\n'
KEY = "sk-canary-of-the-upstream-0123456789"

Answer = dict[str, Any]


@dataclass
class Work:
    """A task that a human has opened, held by a key outside of runs."""

    key: Key
    task: str
    grant: str
    dsn: str = field(default="", repr=False)  # of its database role


@dataclass
class Deployment:
    """A running broker, its issuer, and what is behind it."""

    edges: Edges
    provider: Provider
    store: Warehouse
    upstream: Upstream
    control: httpx.AsyncClient
    web: httpx.AsyncClient

    @property
    def issuer(self) -> str:
        """The broker's issuer."""
        return self.edges.application.settings.issuer

    async def tokens(self, login: str, browser: Browser | None = None) -> Answer:
        """Log a human in at the issuer; ``browser`` is where they may be logged in already."""
        return await asyncio.to_thread(
            lambda: self.provider.tokens(login, nonce=secrets.token_urlsafe(), browser=browser)
        )

    async def ask_to_open(self, id_token: str, key: Key) -> httpx.Response:
        """Ask for a task of a human."""
        details = [SEARCH, *scope.dump((self.store.detail(),))]
        form = {
            "grant_type": EXCHANGE,
            "subject_token": id_token,
            "subject_token_type": ID_TOKEN,
            "purpose": "draft the CFO summary",
            "ttl": "600",
            "authorization_details": json.dumps(details),
        }
        proof = key.proof("POST", f"{self.issuer}/oauth/token", self.edges.authority.verifier.nonce())
        return await self.web.post("/oauth/token", data=form, headers={"dpop": proof})

    async def working(self, id_token: str) -> Work:
        """Open a task for a human, and issue a database role in it."""
        key = Key()
        answer = await self.ask_to_open(id_token, key)
        assert answer.is_success, answer.text
        opened = answer.json()
        key.token = opened["access_token"]
        found = Work(key, opened["task"], opened["grant"])
        path = f"/v1/tasks/{found.task}/leases"
        issued = await self.call(found, path, {"grant": found.grant, "detail": scope.dump((self.store.detail(),))[0]})
        assert issued.is_success, issued.text
        found.dsn = issued.json()["credential"]["dsn"]
        return found

    async def call(self, work: Work, path: str, body: Mapping[str, object]) -> httpx.Response:
        """Call the API as the holder of a grant."""
        nonce = self.edges.authority.verifier.nonce()
        proof = work.key.proof("POST", f"{self.issuer}{path}", nonce, work.key.token)
        headers = {"authorization": f"DPoP {work.key.token}", "dpop": proof}
        return await self.web.post(path, json=body, headers=headers)

    async def through(self, work: Work) -> int:
        """Make a request through the gateway; return its status."""
        address = self.edges.application.settings.gateway
        assert address is not None
        url = f"http://{address[0]}:{address[1]}/search/v1/items"
        proof = work.key.proof("GET", url, self.edges.authority.verifier.nonce(), work.key.token)
        async with httpx.AsyncClient(trust_env=False) as client:
            headers = {"authorization": f"DPoP {work.key.token}", "dpop": proof}
            return (await client.get(url, headers=headers)).status_code

    async def works(self, work: Work) -> bool:
        """Whether a task can act: at the gateway, and at the database by its lease. Both say the same."""
        through, there = await self.through(work) == 200, await asyncio.to_thread(_connects, work.dsn)
        assert through == there, (through, there)
        return through

    async def entries(self) -> list[Answer]:
        """Return the audit."""
        answer = await self.control.get("/v1/audit", params={"limit": "1000"})
        assert answer.is_success, answer.text
        return list(answer.json()["entries"])


@asynccontextmanager
async def deployed(
    directory: Path,
    *signals: Mapping[str, object],
    again: bool = False,
    parts: Callable[[str], Mapping[str, object]] = lambda _: {},
) -> AsyncIterator[Deployment]:
    """Run all of it; ``signals`` are the tables of that name, where ``{issuer}`` is the provider's issuer.

    ``again``: over the state that is there, with the resources in it. ``parts`` tells, by the provider's issuer, what
    takes the place of the usual configuration.
    """
    api, gateway = free_port(), free_port()
    policies = directory / "policies"
    policies.mkdir(mode=0o700, exist_ok=again)
    (policies / "all.cedar").write_text(POLICY)
    async with AsyncExitStack() as stack:
        registered = idp.clients(f"http://127.0.0.1:{api}/v1/signals/logout")
        provider = stack.enter_context(idp.served(registered))
        store = stack.enter_context(warehouse())
        upstream = await stack.enter_async_context(Upstream())
        raw: dict[str, object] = {
            "listen": {"api": f"127.0.0.1:{api}", "gateway": f"127.0.0.1:{gateway}"},
            "humans": [{"issuer": provider.issuer, "client_id": "remit", "groups_claim": "groups"}],
            "policy": {"directory": str(policies)},
            "signals": [
                {name: provider.issuer if value == "{issuer}" else value for name, value in row.items()}
                for row in signals
            ],
            **parts(provider.issuer),
        }
        made = settings.read(settings.places({"REMIT_STATE_DIR": str(directory / "state")}), raw)
        edges = await stack.enter_async_context(served(made))
        transport = httpx.AsyncHTTPTransport(uds=str(made.places.control))
        control = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://control"))
        web = await stack.enter_async_context(httpx.AsyncClient(base_url=made.issuer, trust_env=False))
        found = Deployment(edges, provider, store, upstream, control, web)
        if not again:
            await _resources(found)
        yield found


def _connects(dsn: str) -> bool:
    try:
        psycopg.connect(dsn, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


async def _resources(found: Deployment) -> None:
    database = found.store.resource
    accepted = {**database.settings, "accept": ["public-connect", "public-temp"]}
    bound = list(scope.dump(database.bound))
    await _put(found, "search", "http", found.upstream.url, [SEARCH], {}, KEY)
    await _put(found, "warehouse", "postgres", database.destination, bound, accepted, found.store.password)


async def _put(found: Deployment, name: str, kind: str, destination: str, *more: object) -> None:
    body = dict(zip(("bound", "settings", "secret"), more, strict=True))
    answer = await found.control.put(f"/v1/resources/{name}", json={"kind": kind, "destination": destination, **body})
    assert answer.is_success, answer.text


# -- somebody else's transmitter, or receiver -------------------------------------------------------------------------


@dataclass
class Peer:
    """An HTTP server of somebody else: documents by path, a queue to poll, and a place to push to."""

    documents: dict[str, object] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)  # to be polled, by jti
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    refused: dict[str, object] = field(default_factory=dict)
    got: list[str] = field(default_factory=list)  # what was pushed
    polls: list[Answer] = field(default_factory=list)
    failures: int = 0  # pushes that are answered 503 before one is taken
    url: str = ""

    def polled(self, asked: Answer) -> Answer:
        """Answer a poll (RFC 8936)."""
        self.polls.append(asked)
        for jti in asked.get("ack", []):
            self.waiting.pop(jti, None)
        for jti, why in asked.get("setErrs", {}).items():
            self.waiting.pop(jti, None)
            self.refused[jti] = why
        most = int(asked["maxEvents"])
        return {"sets": dict(list(self.waiting.items())[:most]), "moreAvailable": len(self.waiting) > most}

    def pushed(self, text: str) -> int:
        """Take a token, or not."""
        if self.failures:
            self.failures -= 1
            return 503
        self.got.append(text)
        return 202


@contextmanager
def peer() -> Iterator[Peer]:
    """Serve somebody else until the block ends."""
    made = Peer()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            found = made.documents.get(self.path)
            self._answer(200 if found else 404, found or {})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            if self.headers.get("authorization") != f"Bearer {made.token}":
                self._answer(401, {})
            elif self.path == "/poll":
                self._answer(200, made.polled(json.loads(body)))
            else:
                assert self.headers["content-type"] == "application/secevent+jwt"
                self._answer(made.pushed(body), None)

        def _answer(self, status: int, document: object) -> None:
            raw = b"" if document is None else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=lambda: server.serve_forever(0.05))
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
