"""A control plane on real sockets: a control socket, a channel for any holder, and loopback TCP."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from remit.broker import Broker
from remit.broker.pending import PendingMemory
from remit.compose.app import build
from remit.compose.bound_grants import BoundGrants
from remit.core.audience import Audiences, Service
from remit.core.principal import Claims, Holder, Right
from remit.jose.token import check_audience
from remit.keys.signers import FileSigner
from remit.web.authentication import SocketAuth, TokenAuth
from remit.web.listen import Listener, serve
from remit.web.routes import AppDeps, Identity, Route
from remit.web.verifier import Keys, Verifier
from tests.broker.world import OPERATOR, SEARCH, TABLE, World
from tests.support.link import edge_of
from tests.support.signing import Ring

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
PEER = "urn:remit:peer"
GRANT = "urn:remit:grant"

Form = dict[str, str]
Answer = dict[str, Any]


def b64(data: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jws(header: Mapping[str, object], payload: Mapping[str, object] | bytes, sign: Callable[[bytes], bytes]) -> str:
    """Return a compact JWS with whatever a test wants in it."""
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    signed = f"{b64(json.dumps(header).encode())}.{b64(raw)}"
    return f"{signed}.{b64(sign(signed.encode()))}"


@dataclass
class Agent:
    """A key outside a run, and the token bound to it."""

    signer: FileSigner = field(default_factory=lambda: FileSigner(ec.generate_private_key(ec.SECP256R1())))
    token: str = ""
    grant: str = ""
    task: str = ""

    @property
    def jwk(self) -> dict[str, str]:
        """Return the public key alone."""
        return {name: value for name, value in self.signer.public_jwk().items() if name in {"kty", "crv", "x", "y"}}

    def proof(self, method: str, url: str, now: datetime, fresh: str, token: str | None = None, **more: object) -> str:
        """Return a DPoP proof; ``more`` replaces claims, and None removes them."""
        claims: dict[str, object] = {
            "jti": secrets.token_urlsafe(16),
            "htm": method,
            "htu": url,
            "iat": int(now.timestamp()),
            "nonce": fresh,
        }
        if token is not None:
            claims["ath"] = b64(sha256(token.encode()).digest())
        claims = {name: value for name, value in {**claims, **more}.items() if value is not None}
        return jws({"typ": "dpop+jwt", "alg": self.signer.alg, "jwk": self.jwk}, claims, self.signer.sign)


def ed25519_agent() -> Agent:
    """Return an agent with an Ed25519 key."""
    return Agent(FileSigner(ed25519.Ed25519PrivateKey.generate()))


@dataclass
class Plane:
    """The listeners and clients of one test."""

    world: World
    broker: Broker
    verifier: Verifier
    deps: AppDeps
    base: str
    control: httpx.AsyncClient
    web: httpx.AsyncClient
    directory: Path
    listeners: list[Listener]
    clients: list[httpx.AsyncClient]
    tokens: BoundGrants
    keys: Ring

    @property
    def signer(self) -> FileSigner:
        """The key that signs tokens."""
        return self.keys.signer

    def turned(self, signer: FileSigner, earlier: Sequence[Mapping[str, str]] = ()) -> None:
        """Let another key sign tokens from now on; ``earlier`` ones are published beside it."""
        self.keys.signer, self.keys.earlier = signer, earlier
        self.tokens.keys_changed()
        self.verifier.keys.replace(self.keys.public_jwks())

    @property
    def endpoint(self) -> str:
        """The token endpoint."""
        return f"{self.base}/oauth/token"

    async def channel(self, holder: Holder) -> httpx.AsyncClient:
        """Return a client on a channel of its own that stands for ``holder``."""
        path = self.directory / f"{holder.grant}.sock"
        peer = SocketAuth(holder, "http://127.0.0.1:8471", {"warehouse": 5433})
        self.listeners.append(await serve(build(self.deps), _unix(path), peer))
        return self._client(path)

    def _client(self, path: Path) -> httpx.AsyncClient:
        client = httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path)), base_url="http://localhost")
        self.clients.append(client)
        return client

    # -- what tests do often ------------------------------------------------------------------------------------

    def proof(self, agent: Agent, method: str, path: str, **more: object) -> str:
        """Return a proof by ``agent``, with its token, for a path of the API."""
        return agent.proof(method, self.base + path, self.world.now, self.verifier.nonce(), agent.token or None, **more)

    def headers(self, agent: Agent, method: str, path: str, **more: object) -> dict[str, str]:
        """Return the two headers of a proven call."""
        return {"authorization": f"DPoP {agent.token}", "dpop": self.proof(agent, method, path, **more)}

    async def call(self, agent: Agent, method: str, path: str, **more: object) -> httpx.Response:
        """Make a proven call over TCP."""
        headers = self.headers(agent, method, path)
        return await self.web.request(method, path, headers=headers, **more)  # type: ignore[arg-type]  # what httpx takes, each as it is

    async def opened(self, agent: Agent | None = None, **more: str) -> Answer:
        """Open a task at the control socket, bound to ``agent``'s key if there is one; return the answer."""
        form = {**opening(), **more}
        if agent is not None:
            form |= self.confirmation(agent, None)
        answer = await self.control.post("/oauth/token", data=form)
        assert answer.status_code == 200, answer.text
        return self.taken(answer.json(), agent)

    def taken(self, answer: Answer, agent: Agent | None) -> Answer:
        """Let ``agent`` keep its token."""
        if agent is not None:
            agent.token, agent.grant, agent.task = answer["access_token"], answer["grant"], answer["task"]
        return answer

    def confirmation(self, agent: Agent, token: str | None, **more: object) -> Form:
        """Return ``req_cnf`` and its proof for a child's key."""
        proof = agent.proof("POST", self.endpoint, self.world.now, self.verifier.nonce(), token, **more)
        return {"req_cnf": json.dumps({"jwk": agent.jwk}), "req_cnf_proof": proof}

    def delegation(self, parent: Agent, child: Agent, **more: str) -> Form:
        """Return the form by which ``parent`` delegates to ``child`` over TCP."""
        form = {
            "grant_type": EXCHANGE,
            "subject_token": parent.token,
            "subject_token_type": ACCESS_TOKEN,
            "authorization_details": json.dumps([SEARCH]),
            **self.confirmation(child, parent.token),
        }
        return {**form, **more}

    async def exchange(self, parent: Agent, form: Form, **more: object) -> httpx.Response:
        """Post a form to the token endpoint over TCP, with a proof by ``parent``'s key."""
        proof = parent.proof("POST", self.endpoint, self.world.now, self.verifier.nonce(), None, **more)
        return await self.web.post("/oauth/token", data=form, headers={"dpop": proof})

    async def delegated(self, parent: Agent, child: Agent, **more: str) -> Answer:
        """Delegate over TCP; return the answer."""
        answer = await self.exchange(parent, self.delegation(parent, child, **more))
        assert answer.status_code == 200, answer.text
        return self.taken(answer.json(), child)


