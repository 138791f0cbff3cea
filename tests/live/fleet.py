"""A broker with a TLS listener and a trust domain, and workloads that come to it over real sockets."""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import uvloop
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from remit import jose
from remit.config import settings
from remit.config.settings import Settings
from remit.keys.signers import FileSigner
from tests.identity.spire import Authority, Domain, Svid, pem, server
from tests.support.one_process import Edges, served
from tests.support.postgres_server import free_port

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
JWT = "urn:ietf:params:oauth:token-type:jwt"
JWT_SPIFFE = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
SEARCH = {"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/v1/**"], "args": "any"}
PLANNER, WRITER = "/ns/agents/planner", "/ns/agents/writer"
PATIENCE = 15  # seconds, for what happens by itself
POLICY = """
@id("attested-agents-search")
permit (principal, action, resource == Resource::"search")
when { context.attested && context.trust_domain == "prod.example" };

@id("and-what-they-spawn")
permit (principal, action, resource == Resource::"search")
when { context.level > 0 };
"""

Answer = dict[str, Any]


@dataclass
class Key:
    """A workload's own key, for DPoP and WIMSE."""

    signer: FileSigner = field(default_factory=lambda: FileSigner(ec.generate_private_key(ec.SECP256R1())))
    token: str = ""

    @property
    def jwk(self) -> dict[str, str]:
        """The public key alone."""
        return {name: value for name, value in self.signer.public_jwk().items() if name in {"kty", "crv", "x", "y"}}

    def signed(self, typ: str, claims: Mapping[str, object], **header: object) -> str:
        """Return a JWT by this key."""
        parts = ({"typ": typ, "alg": self.signer.alg, **header}, {"jti": secrets.token_urlsafe(16), **claims})
        text = ".".join(jose.encode(json.dumps(part).encode()) for part in parts)
        return f"{text}.{jose.encode(self.signer.sign(text.encode()))}"

    def proof(self, method: str, url: str, nonce: str, token: str | None = None) -> str:
        """Return a DPoP proof (RFC 9449)."""
        claims: dict[str, object] = {"htm": method, "htu": url, "nonce": nonce}
        claims |= {"iat": int(datetime.now(UTC).timestamp())}
        claims |= {} if token is None else {"ath": jose.encode(sha256(token.encode()).digest())}
        return self.signed("dpop+jwt", claims, jwk=self.jwk)


@dataclass
class Fleet:
    """The running broker as workloads see it: by its URL and the authority of its certificate."""

    edges: Edges
    domain: Domain
    directory: Path
    web: Authority
    stack: AsyncExitStack
    control: httpx.AsyncClient
    visitor: httpx.AsyncClient | None = None

    @property
    def issuer(self) -> str:
        """The broker's issuer, at the TLS listener."""
        return self.edges.application.settings.issuer

    @property
    def endpoint(self) -> str:
        """The token endpoint."""
        return f"{self.issuer}/oauth/token"

    async def client(self, svid: Svid | None = None) -> httpx.AsyncClient:
        """Return a client that trusts the broker's certificate, with an X.509-SVID if it has one."""
        context = ssl.create_default_context(cafile=self.directory / "web.pem")
        if svid is not None:
            path = self.directory / f"{svid.x5t}.pem"
            path.write_bytes(svid.pem)
            context.load_cert_chain(path)
        made = httpx.AsyncClient(verify=context, base_url=self.issuer, trust_env=False)
        return await self.stack.enter_async_context(made)

    async def plain(self) -> httpx.AsyncClient:
        """Return the one client without a certificate that keeps its connection."""
        self.visitor = self.visitor or await self.client()
        return self.visitor

    async def ask(self, client: httpx.AsyncClient, key: Key | None, **form: str) -> httpx.Response:
        """Post to the token endpoint, with a DPoP proof by ``key`` and the nonce that the broker asks for."""
        answer = await client.post("/oauth/token", data=form, headers=self._proof(key, ""))
        if answer.headers.get("dpop-nonce") and answer.json().get("error") == "use_dpop_nonce":
            headers = self._proof(key, answer.headers["dpop-nonce"])
            answer = await client.post("/oauth/token", data=form, headers=headers)
        return answer

    def _proof(self, key: Key | None, nonce: str) -> dict[str, str]:
        return {} if key is None else {"dpop": key.proof("POST", self.endpoint, nonce)}

    async def child(self, client: httpx.AsyncClient, parent: Key, child: Key, **more: str) -> httpx.Response:
        """Delegate from the holder of ``parent`` to that of ``child``."""
        nonce = self.edges.authority.verifier.nonce()
        form = {
            "grant_type": EXCHANGE,
            "subject_token": parent.token,
            "subject_token_type": ACCESS_TOKEN,
            "authorization_details": json.dumps([SEARCH]),
            "req_cnf": json.dumps({"jwk": child.jwk}),
            "req_cnf_proof": child.proof("POST", self.endpoint, nonce, parent.token),
            **more,
        }
        answer = await self.ask(client, parent, **form)
        if answer.is_success:
            child.token = answer.json()["access_token"]
        return answer

    def jwt(self, path: str = PLANNER, audience: object = None, **claims: object) -> str:
        """Return a JWT-SVID for the broker."""
        return self.domain.jwt(audience or self.issuer, {}, sub=self.domain.id(path), **claims)

    def assertion(self, path: str = PLANNER, **claims: object) -> dict[str, str]:
        """Return the form fields of a client that authenticates by a JWT-SVID."""
        return {"client_assertion_type": JWT_SPIFFE, "client_assertion": self.jwt(path, **claims)}

    async def entries(self) -> list[Answer]:
        """Return the audit, as the operator sees it."""
        answer = await self.control.get("/v1/audit", params={"limit": "1000"})
        assert answer.is_success, answer.text
        return list(answer.json()["entries"])

    async def event(self, grant: str, name: str) -> Answer:
        """Return the one entry of that name about a grant."""
        (found,) = (one for one in await self.entries() if one.get("grant") == grant and one.get("event") == name)
        return found


