"""Other people's tokens, key sets and discovery documents, of any shape: read, or refused as they should be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit import jose
from remit.core.principal import Human
from remit.errors import InvalidRequestError, RemitError, TokenError, UnauthenticatedError
from remit.identity.humans import IssuedHumans, Registration
from remit.identity.issuers import read_metadata
from remit.identity.workloads.attested import OidcWorkloads, WorkloadRule
from remit.jose import jwt
from remit.jose.jwt import JwtProfile
from remit.jose.keys import ALGORITHMS, KeySet, key_set, read_key_set
from remit.sessions.events import LOGOUT, EventIssuer, IssuedSignals
from tests.fuzz.test_token import ALPHABET, JSON
from tests.identity.issuing import URL, Clock, Site, ec, issuer, okp, public, rsa, signed

CLOCK = Clock()
BROKER = "https://remit.test"
RULES = JwtProfile(frozenset({"", "jwt"}))
CLAIMS: Mapping[str, Any] = {
    "iss": URL,
    "sub": "alice",
    "aud": "remit",
    "iat": CLOCK.at(),
    "exp": CLOCK.at(minutes=5),
    "auth_time": CLOCK.at(),
    "acr": "phr",
    "amr": ["pwd"],
    "sid": "s",
    "groups": ["g"],
    "realm": {"roles": ["r"]},
}
GOOD = signed(CLAIMS)
KEYS = key_set([public(ec())])
NAMES = st.sampled_from([*CLAIMS, "azp", "nonce", "nbf", "jti", "events", "sub_id", "_claim_names", "client_id", "cnf"])
LIKE = JSON | st.sampled_from([URL, "remit", BROKER, CLOCK.at(), ["remit"], {LOGOUT: {}}, {"format": "iss_sub"}])
OVER = st.dictionaries(NAMES, LIKE, max_size=4)


def verified(text: str) -> None:
    KEYS.verify(jwt.read(text, RULES).compact)


@given(st.text(max_size=200))
def test_no_text_is_a_token_by_chance(text: str) -> None:
    with pytest.raises(TokenError):
        verified(text)


@given(st.integers(0, len(GOOD) - 1), st.sampled_from(ALPHABET))
def test_no_character_of_a_token_can_be_replaced(index: int, char: str) -> None:
    if GOOD[index] != char:
        with pytest.raises(TokenError):
            verified(GOOD[:index] + char + GOOD[index + 1 :])


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 40))
def test_nothing_can_be_cut_from_a_token(start: int, length: int) -> None:
    with pytest.raises(TokenError):
        verified(GOOD[:start] + GOOD[start + length :])


@given(st.dictionaries(st.sampled_from(["alg", "kid", "typ", "x5t", "crit", "jwk", "jku", "b64"]), JSON, max_size=4))
def test_whatever_stands_in_a_header_nothing_unsigned_is_believed(header: dict[str, object]) -> None:
    parts = (json.dumps(part).encode() for part in (header, dict(CLAIMS)))
    text = ".".join(jose.encode(part) for part in parts)
    with pytest.raises(TokenError):
        verified(f"{text}.{GOOD.rpartition('.')[2]}")


def _humans() -> IssuedHumans:
    clock = Clock()
    at = Registration(issuer(Site(keys=[public(ec())]), clock), "remit", groups="/realm/roles", id_jag=True)
    return IssuedHumans((at,), BROKER, clock)


@given(OVER)
def test_whatever_an_issuer_says_of_a_human_is_whole_or_refused(over: dict[str, object]) -> None:
    for read in (_humans().id_token, _grant):
        try:
            human = asyncio.run(read(signed({**CLAIMS, **over})))
        except RemitError:
            continue
        assert isinstance(human, Human)
        assert human.subject.sub.startswith(f"{URL}#")
        assert human.client == "remit"
        assert human.until <= CLOCK.now + timedelta(hours=13)
        assert all(isinstance(item, str) for item in (*human.subject.groups, *human.subject.amr, human.subject.acr))


async def _grant(token: str) -> Human:
    claims = {**json.loads(jose.decode(token.split(".")[1])), "aud": BROKER, "client_id": "remit", "jti": "j"}
    return await _humans().id_jag(signed(claims, typ="oauth-id-jag+jwt"), "remit")


@given(OVER)
def test_whatever_a_platform_says_of_a_workload_only_what_matches_is_let_in(over: dict[str, object]) -> None:
    clock = Clock()
    rule = WorkloadRule(issuer(Site(keys=[public(ec())]), clock), "remit", {"sub": ("alice",)}, ("/realm/roles", "acr"))
    told = {**CLAIMS, **over}
    try:
        workload = asyncio.run(OidcWorkloads((rule,), clock).assertion(signed(told)))
    except UnauthenticatedError:
        return
    assert (workload.id, told["sub"]) == (f"{URL}#alice", "alice")
    assert told["aud"] in ("remit", ["remit"])
    assert all(isinstance(value, str) for value in workload.claims.values())


@given(OVER, st.sampled_from(["secevent+jwt", "logout+jwt"]))
def test_whatever_a_transmitter_says_is_about_its_own_humans_or_refused(over: dict[str, object], typ: str) -> None:
    clock = Clock()
    source = EventIssuer(issuer(Site(keys=[public(ec())]), clock), frozenset({"remit"}), about=URL)
    made = IssuedSignals({URL: source}, clock)
    told: dict[str, Any] = {"jti": "j", "events": {LOGOUT: {}}, **CLAIMS, **over}
    try:
        found = asyncio.run((made.logout if typ == "logout+jwt" else made.event)(signed(told, typ=typ)))
    except (UnauthenticatedError, InvalidRequestError):
        return
    for signal in found:
        assert signal.at <= CLOCK.now + jwt.SKEW
        assert all(name is None or name.startswith(f"{URL}#") for name in (signal.sub, signal.sid))


# -- documents --------------------------------------------------------------------------------------------------------

PUBLISHED: list[dict[str, object]] = [public(ec()), public(rsa()), public(okp()), {"kty": "oct", "k": "AA"}]
JWK = st.sampled_from(PUBLISHED).flatmap(
    lambda jwk: st.dictionaries(
        st.sampled_from(["kty", "crv", "x", "y", "n", "e", "d", "kid", "use", "alg", "key_ops"]), JSON, max_size=3
    ).map(lambda over: {**jwk, **over})
)


@given(st.lists(JWK | JSON, max_size=4))
def test_whatever_is_in_a_key_set_only_public_keys_of_the_usual_kinds_come_out(jwks: list[object]) -> None:
    found = key_set(jwks)
    assert len(found.keys) <= len(jwks)
    for key in found.keys:
        assert key.algorithms <= ALGORITHMS
        assert key.kid is None or isinstance(key.kid, str)
        assert not key.key.is_private


def _raw(read: Callable[[bytes], object], raw: bytes) -> object | None:
    """Return what a reader reads, or None where it refuses as it should."""
    try:
        return read(raw)
    except InvalidRequestError:
        return None


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_are_a_document_by_chance(raw: bytes) -> None:
    assert _raw(lambda found: read_metadata(found, URL), raw) is None
    keys = _raw(read_key_set, raw)
    assert keys is None or keys == KeySet(())


@given(st.dictionaries(st.sampled_from([*json.loads(Site().document()), "x"]), JSON, max_size=3))
def test_whatever_a_discovery_document_says_every_address_in_it_is_https(over: dict[str, object]) -> None:
    told = json.dumps({**json.loads(Site().document()), **over}).encode()
    found: Any = _raw(lambda raw: read_metadata(raw, URL), told)
    if found is not None:
        assert found.issuer == URL
        ends = (found.jwks_uri, found.authorization_endpoint, found.token_endpoint)
        assert all(end is None or end.startswith("https://") for end in ends)
