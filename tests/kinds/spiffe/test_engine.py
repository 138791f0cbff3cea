from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from remit import jose
from remit.core.scope import Detail, parse_detail
from remit.core.secret import Secret
from remit.core.task import Plan, Revocation
from remit.errors import (
    AudienceError,
    DeniedError,
    EngineRefusedError,
    InvalidRequestError,
    TokenError,
    UnknownDetailError,
)
from remit.jose import svid
from remit.jose.keys import key_set
from remit.keys.authority import FileAuthority
from remit.keys.file import FileSealer
from remit.kinds.spiffe.engine import SpiffeEngine, check, serial
from remit.kinds.spiffe.engine import plan as planned
from remit.ports import Issued, Resource
from remit.ports.kind import LeaseRequest
from remit.testing.engine_contract import AGENT, CASES, Case, Session, engine_contract

ISSUER = "https://broker.test"
MESH: Mapping[str, object] = {
    "type": "spiffe",
    "resource": "mesh",
    "actions": ["x509", "jwt"],
    "audiences": ["https://ledger.test"],
    "ttl": 300,
}
GAPS = frozenset({"sessions", "outage", "renew", "bulk", "clean", "revoke"})


def mesh(destination: str = "spiffe://remit.test", *bound: Mapping[str, object], **settings: object) -> Resource:
    details = tuple(parse_detail(raw) for raw in bound or (MESH,))
    return Resource("mesh", "spiffe", destination, details, None, settings)


def mesh_detail(**more: object) -> Detail:
    return parse_detail({**MESH, **more})


@dataclass
class Mesh:
    """A trust domain, as the contract wants to see a target: what verifies under its bundle is what it knows."""

    authority: FileAuthority
    at: datetime
    issued: list[Issued] = field(default_factory=list)
    made: list[SpiffeEngine] = field(default_factory=list)

    @property
    def engine(self) -> SpiffeEngine:
        return self.made[0] if self.made else self.again()

    def again(self) -> SpiffeEngine:
        self.made.append(Watched(self))
        return self.made[-1]

    def plan(self, wanted: LeaseRequest) -> Plan:
        return planned(mesh(), self.authority.trust_domain, wanted)

    def detail(self) -> Detail:
        return mesh_detail()

    def now(self) -> datetime:
        return self.at

    async def permits(self, issued: Issued) -> bool:
        return self.certified(issued) and self.signed(issued, "https://ledger.test")

    async def exceeds(self, issued: Issued) -> list[str]:
        possible = [audience for audience in ("https://other.test", ISSUER) if self.signed(issued, audience)]
        leaf = x509.load_pem_x509_certificate(str(issued.credential["certificate"]).encode())
        may_certify = leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        longer = leaf.not_valid_after_utc - self.at > timedelta(hours=1)
        return [*possible, *(["certifying"] if may_certify else []), *(["an hour"] if longer else [])]

    async def exists(self, name: str) -> bool:
        number = serial(name.partition("#")[2])
        leaves = [x509.load_pem_x509_certificate(str(each.credential["certificate"]).encode()) for each in self.issued]
        return any(leaf.serial_number == number for leaf in leaves)

    async def session(self, issued: Issued) -> Session:
        raise NotImplementedError

    def outage(self) -> AbstractAsyncContextManager[None]:
        raise NotImplementedError

    def certified(self, issued: Issued) -> bool:
        leaf = x509.load_pem_x509_certificate(str(issued.credential["certificate"]).encode())
        roots = Store([x509.load_der_x509_certificate(der) for der in self.authority.certificates()])
        try:
            PolicyBuilder().store(roots).time(self.at).build_client_verifier().verify(leaf, [])
        except VerificationError:
            return False
        return True

    def signed(self, issued: Issued, audience: str) -> bool:
        token = issued.credential["jwt"]
        assert isinstance(token, Secret)
        try:
            svid.verify(
                token.reveal(), audience, key_set(self.authority.public.jwks), self.authority.trust_domain, self.now()
            )
        except (TokenError, AudienceError):
            return False
        return True


class Watched(SpiffeEngine):
    """An engine whose work its target gets to know: there is no other trace of an SVID than the SVID."""

    def __init__(self, target: Mesh) -> None:
        super().__init__(mesh(), None, authority=target.authority, issuer=ISSUER, clock=target.now)
        self._target = target

    async def issue(self, plan: Plan, expires_at: datetime) -> Issued:
        issued = await super().issue(plan, expires_at)
        self._target.issued.append(issued)
        return issued


def target(folder: Path) -> Mesh:
    at = datetime.now(UTC)
    return Mesh(FileAuthority(folder / "keys", FileSealer(b"k" * 32), "remit.test", lambda: at), at)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_the_engine_keeps_the_contract(case: Case, tmp_path: Path) -> None:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Mesh]:
        yield target(tmp_path)

    engine_contract(case, opened, GAPS)


# -- what it makes --------------------------------------------------------------------------------------------------


def issue(found: Mesh, detail: Detail, lease: str = "lse_1", life: timedelta = timedelta(minutes=5)) -> Issued:
    plan = found.plan(LeaseRequest(lease, detail, found.at + timedelta(seconds=10), AGENT))
    return asyncio.run(found.engine.issue(plan, found.at + life))


def claims(issued: Issued) -> dict[str, object]:
    token = issued.credential["jwt"]
    assert isinstance(token, Secret)
    loaded = json.loads(jose.decode(token.reveal().split(".")[1]))
    assert isinstance(loaded, dict)
    return loaded


