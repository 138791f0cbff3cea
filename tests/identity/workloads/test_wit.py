from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from remit import jose
from remit.core.principal import Workload
from remit.errors import (
    AudienceError,
    LimitError,
    RemitError,
    ReplayError,
    TokenError,
    UnauthenticatedError,
    UnavailableError,
)
from remit.identity.workloads.attested import MAX_WIT_LIFE, AttestedWorkloads
from remit.identity.workloads.bundles import TrustBundles
from remit.keys.signers import FileSigner
from tests.identity.spire import NOW, Domain, Held, Times, signed

PUBLISHED = Path(__file__).parents[2] / "vectors" / "published"
PRINTED = json.loads((PUBLISHED / "published.json").read_text("utf-8"))["wimse"]
PRINTED_WIT = (PUBLISHED / "wimse" / "wit.txt").read_text("ascii").strip()
PRINTED_WPT = (PUBLISHED / "wimse" / "wpt.txt").read_text("ascii").strip()

DOMAIN = Domain("prod.example")
OTHER = Domain("other.example")
ALLOW = ("spiffe://prod.example/ns/agents/*", "wimse://prod.example/agents/*", "spiffe://other.example/**")
TARGET = "https://remit.example/oauth/token"
AT = int(NOW.timestamp())
AGENT = FileSigner(ec.generate_private_key(ec.SECP256R1()))


def public(signer: FileSigner = AGENT, **more: object) -> dict[str, object]:
    jwk = {name: value for name, value in signer.public_jwk().items() if name in {"kty", "crv", "x", "y"}}
    return {**jwk, "alg": signer.alg, **more}


def wit(header: Mapping[str, object] | None = None, domain: Domain = DOMAIN, **claims: object) -> str:
    """Return a WIT; ``claims`` replaces claims, and None removes them."""
    body = {"sub": domain.id(), "exp": AT + 3600, "iat": AT, "cnf": {"jwk": public()}, **claims}
    held = {name: value for name, value in body.items() if value is not None}
    head = {"alg": "ES256", "kid": "wit-1", "typ": "wit+jwt", **(header or {})}
    return signed(domain.wit_key, {name: value for name, value in head.items() if value is not None}, held)


def proof(of: str, signer: FileSigner = AGENT, **claims: object) -> str:
    body = {"aud": TARGET, "exp": AT + 60, "jti": "j" * 22, "wth": jose.digest(of), **claims}
    held = {name: value for name, value in body.items() if value is not None}
    head = {"typ": "wpt+jwt", "alg": signer.alg}
    text = ".".join(jose.encode(json.dumps(part).encode()) for part in (head, held))
    return f"{text}.{jose.encode(signer.sign(text.encode()))}"


def wits(clock: Times | None = None, most: int = 100, **sources: Held) -> AttestedWorkloads:
    held = {one.name: Held(one.bundle()) for one in (DOMAIN, OTHER)}
    named = {name.replace("_", "."): source for name, source in sources.items()}
    times = clock or Times()
    return AttestedWorkloads({}, "", times, TrustBundles({**held, **named}, times), ALLOW, most=most)


def proven(token: str, by: str | None = None, at: AttestedWorkloads | None = None) -> Workload:
    return asyncio.run((at or wits()).proven(token, by or proof(token), TARGET, None))


# -- what the drafts print --------------------------------------------------------------------------------------------


def printed(at: int = PRINTED["valid_at"], allow: tuple[str, ...] = ("wimse://example.com/*",)) -> AttestedWorkloads:
    raw = json.dumps({"keys": [{**PRINTED["issuer_key"], "use": "wit-svid"}]}).encode()
    clock = Times(datetime.fromtimestamp(at, UTC))
    return AttestedWorkloads({}, "", clock, TrustBundles({"example.com": Held(raw)}, clock), allow)


def replayed(
    made: AttestedWorkloads, *, target: str = PRINTED["request_target"], token: str | None = PRINTED["access_token"]
) -> Workload:
    return asyncio.run(made.proven(PRINTED_WIT, PRINTED_WPT, target, token))


def test_the_printed_token_with_the_printed_proof_names_its_workload() -> None:
    found = replayed(printed())
    assert (found.id, found.method) == ("wimse://example.com/specific-workload", "wit")
    jwk = {name: value for name, value in PRINTED["workload_key"].items() if name != "d"}
    assert found.jkt == jose.public_key(jwk).thumbprint
    assert found.expires_at == datetime(2025, 4, 24, 16, 35, 10, tzinfo=UTC)


def test_the_printed_request_carries_both() -> None:
    lines = (PUBLISHED / "wimse" / "wpt-request.txt").read_text("ascii").splitlines()
    headers = dict(line.split(": ", 1) for line in lines[1 : lines.index("")])
    assert headers["Workload-Identity-Token"] == PRINTED_WIT
    assert headers["Workload-Proof-Token"] == PRINTED_WPT
    assert headers["Authorization"] == f"Bearer {PRINTED['access_token']}"


