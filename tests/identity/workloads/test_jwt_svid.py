from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from remit import jose
from remit.core.principal import JWT_SPIFFE, Workload
from remit.errors import AudienceError, RemitError, UnauthenticatedError, UnavailableError
from remit.identity.workloads.attested import MAX_JWT_LIFE, AttestedWorkloads
from remit.identity.workloads.bundles import RETRY, TrustBundles
from remit.jose.jwt import SKEW
from tests.identity.spire import NOW, Domain, Held, Times, b64, jwk_of, key, signed

ISSUER = "https://remit.example"
MINE = key()
AT = int(NOW.timestamp())
DOMAIN = Domain("prod.example")
OTHER = Domain("other.example")
ALLOW = ("spiffe://prod.example/ns/agents/*", "spiffe://other.example/**")


def svids(clock: Times | None = None, once: tuple[str, ...] = (), **sources: Held) -> AttestedWorkloads:
    held = {one.name: Held(one.bundle()) for one in (DOMAIN, OTHER)}
    named = {name.replace("_", "."): source for name, source in sources.items()}
    times = clock or Times()
    return AttestedWorkloads({}, ISSUER, times, TrustBundles({**held, **named}, times), ALLOW, once)


def verified(text: str, by: AttestedWorkloads | None = None) -> Workload:
    return asyncio.run((by or svids()).assertion(text, JWT_SPIFFE))


def test_a_jwt_svid_for_this_server_names_its_workload() -> None:
    found = verified(DOMAIN.jwt(ISSUER))
    assert (found.id, found.method, found.jkt, found.x5t) == (DOMAIN.id(), "jwt-svid", None, None)
    assert int(found.expires_at.timestamp()) == AT + 300


@pytest.mark.parametrize("audience", [ISSUER, [ISSUER]])
def test_the_audience_is_this_server_alone(audience: object) -> None:
    assert verified(DOMAIN.jwt(audience)).id == DOMAIN.id()


@pytest.mark.parametrize(
    "audience",
    [
        None,
        [],
        "",
        7,
        [ISSUER, "https://other.example"],
        [ISSUER, ISSUER],
        [[ISSUER]],
        f"{ISSUER}/",
        f"{ISSUER}/oauth/token",
        ISSUER.upper(),
        "https://other.example",
    ],
)
def test_one_for_others_or_for_several_is_refused(audience: object) -> None:
    with pytest.raises(AudienceError):
        verified(DOMAIN.jwt(audience))


@pytest.mark.parametrize(
    "sub",
    [
        None,
        "",
        7,
        "planner",
        "spiffe://prod.example",
        "spiffe://prod.example/",
        "spiffe://prod.example/ns/agents/planner/",
        "spiffe://prod.example//agents",
        "spiffe://prod.example/ns/../ns/agents/planner",
        "spiffe://prod.example/ns/agents/%70lanner",
        "spiffe://PROD.example/ns/agents/planner",
        "spiffe://prod.example:443/ns/agents/planner",
        "spiffe://user@prod.example/ns/agents/planner",
        "spiffe://prod.example/ns/agents/planner?a=b",
        "SPIFFE://prod.example/ns/agents/planner",
        "spiffe://prod.example/ns/agents/*",
    ],
)
def test_a_subject_that_is_no_workload_is_refused(sub: object) -> None:
    with pytest.raises(UnauthenticatedError):
        verified(DOMAIN.jwt(ISSUER, sub=sub))


def test_a_trust_domain_is_no_workload_of_its_own() -> None:
    with pytest.raises(UnauthenticatedError, match="not a workload"):
        verified(DOMAIN.jwt(ISSUER, sub="spiffe://prod.example"))


@pytest.mark.parametrize(
    "path", ["/ns/agents", "/ns/agents/planner/child", "/ns/agentsx/planner", "/ns/Agents/planner"]
)
def test_a_name_that_no_pattern_allows_is_refused(path: str) -> None:
    with pytest.raises(UnauthenticatedError, match="pattern"):
        verified(DOMAIN.jwt(ISSUER, sub=DOMAIN.id(path)))


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": None},
        {"exp": AT},
        {"exp": AT - 1},
        {"exp": "soon"},
        {"exp": True},
        {"exp": AT + int((MAX_JWT_LIFE + SKEW).total_seconds()) + 1},
        {"nbf": AT + 61},
        {"iat": AT + 61},
        {"nbf": "now"},
        {"iat": False},
    ],
)
def test_one_that_does_not_count_now_is_refused(claims: dict[str, object]) -> None:
    with pytest.raises(UnauthenticatedError):
        verified(DOMAIN.jwt(ISSUER, {}, **claims))