def opening(**more: str) -> dict[str, str]:
    """Return what a request that opens a task says about it."""
    details = json.dumps([SEARCH])
    form = {"purpose": "look", "ttl": "600", "authorization_details": details, "depth": "3", "fan_out": "9"}
    return {**form, **more}


def claims_of(token: str) -> Answer:
    """Return what a token says, as anybody may read it."""
    return dict(json.loads(jose.decode(token.split(".")[1])))


def fresh(name: str = "prod.example") -> Domain:
    """Return a new trust domain, as of now."""
    return Domain(name, now=datetime.now(UTC).replace(microsecond=0))


def place(path: Path, content: bytes) -> None:
    """Replace a file in one step."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.replace(path)


def configured(directory: Path, web: Authority, **parts: object) -> Settings:
    """Return the settings of a broker whose trust domain has its bundle in a file, if ``parts`` says nothing else."""
    made = server(web, "127.0.0.1", now=datetime.now(UTC))
    (directory / "tls.pem").write_bytes(made.chain[0].public_bytes(Encoding.PEM))
    (directory / "tls.key").touch(0o600)
    (directory / "tls.key").write_bytes(pem(made.key))
    (directory / "web.pem").write_bytes(web.certificate.public_bytes(Encoding.PEM))
    policies = directory / "policies"
    policies.mkdir(mode=0o700, exist_ok=True)
    (policies / "all.cedar").write_text(POLICY)
    bundle = {"bundle_file": str(directory / "bundle.json")}
    raw = {
        "listen": {"api": f"127.0.0.1:{free_port()}", "gateway": f"127.0.0.1:{free_port()}"},
        "tls": {
            "listen": f"127.0.0.1:{free_port()}",
            "certificate": str(directory / "tls.pem"),
            "key": str(directory / "tls.key"),
            "names": ["127.0.0.1"],
        },
        "trust_domains": [
            {"name": "prod.example", "allow": ["spiffe://prod.example/ns/agents/*", "wimse://prod.example/*"], **bundle}
        ],
        "policy": {"directory": str(policies)},
        **parts,
    }
    return settings.read(settings.places({"REMIT_STATE_DIR": str(directory / "state")}), raw)


@asynccontextmanager
async def running(directory: Path, domain: Domain, **parts: object) -> AsyncIterator[Fleet]:
    """Run a broker until the block ends."""
    web = Authority.root("the web", now=datetime.now(UTC))
    place(directory / "bundle.json", domain.bundle())
    made = configured(directory, web, **parts)
    async with AsyncExitStack() as stack:
        edges = await stack.enter_async_context(served(made))
        transport = httpx.AsyncHTTPTransport(uds=str(made.places.control))
        control = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://control"))
        target = {
            "kind": "http",
            "destination": "http://127.0.0.1:1",
            "bound": [SEARCH],
            "settings": {},
            "secret": "k-0123456789abcdef",
        }
        put = await control.put("/v1/resources/search", json=target)
        assert put.is_success, put.text
        yield Fleet(edges, domain, directory, web, stack, control)


def play(directory: Path, scene: Callable[[Fleet], Awaitable[None]], **parts: object) -> None:
    """Run a scene on a running broker."""

    async def main() -> None:
        async with running(directory, fresh(), **parts) as made:
            await scene(made)

    run(main())


def run(scene: Coroutine[Any, Any, None]) -> None:
    """Run a scene on the loop that serves people."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scene)


async def until(asked: Callable[[], Awaitable[bool]]) -> None:
    """Ask again until the answer is yes: every question is a round trip, so nothing spins."""
    async with asyncio.timeout(PATIENCE):
        while not await asked():
            pass