def test_the_printed_proof_counts_once() -> None:
    made = printed()
    replayed(made)
    with pytest.raises(ReplayError):
        replayed(made)


@pytest.mark.parametrize("target", ["https://workload.example.com/other", "https://evil.example.com/path"])
def test_the_printed_proof_is_for_no_other_target(target: str) -> None:
    with pytest.raises(AudienceError):
        replayed(printed(), target=target)


@pytest.mark.parametrize("token", [None, "another"])
def test_the_printed_proof_covers_no_other_token(token: str | None) -> None:
    with pytest.raises(TokenError):
        replayed(printed(), token=token)


@pytest.mark.parametrize("at", [1_745_510_026, 1_745_512_510, 1_745_509_000, 1_745_508_000])
def test_the_printed_ones_count_for_a_moment(at: int) -> None:
    with pytest.raises(UnauthenticatedError):
        replayed(printed(at))


@pytest.mark.parametrize("allow", [("wimse://example.com/other",), ("spiffe://example.com/**",), ()])
def test_the_printed_name_has_to_be_allowed(allow: tuple[str, ...]) -> None:
    with pytest.raises(UnauthenticatedError, match="pattern"):
        replayed(printed(allow=allow))


def test_the_printed_token_is_not_believed_by_the_key_of_another_trust_domain() -> None:
    raw = json.dumps({"keys": [{**PRINTED["issuer_key"], "use": "wit-svid"}]}).encode()
    clock = Times(datetime.fromtimestamp(PRINTED["valid_at"], UTC))
    empty = Held(b'{"keys": []}')
    held = TrustBundles({"example.com": empty, "example.org": Held(raw)}, clock)
    made = AttestedWorkloads({}, "", clock, held, ("wimse://example.com/*",))
    with pytest.raises(UnauthenticatedError, match="not signed"):
        replayed(made)


# -- the token --------------------------------------------------------------------------------------------------------


def test_a_token_with_its_proof_names_its_workload_and_its_key() -> None:
    found = proven(wit())
    assert (found.id, found.method, found.x5t) == (DOMAIN.id(), "wit", None)
    assert found.jkt == jose.public_key(public()).thumbprint
    assert found.digest is not None
    assert int(found.expires_at.timestamp()) == AT + 3600


def test_an_edwards_key_may_be_the_workloads() -> None:
    signer = FileSigner(ed25519.Ed25519PrivateKey.generate())
    token = wit(cnf={"jwk": public(signer)})
    assert proven(token, proof(token, signer)).id == DOMAIN.id()