@pytest.mark.attack("CLK-04")
def test_clocks_may_differ_by_a_minute_at_its_beginning_and_not_at_its_end() -> None:
    assert verified(DOMAIN.jwt(ISSUER, iat=AT + 60, nbf=AT + 60)).id == DOMAIN.id()
    assert verified(DOMAIN.jwt(ISSUER, exp=AT + 1, iat=None)).id == DOMAIN.id()


@pytest.mark.parametrize("typ", ["JWT", "JOSE"])
def test_its_type_may_be_named(typ: str) -> None:
    assert verified(DOMAIN.jwt(ISSUER, {"typ": typ})).id == DOMAIN.id()


@pytest.mark.parametrize(
    "header",
    [
        {"typ": "jwt"},
        {"typ": "at+jwt"},
        {"typ": "application/jwt"},
        {"typ": ""},
        {"crit": ["exp"]},
        {"zip": "DEF"},
        {"kid": "unknown"},
    ],
)
def test_a_header_that_a_jwt_svid_does_not_have_is_refused(header: dict[str, object]) -> None:
    with pytest.raises(UnauthenticatedError):
        verified(DOMAIN.jwt(ISSUER, header))


@pytest.mark.parametrize(
    "header", [{"jku": "https://evil.example/keys"}, {"x5c": ["AAAA"]}, {"jwk": jwk_of(MINE)}, {"cty": "JWT"}]
)
def test_what_its_header_says_beside_is_not_followed(header: dict[str, object]) -> None:
    assert verified(DOMAIN.jwt(ISSUER, header)).id == DOMAIN.id()
    claims = {"sub": DOMAIN.id(), "aud": ISSUER, "exp": AT + 60}
    for kid in ({}, {"kid": "jwt-1"}):
        with pytest.raises(UnauthenticatedError, match="signature"):
            verified(signed(MINE, {"alg": "ES256", **header, **kid}, claims))


def test_a_key_id_may_be_left_out_where_one_key_alone_could_have_signed() -> None:
    claims = {"sub": DOMAIN.id(), "aud": ISSUER, "exp": AT + 60}
    text = signed(DOMAIN.jwt_key, {"alg": "ES256"}, claims)
    assert verified(text).id == DOMAIN.id()
    second = jwk_of(key(), use="jwt-svid", kid="jwt-2")
    both = json.dumps({"keys": [jwk_of(DOMAIN.jwt_key, use="jwt-svid", kid="jwt-1"), second]}).encode()
    with pytest.raises(UnauthenticatedError, match="several keys"):
        verified(text, svids(prod_example=Held(both)))


