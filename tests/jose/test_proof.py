from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from remit import jose
from remit.errors import NonceRequiredError, ProofError
from remit.jose import proof as proofs
from remit.jose.proof import Expected, Nonces
from tests.oauth.plane import Agent, ed25519_agent, jws

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
SECONDS = int(NOW.timestamp())
NONCES = Nonces(b"k" * 32)
URL = "http://127.0.0.1:8470/v1/self"
TOKEN = "a.b.c"
EXPECTED = Expected("GET", URL, SECONDS, NONCES, TOKEN)
AGENT = Agent()


def made(agent: Agent = AGENT, token: str | None = TOKEN, **claims: object) -> str:
    return agent.proof("GET", URL, NOW, NONCES.at(SECONDS), token, **claims)


@pytest.mark.parametrize("agent", [AGENT, ed25519_agent()])
def test_a_proof_proves_its_key(agent: Agent) -> None:
    assert proofs.read([made(agent)], EXPECTED).jkt == agent.signer.kid


@pytest.mark.parametrize("count", [0, 2])
def test_there_must_be_exactly_one_proof(count: int) -> None:
    with pytest.raises(ProofError, match="exactly one"):
        proofs.read([made()] * count, EXPECTED)


@pytest.mark.parametrize(
    "text", ["", "a", "a.b.c", f"{made()}, {made()}", f"{made()} "], ids=["nothing", "a part", "no JSON", "two", "more"]
)
def test_it_must_be_one_well_formed_jws(text: str) -> None:
    with pytest.raises(ProofError):
        proofs.read([text], EXPECTED)


@pytest.mark.parametrize("name", ["jti", "htm", "htu", "iat", "ath", "nonce"])
def test_every_claim_must_be_there(name: str) -> None:
    with pytest.raises(ProofError):
        proofs.read([made(AGENT, TOKEN, **{name: None})], EXPECTED)


@pytest.mark.parametrize("typ", ["JWT", "at+jwt", "DPOP+JWT", "dpop"])
def test_its_type_must_be_that_of_a_proof(typ: str) -> None:
    text = jws({"typ": typ, "alg": "ES256", "jwk": AGENT.jwk}, {}, AGENT.signer.sign)
    with pytest.raises(ProofError, match="not a proof"):
        proofs.read([text], EXPECTED)


@pytest.mark.parametrize("algorithm", ["none", "HS256", "RS256", "EdDSA"])
def test_its_algorithm_must_be_one_of_its_key(algorithm: str) -> None:
    text = jws({"typ": "dpop+jwt", "alg": algorithm, "jwk": AGENT.jwk}, {}, AGENT.signer.sign)
    with pytest.raises(ProofError, match="algorithm"):
        proofs.read([text], EXPECTED)


def test_its_signature_must_be_by_the_key_it_names() -> None:
    text = jws({"typ": "dpop+jwt", "alg": "ES256", "jwk": AGENT.jwk}, {}, Agent().signer.sign)
    with pytest.raises(ProofError, match="signature"):
        proofs.read([text], EXPECTED)


def test_its_key_must_not_be_private() -> None:
    text = jws({"typ": "dpop+jwt", "alg": "ES256", "jwk": {**AGENT.jwk, "d": "AQ"}}, {}, AGENT.signer.sign)
    with pytest.raises(ProofError, match="private"):
        proofs.read([text], EXPECTED)


def test_a_key_by_reference_is_no_key() -> None:
    text = jws({"typ": "dpop+jwt", "alg": "ES256", "kid": "k", "jku": "https://a.test"}, {}, AGENT.signer.sign)
    with pytest.raises(ProofError, match="public JWK"):
        proofs.read([text], EXPECTED)


def test_what_its_header_says_beside_is_ignored() -> None:
    claims = made(AGENT).split(".")[1]
    payload = jose.decode(claims)
    header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": AGENT.jwk, "kid": "k", "x5c": ["AA"], "jku": "https://a.test"}
    assert proofs.read([jws(header, payload, AGENT.signer.sign)], EXPECTED).jkt == AGENT.signer.kid
    for name in ("crit", "b64", "zip"):
        with pytest.raises(ProofError, match="header"):
            proofs.read([jws({**header, name: "x"}, payload, AGENT.signer.sign)], EXPECTED)


def test_a_client_that_sends_no_proof_is_told_what_one_is() -> None:
    with pytest.raises(ProofError) as caught:
        proofs.read([], EXPECTED)
    assert "DPoP" in str(caught.value.help)


@pytest.mark.parametrize("htm", ["POST", "get", "GET ", "", 1])
def test_it_must_be_for_the_method(htm: object) -> None:
    with pytest.raises(ProofError, match="htm"):
        proofs.read([made(htm=htm)], EXPECTED)


@pytest.mark.parametrize("ath", ["", "AA", 1, AGENT.jwk])
def test_it_must_be_for_the_token(ath: object) -> None:
    with pytest.raises(ProofError, match="ath"):
        proofs.read([made(ath=ath)], EXPECTED)