@pytest.mark.parametrize(
    "header",
    [
        {"typ": None},
        {"typ": "JWT"},
        {"typ": "wpt+jwt"},
        {"kid": "jwt-1"},
        {"kid": "other"},
        {"crit": ["exp"]},
    ],
)
def test_a_header_of_another_token_is_refused(header: dict[str, object]) -> None:
    with pytest.raises(UnauthenticatedError):
        proven(wit(header))


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": None},
        {"sub": "planner"},
        {"sub": "https://prod.example/ns/agents/planner"},
        {"sub": "spiffe://prod.example/ns/agents/%70lanner"},
        {"sub": "spiffe://prod.example/ns/agents/../agents/planner"},
        {"sub": "spiffe://prod.example:443/ns/agents/planner"},
        {"sub": "spiffe://prod.example/ns/agents/planner/"},
        {"sub": "wimse://prod.example/agents//planner"},
        {"sub": "wimse://PROD.example/agents/planner"},
        {"sub": "wimse://prod.example:8443/agents/planner"},
        {"sub": "WIMSE://prod.example/agents/planner"},
        {"sub": "spiffe://prod.example/ns/others/planner"},
        {"sub": "spiffe://prod.example/ns/agents"},
        {"sub": "wimse://prod.example/ns/agents/planner"},
        {"sub": "spiffe://prod.example"},
        {"exp": None},
        {"exp": AT},
        {"exp": AT + int(MAX_WIT_LIFE.total_seconds()) + 61},
        {"iat": AT + 61},
        {"nbf": AT + 61},
        {"aud": TARGET},
        {"act": "spiffe://prod.example/ns/agents/admin"},
        {"instance": "wimse://prod.example/agents/1"},
        {"cnf": None},
        {"cnf": {}},
        {"cnf": {"jkt": jose.public_key(public()).thumbprint}},
        {"cnf": {"jwk": public(), "jkt": "x"}},
        {"cnf": {"jwk": public(alg=None)}},
        {"cnf": {"jwk": public(alg="HS256")}},
        {"cnf": {"jwk": public(alg="EdDSA")}},
        {"cnf": {"jwk": public(d="c2VjcmV0")}},
        {"cnf": {"jwk": {"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}}},
        {"cnf": "key"},
    ],
)
def test_a_token_that_lacks_or_exceeds_something_is_refused(claims: dict[str, object]) -> None:
    with pytest.raises(RemitError) as caught:
        proven(wit(None, DOMAIN, **claims))
    assert isinstance(caught.value, UnauthenticatedError)


@pytest.mark.parametrize("alg", [None, 7, ["ES256"]])
def test_its_key_names_its_algorithm(alg: object) -> None:
    jwk = {name: value for name, value in public(alg=alg).items() if value is not None}
    with pytest.raises(UnauthenticatedError, match="one public key"):
        proven(wit(cnf={"jwk": jwk}))


def test_its_issuer_finds_no_keys() -> None:
    assert proven(wit(iss="spiffe://other.example")).id == DOMAIN.id()
    stranger = Domain("stranger.example")
    with pytest.raises(UnauthenticatedError, match="not configured"):
        proven(wit(domain=stranger, iss="spiffe://prod.example"))


def test_the_key_of_one_trust_domain_signs_nothing_for_another() -> None:
    with pytest.raises(UnauthenticatedError, match="signature"):
        proven(wit(domain=OTHER, sub=DOMAIN.id()))


def test_a_key_for_another_use_signs_no_token() -> None:
    claims = {"sub": DOMAIN.id(), "exp": AT + 60, "cnf": {"jwk": public()}}
    for kid in ("wit-1", "jwt-1"):
        with pytest.raises(UnauthenticatedError):
            proven(signed(DOMAIN.jwt_key, {"alg": "ES256", "kid": kid, "typ": "wit+jwt"}, claims))


def test_both_schemes_name_workloads_and_each_is_allowed_apart() -> None:
    assert proven(wit(sub="wimse://prod.example/agents/a")).id == "wimse://prod.example/agents/a"


def test_without_a_bundle_nobody_is_believed() -> None:
    with pytest.raises(UnavailableError):
        proven(wit(), at=wits(prod_example=Held(b"", out=True)))


# -- the proof --------------------------------------------------------------------------------------------------------


def test_a_proof_by_another_key_or_for_another_token_is_refused() -> None:
    token, other = wit(), FileSigner(ec.generate_private_key(ec.SECP256R1()))
    for bad in (proof(token, other), proof(wit(jti="another")), token, ""):
        with pytest.raises(UnauthenticatedError):
            proven(token, bad or ".")


def test_a_proof_counts_once_whatever_token_of_its_key_it_comes_with() -> None:
    made, token = wits(), wit()
    first = proven(token, at=made)
    for again in (proof(token), proof(token, exp=AT + 90)):
        with pytest.raises(ReplayError):
            proven(token, again, at=made)
    second = proven(token, proof(token, jti="k" * 22), at=made)
    assert first.digest != second.digest


def test_the_same_name_by_another_key_is_another_proof() -> None:
    made, other = wits(), FileSigner(ec.generate_private_key(ec.SECP256R1()))
    theirs = wit(cnf={"jwk": public(other)})
    assert proven(wit(), at=made).digest != proven(theirs, proof(theirs, other), at=made).digest


def test_a_proof_that_is_refused_is_not_used_up() -> None:
    made, token = wits(), wit()
    with pytest.raises(UnauthenticatedError):
        asyncio.run(made.proven(token, proof(token), TARGET, "a token that it does not cover"))
    assert proven(token, at=made).id == DOMAIN.id()


def test_what_is_remembered_is_bounded_and_full_means_no() -> None:
    clock = Times()
    made, token = wits(clock, 2), wit()
    for jti in ("a" * 22, "b" * 22):
        proven(token, proof(token, jti=jti), at=made)
    with pytest.raises(LimitError):
        proven(token, proof(token, jti="c" * 22), at=made)
    clock.at = NOW + timedelta(seconds=69)
    with pytest.raises(ReplayError):  # as it could pass for so long
        proven(token, proof(token, jti="a" * 22), at=made)
    clock.at = NOW + timedelta(seconds=70)
    assert proven(token, proof(token, jti="c" * 22, exp=AT + 90), at=made).id == DOMAIN.id()


# -- a token alone, for whoever proves its key -------------------------------------------------------------------------


def test_a_token_alone_names_its_workload_and_the_key_that_is_to_be_proven() -> None:
    found = asyncio.run(wits().named(wit()))
    assert (found.id, found.method, found.jkt) == (DOMAIN.id(), "wit", AGENT.kid)


@pytest.mark.parametrize(
    "token",
    [wit(domain=OTHER, sub=DOMAIN.id()), wit(aud=TARGET), wit(cnf=None), wit(exp=AT - 3600), wit({"typ": "jwt"})],
    ids=["of another trust domain", "with an audience", "without a key", "ended", "of another type"],
)
def test_a_token_alone_is_held_to_the_same(token: str) -> None:
    with pytest.raises(UnauthenticatedError):
        asyncio.run(wits().named(token))