def test_only_what_was_asked_for_is_made(tmp_path: Path) -> None:
    found = target(tmp_path)
    certified = issue(found, mesh_detail(actions=["x509"]), "lse_1")
    signed = issue(found, mesh_detail(actions=["jwt"]), "lse_2")
    assert set(certified.credential) == {"spiffe_id", "certificate", "key", "bundle"}
    assert set(signed.credential) == {"spiffe_id", "jwt"}


def test_a_certificate_and_its_key_belong_together(tmp_path: Path) -> None:
    issued = issue(target(tmp_path), mesh_detail()).credential
    key = issued["key"]
    assert isinstance(key, Secret)
    for name, text in (("chain", str(issued["certificate"])), ("key", key.reveal()), ("bundle", str(issued["bundle"]))):
        (tmp_path / name).write_text(text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "chain", tmp_path / "key")
    context.load_verify_locations(tmp_path / "bundle")
    assert len(context.get_ca_certs()) == 2  # the one that signs, and the next


def test_a_token_says_whose_it_is_and_that_nobody_attested_that(tmp_path: Path) -> None:
    found = target(tmp_path)
    assert claims(issue(found, mesh_detail())) == {
        "iss": ISSUER,
        "sub": AGENT,
        "aud": "https://ledger.test",
        "iat": int(found.at.timestamp()),
        "exp": int((found.at + timedelta(minutes=5)).timestamp()),
        "jti": "lse_1",
        "attested": False,
        "task": "task_contract",
        "grant": "grt_contract",
    }


def test_a_token_has_the_header_of_a_jwt_svid_and_no_more(tmp_path: Path) -> None:
    found = target(tmp_path)
    token = issue(found, mesh_detail()).credential["jwt"]
    assert isinstance(token, Secret)
    header = json.loads(jose.decode(token.reveal().split(".")[0]))
    assert header == {"alg": "RS256", "kid": found.authority.public.jwks[0]["kid"], "typ": "JWT"}


def test_many_audiences_are_a_list(tmp_path: Path) -> None:
    both = ["https://a.test", "https://b.test"]
    assert claims(issue(target(tmp_path), mesh_detail(audiences=both)))["aud"] == both


def test_an_svid_ends_by_expiry_alone(tmp_path: Path) -> None:
    found = target(tmp_path)
    issued = issue(found, mesh_detail())
    plan = found.plan(LeaseRequest("lse_1", mesh_detail(), found.at, AGENT))
    asyncio.run(found.engine.revoke(plan, None))
    assert plan.revocation is Revocation.BY_EXPIRY
    assert found.certified(issued)  # so a revoke may not say that it is closed


# -- what it refuses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "agent",
    [
        "spiffe://prod.example/ns/a/sa/planner",
        "spiffe://remit.test/ns/a",
        "spiffe://remit.test",
        "spiffe://remit.test/task/task_1",
        "spiffe://remit.test/task/task_1/grt_1/more",
        "spiffe://remit.test.evil/task/task_1/grt_1",
        "https://idp.example#alice",
        "",
    ],
)
def test_a_name_that_the_broker_did_not_make_is_refused(tmp_path: Path, agent: str) -> None:
    found = target(tmp_path)
    with pytest.raises(DeniedError):
        found.plan(LeaseRequest("lse_1", mesh_detail(), found.at, agent))


def test_a_token_for_nobody_is_refused(tmp_path: Path) -> None:
    found = target(tmp_path)
    with pytest.raises(UnknownDetailError):
        found.plan(LeaseRequest("lse_1", mesh_detail(audiences=[]), found.at, AGENT))


def test_a_detail_of_another_type_is_refused(tmp_path: Path) -> None:
    found = target(tmp_path)
    with pytest.raises(UnknownDetailError):
        found.plan(LeaseRequest("lse_1", Detail("postgres", "mesh", ()), found.at, AGENT))


def test_a_trust_domain_that_was_changed_issues_nothing(tmp_path: Path) -> None:
    found = target(tmp_path)
    plan = found.plan(LeaseRequest("lse_1", mesh_detail(), found.at + timedelta(seconds=10), AGENT))
    other = FileAuthority(tmp_path / "keys", FileSealer(b"k" * 32), "other.test", found.now)
    changed = SpiffeEngine(mesh(), None, authority=other, issuer=ISSUER, clock=found.now)
    with pytest.raises(EngineRefusedError):
        asyncio.run(changed.issue(plan, found.at + timedelta(minutes=5)))
    with pytest.raises(DeniedError):
        planned(mesh(), "other.test", LeaseRequest("lse_2", mesh_detail(), found.at, AGENT))


@pytest.mark.parametrize(
    "resource",
    [
        mesh("spiffe://other.test"),
        mesh("spiffe://remit.test/"),
        mesh("spiffe://remit.test/path"),
        mesh(accept=["x"]),
        mesh("spiffe://remit.test", {**MESH, "audiences": []}),
    ],
    ids=["another domain", "a slash", "a path", "a setting", "tokens for nobody"],
)
def test_a_resource_that_could_never_issue_is_refused(resource: Resource) -> None:
    with pytest.raises(InvalidRequestError):
        check(resource, "remit.test")


def test_a_resource_of_the_own_trust_domain_is_taken() -> None:
    check(mesh(), "remit.test")


def test_a_secret_is_refused(tmp_path: Path) -> None:
    found = target(tmp_path)
    with pytest.raises(InvalidRequestError):
        SpiffeEngine(mesh(), Secret("x"), authority=found.authority, issuer=ISSUER, clock=found.now)
