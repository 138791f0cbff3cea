"""Services elsewhere at a broker as it is deployed: its processes, TLS, and libraries that nobody here wrote."""

from __future__ import annotations

import json
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from tests.identity import spire
from tests.identity.issuing import ec, public
from tests.live import idp
from tests.live.fleet import claims_of
from tests.live.idp import NODE, PEERS, Provider
from tests.live.terminal import PATIENCE, Terminal, configure
from tests.live.test_clients import Human
from tests.support.postgres_server import free_port

pytestmark = pytest.mark.live

ORDERS, BILLS = "https://orders.test", "https://orders.test/bills"
READ = {"type": "elsewhere", "resource": "orders", "actions": ["read"]}
PAY = {"type": "elsewhere", "resource": "bills", "actions": ["pay"]}
API, OWN = "orders-api", ec("orders-1")
SERVING = "spiffe://prod.test/bills/api"
CONFIG = """
listen = {{ api = "off", gateway = "off" }}
policy = {{ directory = "{home}/policies" }}
client_registration = {{}}
clients = [{{ id = "{api}", jwks_file = "{home}/jwks.json" }}]

[tls]
listen = "127.0.0.1:{port}"
names = ["127.0.0.1"]
certificate = "{home}/tls.pem"
key = "{home}/tls.key"

[[humans]]
issuer = "{issuer}"
client_id = "remit-web"
client_secret_file = "{home}/secret"

[[trust_domains]]
name = "prod.test"
bundle_file = "{home}/bundle.json"
allow = ["spiffe://prod.test/**"]

[services.orders]
resource = "{orders}"
client = "{api}"

[services.bills]
resource = "{bills}"
client = "spiffe://prod.test/bills/*"
signing_alg = "RS256"
"""

Answer = dict[str, Any]


@dataclass
class Town:
    """A running broker, and who comes to it."""

    home: Path
    provider: Provider
    domain: spire.Domain
    base: str
    trust: ssl.SSLContext
    human: Human

    def flow(self, flow: str, /, **told: object) -> Any:
        """Have the libraries do something; return what came of it."""
        environ = {"NODE_NO_WARNINGS": "1", "NODE_EXTRA_CA_CERTS": str(self.home / "ca.pem")}
        with subprocess.Popen(
            [str(NODE), "services.mjs"], cwd=PEERS, env=environ, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        ) as process:  # fmt: skip
            assert process.stdin is not None
            assert process.stdout is not None
            answer: Mapping[str, object] = {"flow": flow, "issuer": self.base, **told}
            while True:
                process.stdin.write(json.dumps(answer) + "\n")
                process.stdin.flush()
                said: Answer = json.loads(process.stdout.readline())
                if "visit" not in said:
                    assert "done" in said, said
                    return said["done"]
                answer = {"back": self.human.visit(said["visit"])}

    def introspected(self, token: str, name: str = SERVING) -> Answer:
        """Ask about a token as the workload whose certificate the handshake shows."""
        svid = self.domain.svid(name.removeprefix("spiffe://prod.test"))
        path = self.home / "svid.pem"
        path.write_bytes(svid.pem)
        context = ssl.create_default_context(cafile=self.home / "ca.pem")
        context.load_cert_chain(path)
        with httpx.Client(base_url=self.base, verify=context, trust_env=False) as client:
            answer = client.post("/oauth/introspect", data={"token": token, "client_id": name})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """Run a broker with two services elsewhere, where clients may register themselves."""
    home, port = tmp_path_factory.mktemp("home"), free_port()
    base = f"https://127.0.0.1:{port}"
    [_, web] = idp.clients()
    known = {**web, "application_type": "web", "redirect_uris": [f"{base}/oauth/callback"]}
    authority, domain = spire.Authority.root("web"), spire.Domain("prod.test")
    server = spire.server(authority, "127.0.0.1")
    (home / "ca.pem").write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    (home / "bundle.json").write_bytes(domain.bundle())
    (home / "tls.pem").write_bytes(b"".join(each.public_bytes(Encoding.PEM) for each in server.chain))
    (home / "jwks.json").write_text(json.dumps({"keys": [public(OWN)]}))
    (home / "policies").mkdir(mode=0o700)
    (home / "policies" / "all.cedar").write_text('@id("all") permit (principal, action, resource);\n')
    for name, content in (("tls.key", spire.pem(server.key)), ("secret", idp.SECRET.encode())):
        (home / name).touch(0o600)
        (home / name).write_bytes(content)
    with idp.served([known]) as provider:
        text = CONFIG.format(home=home, port=port, issuer=provider.issuer, api=API, orders=ORDERS, bills=BILLS)
        configure(home, text.splitlines())
        here = Terminal(home, provider.issuer)
        up = here.start("up", "--json")
        try:
            assert up.stdout is not None
            control = json.loads(up.stdout.readline())["control"]
            _put(control)
            trust = ssl.create_default_context(cafile=home / "ca.pem")
            with closing(Human(provider, verify=trust)) as human:
                yield Town(home, provider, domain, base, trust, human)
        finally:
            up.terminate()
            up.communicate(timeout=PATIENCE)


