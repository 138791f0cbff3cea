"""Whatever a workload or the source of a bundle sends: it is read, or refused with one of our errors."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from remit import jose
from remit.core.principal import JWT_SPIFFE, Workload
from remit.errors import RemitError, UnauthenticatedError, UnavailableError
from remit.identity.workloads import bundles
from remit.identity.workloads.attested import AttestedWorkloads
from remit.identity.workloads.bundles import SpiffeBundle, TrustBundles
from remit.keys.signers import FileSigner
from tests.fuzz.test_token import ALPHABET, JSON
from tests.identity.spire import NOW, Domain, Held, Times, signed

ISSUER = "https://remit.example"
TARGET = f"{ISSUER}/oauth/token"
AT = int(NOW.timestamp())
DOMAIN = Domain("prod.example")
BUNDLES = TrustBundles({DOMAIN.name: Held(DOMAIN.bundle())}, Times())
ALLOW = ("spiffe://prod.example/**",)
SVIDS = AttestedWorkloads({}, ISSUER, Times(), BUNDLES, ALLOW)
KEY = FileSigner(ec.generate_private_key(ec.SECP256R1()))

GOOD = DOMAIN.jwt(ISSUER)
LEAF = DOMAIN.svid().ders[0]
JWK = {name: value for name, value in KEY.public_jwk().items() if name in {"kty", "crv", "x", "y"}} | {"alg": "ES256"}
WIT = {"sub": DOMAIN.id(), "exp": AT + 600, "cnf": {"jwk": JWK}}
BUNDLE = json.loads(DOMAIN.bundle())


def wit(claims: dict[str, object]) -> str:
    return signed(DOMAIN.wit_key, {"alg": "ES256", "kid": "wit-1", "typ": "wit+jwt"}, claims)


def wpt(of: str, **claims: object) -> str:
    body = {"aud": TARGET, "exp": AT + 60, "jti": "j" * 22, "wth": jose.digest(of), **claims}
    text = ".".join(jose.encode(json.dumps(part).encode()) for part in ({"typ": "wpt+jwt", "alg": "ES256"}, body))
    return f"{text}.{jose.encode(KEY.sign(text.encode()))}"


def proven(token: str, proof: str) -> Workload:
    return asyncio.run(AttestedWorkloads({}, ISSUER, Times(), BUNDLES, ALLOW).proven(token, proof, TARGET, None))


def refused(text: str) -> None:
    with pytest.raises(RemitError) as caught:
        asyncio.run(SVIDS.assertion(text, JWT_SPIFFE))
    assert isinstance(caught.value, UnauthenticatedError)


def test_what_is_changed_below_is_good_as_it_is() -> None:
    assert asyncio.run(SVIDS.assertion(GOOD, JWT_SPIFFE)).id == DOMAIN.id()
    assert asyncio.run(SVIDS.certified([LEAF])).id == DOMAIN.id()
    token = wit(WIT)
    assert proven(token, wpt(token)).id == DOMAIN.id()


@given(st.text(max_size=200))
def test_no_text_is_an_svid_by_chance(text: str) -> None:
    refused(text)


@given(st.integers(0, len(GOOD) - 1), st.sampled_from(ALPHABET))
def test_no_character_of_an_svid_can_be_replaced(index: int, char: str) -> None:
    if GOOD[index] != char:
        refused(GOOD[:index] + char + GOOD[index + 1 :])


@given(st.sampled_from(["sub", "aud", "exp", "iat", "nbf", "jti", "iss"]), JSON)
def test_whatever_stands_in_a_claim_of_an_svid_it_names_who_its_key_may_name(name: str, value: object) -> None:
    claims = {"sub": DOMAIN.id(), "aud": ISSUER, "exp": AT + 60, name: value}
    with suppress(UnauthenticatedError):
        found = asyncio.run(
            SVIDS.assertion(signed(DOMAIN.jwt_key, {"alg": "ES256", "kid": "jwt-1"}, claims), JWT_SPIFFE)
        )
        assert found.id == claims["sub"]
        assert claims["aud"] in (ISSUER, [ISSUER])


@given(st.sampled_from(["sub", "exp", "iat", "nbf", "cnf", "aud", "iss", "other"]), JSON)
def test_whatever_stands_in_a_claim_of_a_wit_it_names_who_its_key_may_name(name: str, value: object) -> None:
    claims = {**WIT, name: value}
    token = wit(claims)
    with suppress(UnauthenticatedError):
        assert proven(token, wpt(token)).id == claims["sub"]


@given(st.sampled_from(["aud", "exp", "jti", "wth", "ath", "tth", "oth", "iat"]), JSON)
def test_whatever_stands_in_a_claim_of_a_proof_it_proves_this_request_or_nothing(name: str, value: object) -> None:
    token = wit(WIT)
    with suppress(UnauthenticatedError):
        proven(token, wpt(token, **{name: value}))
        assert name in {"iat", "exp", "jti"} or (name == "ath" and value is None)


@given(st.integers(0, len(LEAF) - 1), st.integers(1, 255))
def test_no_octet_of_a_certificate_can_be_changed(index: int, by: int) -> None:
    changed = bytearray(LEAF)
    changed[index] ^= by
    with pytest.raises(RemitError) as caught:
        asyncio.run(SVIDS.certified([bytes(changed)]))
    assert isinstance(caught.value, UnauthenticatedError)


@given(st.lists(st.binary(max_size=100), max_size=4))
def test_no_octets_are_a_chain_by_chance(chain: list[bytes]) -> None:
    with pytest.raises(UnauthenticatedError):
        asyncio.run(SVIDS.certified(chain))


@given(st.binary(max_size=200))
def test_octets_are_a_bundle_or_none(raw: bytes) -> None:
    with suppress(UnavailableError):
        assert bundles.parse(DOMAIN.name, raw).domain == DOMAIN.name


@given(st.integers(0, 2), st.sampled_from(["use", "kid", "kty", "crv", "x", "y", "x5c", "alg", "key_ops"]), JSON)
def test_whatever_stands_in_a_key_of_a_bundle_the_others_count(index: int, name: str, value: object) -> None:
    keys = [dict(one) for one in BUNDLE["keys"]]
    keys[index][name] = value
    found = bundles.parse(DOMAIN.name, json.dumps({"keys": keys}).encode())
    whole = bundles.parse(DOMAIN.name, DOMAIN.bundle())
    for place, part in enumerate(("authorities", "jwt", "wit")):
        assert place == index or getattr(found, part) == getattr(whole, part)


@given(JSON, JSON, JSON)
def test_whatever_stands_in_a_bundle_it_is_one_or_none(keys: object, hint: object, sequence: object) -> None:
    document = {"keys": keys, "spiffe_refresh_hint": hint, "spiffe_sequence": sequence}
    with suppress(UnavailableError):
        assert isinstance(bundles.parse(DOMAIN.name, json.dumps(document).encode()), SpiffeBundle)