def test_without_a_token_no_digest_is_asked_for() -> None:
    assert proofs.read([made(token=None)], replace(EXPECTED, token=None)).jkt == AGENT.signer.kid


@pytest.mark.parametrize("jti", ["", "short", "x" * 129, "with space", 7, ["abcdefgh"]])
def test_its_jti_must_be_one_that_can_be_remembered(jti: object) -> None:
    with pytest.raises(ProofError, match="jti"):
        proofs.read([made(jti=jti)], EXPECTED)


@pytest.mark.attack("CLK-04")
@pytest.mark.parametrize("seconds", [-70, -60, 0, 10])
def test_it_is_good_in_its_window(seconds: int) -> None:
    assert proofs.read([made(iat=SECONDS + seconds)], EXPECTED).iat == SECONDS + seconds


@pytest.mark.parametrize("iat", [SECONDS - 71, SECONDS + 11, 0, 2**53, "now", 1.5, True, SECONDS + 0.0])
def test_it_is_not_good_outside_its_window(iat: object) -> None:
    with pytest.raises(ProofError):
        proofs.read([made(iat=iat)], EXPECTED)


@pytest.mark.parametrize("nonce", ["", "AAAA", "é", Nonces(b"o" * 32).at(SECONDS), NONCES.at(SECONDS + 60)])
def test_a_nonce_that_is_not_ours_asks_for_one(nonce: str) -> None:
    with pytest.raises(NonceRequiredError):
        proofs.read([made(nonce=nonce)], EXPECTED)


def test_a_key_that_turned_makes_other_nonces_and_takes_those_of_the_one_before_it_alone() -> None:
    once, twice = NONCES.turned(b"l" * 32), NONCES.turned(b"l" * 32).turned(b"m" * 32)
    before, now = NONCES.at(SECONDS), once.at(SECONDS)
    assert before != now
    assert [nonces.good(before, SECONDS) for nonces in (NONCES, once, twice)] == [True, True, False]
    assert [nonces.good(now, SECONDS) for nonces in (NONCES, once, twice)] == [False, True, True]
    assert not once.good(before, SECONDS + 120)


def test_a_nonce_is_good_for_its_minute_and_the_next() -> None:
    nonce = NONCES.at(SECONDS)
    assert [NONCES.good(nonce, SECONDS + at) for at in (-60, 0, 59, 60, 119, 120)] == [
        *(False, True, True, True, True, False),
    ]


TARGET = "https://gw.test/v1/~x"


@pytest.mark.parametrize(
    "htu",
    [
        TARGET,
        "HTTPS://gw.test/v1/~x",
        "https://GW.test/v1/~x",
        "https://gw.test:443/v1/~x",
        "https://gw.test:/v1/~x",
        "https://gw.test/v1/%7ex",
        "https://gw.test/v1/%7Ex",
        "https://gw.test/v1/./~x",
        "https://gw.test/v1/y/../~x",
        "https://gw.test/v1/~x?q=1",
        "https://gw.test/v1/~x#f",
        "https://gw.test/v1/~x?",
    ],
)
def test_targets_equal_after_normalisation_are_the_same(htu: str) -> None:
    assert proofs.same_target(htu, TARGET)


@pytest.mark.parametrize(
    "htu",
    [
        "",
        7,
        None,
        "/v1/~x",
        "http://gw.test/v1/~x",
        "https://gw.test./v1/~x",
        "https://gw.test:0/v1/~x",
        "https://gw.test:444/v1/~x",
        "https://gw.test:99999/v1/~x",
        "https://other.test/v1/~x",
        "https://gw.test//v1/~x",
        "https://gw.test/v1/~x/",
        "https://gw.test/v1/~X",
        "https://gw.test/v1%2F~x",
        "https://gw.test/v1/%",
        "https://u@gw.test/v1/~x",
        "https://gw.test/v1/~x\n",
        "https://gw.test/v1/~x ",
        "https:\\\\gw.test/v1/~x",
        "https://@gw.test/v1/~x",
        "https://gw.te\nst/v1/~x",
        "https://gw.test/v1/\t~x",
        "https://gw。test/v1/~x",
        "https:///gw.test/v1/~x",
        "https://gw.test/v1\\~x",
        "https://gw.test/v1/~x" + "?" * 3_000,
    ],
)
def test_any_other_target_is_another(htu: object) -> None:
    assert not proofs.same_target(htu, TARGET)


def test_an_empty_path_is_the_root() -> None:
    assert proofs.same_target("https://gw.test", "https://gw.test/")


@pytest.mark.parametrize(
    ("htu", "same"), [("https://gw.test/a/.", "https://gw.test/a/"), ("https://gw.test/a/b/..", "https://gw.test/a/")]
)
def test_a_dot_segment_at_the_end_leaves_a_slash(htu: str, same: str) -> None:
    assert proofs.same_target(htu, same)