def claims_of(verifier: Verifier, token: str, *, expired: bool = False) -> Claims:
    """Return the claims of a token that this broker signed for itself."""
    found = verifier.keys.claims(token, verifier.issuer, verifier.clock(), expired=expired)
    check_audience(found, {verifier.issuer})
    return found


def access(route: Route) -> str:
    """Return who may call a route, by the words of the API's description."""
    if route.right is None:
        return "public" if route.authenticate is None else "proving"
    return "operator" if route.right is Right.OPERATE else "agent"


def opening(**more: str) -> Form:
    """Return the form that opens a task at the control socket."""
    form = {
        "grant_type": EXCHANGE,
        "subject_token": "self",
        "subject_token_type": PEER,
        "purpose": "draft the CFO summary",
        "ttl": "900",
        "depth": "3",
        "fan_out": "50",
        "authorization_details": json.dumps([TABLE, SEARCH]),
    }
    return {**form, **more}


def _unix(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    sock.setblocking(False)
    return sock


def _tcp() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    sock.setblocking(False)
    return sock


@asynccontextmanager
async def plane(
    directory: Path,
    world: World | None = None,
    identity: Identity | None = None,
    gateway: str | None = None,
    services: Mapping[str, Service] | None = None,
) -> AsyncIterator[Plane]:
    """Serve a control plane whose sockets are in ``directory``; ``identity`` says who is believed."""
    world = world or World(now=datetime(2026, 11, 25, 12, tzinfo=UTC))
    broker = await world.ready()
    sock, ids = _tcp(), itertools.count()
    host = f"127.0.0.1:{sock.getsockname()[1]}"
    there, issuer, pending, keys = edge_of(broker), f"http://{host}", PendingMemory(lambda: world.now), Ring()
    known = identity or Identity()
    audiences = Audiences(issuer, gateway, services or {})
    by_rsa = Ring(FileSigner(rsa.generate_private_key(65_537, 2_048))) if audiences.by_rsa else None
    tokens = BoundGrants(
        broker,
        keys,
        pending,
        issuer,
        lambda: world.now,
        lambda prefix: f"{prefix}_{next(ids)}",
        b"k" * 32,
        known=audiences,
        by_rsa=by_rsa,
        humans=known.humans,
    )
    verifier = Verifier(
        there,
        edge_of(tokens),
        Keys(tokens.public_jwks(), audiences.by_rsa),
        issuer,
        lambda: world.now,
        await tokens.nonces(),
        edge_of(pending),
        gateway,
        services or {},
    )
    if known.workloads is not None:
        known = replace(known, workloads=edge_of(known.workloads))
    deps = AppDeps(there, broker.kinds, verifier, known, connections=there)
    app = build(deps)
    ours = lambda _, uid: uid == os.geteuid()  # noqa: E731 - used here alone
    listeners = [
        await serve(app, _unix(directory / "control.sock"), SocketAuth(OPERATOR), admits=ours),
        await serve(app, sock, TokenAuth(frozenset({host}), verifier.holder, "http://127.0.0.1:8471")),
    ]
    web = httpx.AsyncClient(base_url=f"http://{host}")
    made = Plane(world, broker, verifier, deps, issuer, web, web, directory, listeners, [web], tokens, keys)
    made.control = made._client(directory / "control.sock")
    try:
        yield made
    finally:
        for client in made.clients:
            await client.aclose()
        for listener in listeners:
            listener.close()
        await broker.stop()


def play(
    directory: Path,
    scene: Callable[[Plane], Awaitable[None]],
    world: World | None = None,
    identity: Identity | None = None,
    gateway: str | None = None,
    services: Mapping[str, Service] | None = None,
) -> None:
    """Run a scene on a control plane."""

    async def main() -> None:
        async with plane(directory, world, identity, gateway, services) as made:
            await scene(made)

    asyncio.run(main())


def later(made: Plane, seconds: float) -> None:
    """Let time pass."""
    made.world.now += timedelta(seconds=seconds)
