"""Humans and tokens: exchange of an ID token, and introspection, each beside what OpenBao has for it."""

from __future__ import annotations

import asyncio
import http.server
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from joserfc import jwt
from joserfc.jwk import RSAKey

from benchmarks import openbao, ours
from benchmarks.client import FORM, Client, Step, closed_loop, rates, with_cpu
from benchmarks.control import CLIENTS, ROUNDS, SECONDS, Prepared, nonce, spent
from benchmarks.figure import Figure
from benchmarks.openbao import OpenBao
from examples.demo.house import House
from remit.sdk import Bounds, verbs
from remit.sdk.dpop import DPoPKey
from tests.support.postgres_server import free_port

TOKENS = 100  # exchanges that each client has ID tokens and proofs for in one round
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"  # noqa: S105 - the name of a type
POLICY = '@id("bench")\npermit (principal, action, resource);\n'
CONFIG = """
[[humans]]
issuer = "{issuer}"
client_id = "remit"

[policy]
directory = "{{folder}}/policy"
"""


# -- an issuer ------------------------------------------------------------------------------------------------------


@contextmanager
def issuer(key: RSAKey) -> Iterator[str]:
    """Serve discovery and keys of an issuer, and nothing else; yield its URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    documents: dict[str, Any] = {
        "/.well-known/openid-configuration": {
            "issuer": url,
            "jwks_uri": f"{url}/jwks",
            "authorization_endpoint": f"{url}/auth",
            "token_endpoint": f"{url}/token",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        },
        "/jwks": {"keys": [{**key.as_dict(private=False), "use": "sig", "alg": "RS256", "kid": "bench"}]},
    }

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = documents.get(self.path)
            body = json.dumps(found).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield url
    finally:
        server.shutdown()
        server.server_close()


def id_token(key: RSAKey, url: str, audience: str) -> str:
    now = int(time.time())
    claims = {"iss": url, "aud": audience, "sub": "bench", "iat": now, "exp": now + 3_600, "jti": secrets.token_hex(16)}
    return jwt.encode({"alg": "RS256", "kid": "bench"}, claims, key)


# -- exchange -------------------------------------------------------------------------------------------------------


def exchange_16() -> Figure:
    """Tasks opened a second by exchanging an ID token (RS256), each with a proof, sixteen clients."""
    key = RSAKey.generate_key(2048, private=True)
    port = free_port()
    with issuer(key) as url, with_policy(port, url) as house, openbao.process() as (peer_port, pid):
        ours.with_upstream(house, 9, ours.SECRET)
        bao = asyncio.run(openbao.unsealed(peer_port, pid))
        asyncio.run(_jwt_login(bao, key, url))
        sides = (
            lambda: with_cpu(house.process.pid, spent(port, [_prepared(port, key, url) for _ in range(CLIENTS)])),
            lambda: with_cpu(pid, closed_loop(bao.port, CLIENTS, SECONDS, _login(id_token(key, url, "remit")))),
        )
        return rates("exchange_16", "exchanges/s", "OpenBao 2.7 jwt login on raft with file audit", sides, ROUNDS)


@contextmanager
def with_policy(port: int, url: str) -> Iterator[House]:
    with ours.running(api=f"127.0.0.1:{port}", more=CONFIG.format(issuer=url), before=_policy) as house:
        yield house


def _policy(folder: Path) -> None:
    directory = folder / "policy"
    directory.mkdir(mode=0o700)
    (directory / "bench.cedar").write_text(POLICY, "utf-8")


def _prepared(port: int, key: RSAKey, url: str) -> Prepared:
    endpoint, holder, fresh = f"http://127.0.0.1:{port}/oauth/token", DPoPKey(), nonce(port)
    fields = {
        "grant_type": verbs.EXCHANGE,
        "subject_token_type": ID_TOKEN,
        "authorization_details": json.dumps([dict(ours.HTTP)]),
        "purpose": "measure",
        "ttl": "600",
    }
    made = []
    for _ in range(TOKENS):
        body = urlencode({**fields, "subject_token": id_token(key, url, "remit")}).encode()
        made.append((body, holder.proof("POST", endpoint, nonce=fresh)))
    return made


async def _jwt_login(bao: OpenBao, key: RSAKey, url: str) -> None:
    await bao.call("POST", "/v1/sys/auth/jwt", {"type": "jwt"})
    pem = key.as_pem(private=False).decode()
    await bao.call("POST", "/v1/auth/jwt/config", {"jwt_validation_pubkeys": [pem], "bound_issuer": url})
    role = {"role_type": "jwt", "bound_audiences": ["remit"], "user_claim": "sub", "token_policies": ["default"]}
    await bao.call("POST", "/v1/auth/jwt/role/bench", {**role, "token_ttl": "10m"})


def _login(token: str) -> Step:
    body = json.dumps({"jwt": token, "role": "bench"}).encode()

    async def step(client: Client, _number: int) -> bool:
        status, _ = await client.request("POST", "/v1/auth/jwt/login", body, {"Content-Type": "application/json"})
        return status == 200

    return step


# -- introspection --------------------------------------------------------------------------------------------------


def introspect_16() -> Figure:
    """Introspections a second on the control socket, of the token of a grant, sixteen clients."""
    port = free_port()
    with ours.running(api=f"127.0.0.1:{port}") as house, openbao.process() as (peer_port, pid):
        ours.with_upstream(house, 9, ours.SECRET)
        bao = asyncio.run(openbao.unsealed(peer_port, pid))
        with house.client() as client:
            task = client.run(verbs.open_task("measure", [dict(ours.HTTP)], Bounds("2h"), DPoPKey()))
        made = asyncio.run(bao.call("POST", "/v1/auth/token/create", {"policies": ["default"], "ttl": "1h"}))
        auth: Mapping[str, Any] = made["auth"]  # type: ignore[assignment]  # JSON as OpenBao answers
        ask, look = _introspection(task.token or ""), _lookup(bao, str(auth["client_token"]))
        sides = (
            lambda: with_cpu(house.process.pid, closed_loop(house.control, CLIENTS, SECONDS, ask)),
            lambda: with_cpu(pid, closed_loop(bao.port, CLIENTS, SECONDS, look)),
        )
        return rates("introspect_16", "introspections/s", "OpenBao 2.7 token lookup on raft", sides, ROUNDS)


def _introspection(token: str) -> Step:
    body = urlencode({"token": token}).encode()
    return _answering("/oauth/introspect", body, FORM, lambda answer: answer["active"] is True)


def _lookup(bao: OpenBao, token: str) -> Step:
    body = json.dumps({"token": token}).encode()
    return _answering("/v1/auth/token/lookup", body, bao.headers, lambda answer: bool(answer["data"]))


def _answering(path: str, body: bytes, headers: Mapping[str, str], good: Callable[[Any], bool]) -> Step:
    async def step(client: Client, _number: int) -> bool:
        status, answer = await client.request("POST", path, body, headers)
        return status == 200 and good(json.loads(answer))

    return step