@pytest.mark.parametrize("alg", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
def test_rsa_algorithms_of_the_specification_are_taken(alg: str) -> None:
    strong = rsa.generate_private_key(65537, 2048)
    domain = Domain("prod.example", jwt_key=strong)
    assert verified(domain.jwt(ISSUER, {"alg": alg}), svids(prod_example=Held(domain.bundle()))).id == DOMAIN.id()


def _forged(alg: str, sign: Callable[[bytes], bytes]) -> str:
    claims = {"sub": DOMAIN.id(), "aud": ISSUER, "exp": AT + 60}
    head, body = (jose.encode(json.dumps(part).encode()) for part in ({"alg": alg, "kid": "jwt-1"}, claims))
    return f"{head}.{body}.{jose.encode(sign(f'{head}.{body}'.encode()))}"


@pytest.mark.parametrize("alg", ["none", "HS256", "EdDSA", "Ed25519", "ES256K", "es256", "RS256"])
def test_any_other_algorithm_is_refused(alg: str) -> None:
    with pytest.raises(UnauthenticatedError):
        verified(_forged(alg, lambda data: data[:64]))


def test_a_signature_that_does_not_hold_is_refused() -> None:
    whole = DOMAIN.jwt(ISSUER)
    head, body, signature = whole.split(".")
    changed = json.loads(jose.decode(body)) | {"sub": DOMAIN.id("/ns/agents/admin")}
    other = jose.encode(json.dumps(changed).encode())
    for text in (
        f"{head}.{other}.{signature}",
        f"{head}.{body}.",
        f"{head}.{body}",
        f"{whole}.{signature}",
        "",
        whole + "=",
    ):
        with pytest.raises(UnauthenticatedError):
            verified(text)


def test_the_key_of_one_trust_domain_signs_nothing_for_another() -> None:
    """Both have a key `jwt-1`; the subject says whose counts."""
    for key_of, name in ((OTHER, DOMAIN), (DOMAIN, OTHER)):
        claims = {"sub": name.id(), "aud": ISSUER, "exp": AT + 60}
        with pytest.raises(UnauthenticatedError, match="signature"):
            verified(signed(key_of.jwt_key, {"alg": "ES256", "kid": "jwt-1"}, claims))


@pytest.mark.parametrize("wrong", ["wit_key", "authority"])
def test_a_key_for_another_use_signs_no_jwt_svid(wrong: str) -> None:
    private = DOMAIN.wit_key if wrong == "wit_key" else DOMAIN.authority.key
    claims = {"sub": DOMAIN.id(), "aud": ISSUER, "exp": AT + 60}
    for kid in ("wit-1", "jwt-1"):
        with pytest.raises(UnauthenticatedError):
            verified(signed(private, {"alg": "ES256", "kid": kid}, claims))


def test_a_trust_domain_that_is_not_configured_is_refused() -> None:
    stranger = Domain("stranger.example")
    with pytest.raises(UnauthenticatedError, match="not configured"):
        verified(stranger.jwt(ISSUER))


def test_a_key_that_has_just_been_added_is_found() -> None:
    async def scene() -> None:
        source, clock = Held(DOMAIN.bundle()), Times()
        made = svids(clock, prod_example=source)
        assert (await made.assertion(DOMAIN.jwt(ISSUER), JWT_SPIFFE)).id == DOMAIN.id()
        fresh = key()
        new = jwk_of(fresh, use="jwt-svid", kid="jwt-2")
        source.raw = json.dumps({"keys": [new], "spiffe_sequence": 2}).encode()
        clock.pass_(seconds=RETRY.total_seconds())
        claims = {"sub": DOMAIN.id(), "aud": ISSUER, "exp": AT + 60}
        assert (
            await made.assertion(signed(fresh, {"alg": "ES256", "kid": "jwt-2"}, claims), JWT_SPIFFE)
        ).id == DOMAIN.id()
        with pytest.raises(UnauthenticatedError):
            await made.assertion(DOMAIN.jwt(ISSUER), JWT_SPIFFE)

    asyncio.run(scene())


def test_without_a_bundle_nobody_is_believed() -> None:
    with pytest.raises(UnavailableError):
        verified(DOMAIN.jwt(ISSUER), svids(prod_example=Held(b"", out=True)))


def test_one_that_says_it_is_unique_counts_once_and_one_that_does_not_may_be_sent_again() -> None:
    assert verified(DOMAIN.jwt(ISSUER)).digest is None
    text = DOMAIN.jwt(ISSUER, jti="one")
    first = verified(text).digest
    assert first is not None
    assert first == verified(text).digest
    assert first != verified(DOMAIN.jwt(ISSUER, jti="two")).digest


def test_those_of_a_trust_domain_that_is_said_to_make_each_anew_count_once_whatever_they_say() -> None:
    once = svids(once=(DOMAIN.name,))
    text = DOMAIN.jwt(ISSUER)
    assert verified(text, once).digest == verified(text, once).digest is not None
    assert verified(OTHER.jwt(ISSUER), once).digest is None


def test_one_that_was_used_is_known_again_with_another_signature_of_the_same() -> None:
    """Whoever sees an ECDSA signature (r, s) can make (r, n - s) of it, which verifies as well."""
    text, order = DOMAIN.jwt(ISSUER, jti="one"), 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    signed, _, signature = text.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    other = raw[:32] + (order - int.from_bytes(raw[32:], "big")).to_bytes(32, "big")
    assert verified(f"{signed}.{b64(other)}").digest == verified(text).digest


def test_claims_that_are_unknown_are_passed_over() -> None:
    assert verified(DOMAIN.jwt(ISSUER, iss="https://spire.example", shoe=42)).id == DOMAIN.id()


@pytest.mark.parametrize("text", ["", "a.b.c", "é" * 40, "." * 100, "{}", "a" * 40_000])
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(RemitError) as caught:
        verified(text)
    assert isinstance(caught.value, UnauthenticatedError)