def _put(control: str) -> None:
    with httpx.Client(transport=httpx.HTTPTransport(uds=control), base_url="http://control", timeout=PATIENCE) as asked:
        for name, uri, bound in (("orders", ORDERS, READ), ("bills", BILLS, PAY)):
            target = {"kind": "elsewhere", "destination": f"elsewhere:{uri}", "bound": [bound], "settings": {}}
            assert asked.put(f"/v1/resources/{name}", json=target).is_success


def test_a_client_registers_itself_and_services_elsewhere_take_its_tokens_by_their_own_libraries(town: Town) -> None:
    asked = {"purpose": "pay for what was ordered", "ttl": "600", "authorization_details": json.dumps([READ, PAY])}
    redirect = "http://127.0.0.1:8123/cb"
    got = town.flow("asked", name="Order Agent", redirect=redirect, asked=asked, resources=[ORDERS, BILLS])
    assert got["id"].startswith("itself.")
    assert any("calls itself “Order Agent”; it registered itself" in page for page in town.human.pages)
    orders, bills = got["tokens"][ORDERS], got["tokens"][BILLS]

    said = town.flow("introspected", client=API, key=OWN.as_dict(private=True), tokens=[orders, bills, "x"])
    assert (said[0]["active"], said[0]["client_id"], said[0]["aud"]) == (True, got["id"], ORDERS)
    assert said[0]["authorization_details"] == [READ]
    assert said[1:] == [{"active": False}] * 2
    told = town.introspected(bills)
    assert (told["active"], told["aud"], told["authorization_details"]) == (True, BILLS, [PAY])
    assert town.introspected(orders) == town.introspected(bills, "spiffe://prod.test/other") == {"active": False}

    expected = [
        {"token": token, "audience": uri, "alg": alg}
        for token in (orders, bills)
        for uri in (ORDERS, BILLS)
        for alg in ("ES256", "RS256")
    ]
    verdicts = town.flow("verified", expected=expected)
    assert verdicts[0] == claims_of(orders)
    assert verdicts[7] == claims_of(bills)
    assert verdicts[1:7] == [
        "ERR_JOSE_ALG_NOT_ALLOWED", "ERR_JWT_CLAIM_VALIDATION_FAILED", "ERR_JOSE_ALG_NOT_ALLOWED",
        "ERR_JOSE_ALG_NOT_ALLOWED", "ERR_JWT_CLAIM_VALIDATION_FAILED", "ERR_JOSE_ALG_NOT_ALLOWED",
    ]  # fmt: skip

    with httpx.Client(base_url=town.base, verify=town.trust, trust_env=False) as shown:  # what a service could do
        refused = shown.post("/oauth/revoke", data={"token": orders})
    assert (refused.status_code, refused.json()["error"]) == (400, "unsupported_token_type")
    town.flow("revoked", client=got["id"], token=got["refresh"])
    assert town.introspected(bills) == {"active": False}
