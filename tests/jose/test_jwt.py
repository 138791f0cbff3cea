from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from joserfc.jwk import Key
from joserfc.jws import JWSRegistry

from remit import jose
from remit.errors import AudienceError, GrantTokenError, InvalidRequestError, RemitError, TokenError
from remit.jose import encode, jwt
from remit.jose.jwt import SKEW, Jwt, JwtProfile
from remit.jose.keys import MAX_KEYS, MAX_SET, KeySet, key_set, read_key_set
from tests.identity.issuing import START, Clock, ec, okp, public, rsa, signed, unsigned

RULES = JwtProfile(frozenset({"", "jwt"}))
CLAIMS: dict[str, object] = {"iss": "a", "sub": "b"}
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def keys(*published: Mapping[str, object]) -> KeySet:
    return read_key_set(json.dumps({"keys": published}).encode())


def verified(text: str, *published: Mapping[str, object]) -> Jwt:
    token = jwt.read(text, RULES)
    keys(*published).verify(token.compact)
    return token


# -- signatures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "alg"),
    [
        *((rsa(), alg) for alg in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
        (ec(), "ES256"),
        (ec("e-384", "P-384"), "ES384"),
        (ec("e-521", "P-521"), "ES512"),
        (okp(), "EdDSA"),
        (okp(), "Ed25519"),
    ],
)
def test_a_signature_holds_by_every_algorithm_that_is_accepted(key: Key, alg: str) -> None:
    token = verified(signed(CLAIMS, key, alg), public(key))
    assert (token.claims, token.alg, token.kid) == (CLAIMS, alg, key.kid)
    with pytest.raises(TokenError, match="not signed by a key"):
        verified(signed(CLAIMS, key, alg), public(ec("e-9")))


def test_a_token_without_a_signature_is_refused() -> None:
    for alg in ("none", "None", "NONE", "nOnE"):
        for signature in ("", "AA"):
            with pytest.raises(TokenError):
                jwt.read(unsigned(CLAIMS, {"alg": alg, "kid": "e-1"}, signature), RULES)


def test_a_public_key_is_no_secret_to_sign_with() -> None:
    published = json.dumps(public(rsa())).encode()
    text = unsigned(CLAIMS, {"alg": "HS256", "kid": "r-1"})
    mac = hmac.digest(published, text[:-1].encode(), "sha256")
    with pytest.raises(TokenError, match="algorithm"):
        verified(text + encode(mac), public(rsa()))


def test_a_symmetric_key_of_a_set_verifies_nothing() -> None:
    key = {"kty": "oct", "k": encode(b"s" * 32), "kid": "s-1", "alg": "HS256"}
    assert keys(key) == KeySet(())


def test_a_signature_by_another_key_of_the_same_name_does_not_hold() -> None:
    with pytest.raises(TokenError, match="signature"):
        verified(signed(CLAIMS, ec("e-9"), kid="e-1"), public(ec()))


def test_a_key_verifies_by_its_own_algorithm_alone() -> None:
    with pytest.raises(TokenError, match="not signed by a key"):
        verified(signed(CLAIMS, rsa(), "PS256"), public(rsa(), alg="RS256"))
    assert verified(signed(CLAIMS, rsa(), "RS256"), public(rsa(), alg="RS256")).kid == "r-1"


def test_a_signature_of_a_curve_has_its_curve_s_length() -> None:
    text = signed(CLAIMS)
    head, _, signature = text.rpartition(".")
    raw = jose.decode(signature)
    for wrong in (raw[:-1], raw + b"\0", raw[:32] + b"\0" + raw[32:], b"\0" * 64):
        with pytest.raises(TokenError, match="signature"):
            verified(f"{head}.{encode(wrong)}", public(ec()))


def test_the_digest_of_a_token_is_the_same_whoever_rewrote_its_signature() -> None:
    text = signed(CLAIMS)
    head, _, signature = text.rpartition(".")
    raw = jose.decode(signature)
    r, s = int.from_bytes(raw[:32]), int.from_bytes(raw[32:])
    other = r.to_bytes(32) + (P256_ORDER - s).to_bytes(32)
    rewritten = f"{head}.{encode(other)}"
    assert rewritten != text
    assert verified(rewritten, public(ec())).digest == verified(text, public(ec())).digest


# -- headers and claims as text ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "member",
    [
        {"crit": ["exp"]},
        {"crit": []},
        {"b64": "false"},
        {"b64": True},
        {"zip": "DEF"},
        {"kid": 7},
        {"typ": ["JWT"]},
    ],
)
def test_a_header_that_changes_the_meaning_or_holds_no_text_is_refused(member: dict[str, object]) -> None:
    with pytest.raises(TokenError, match="header"):
        jwt.read(unsigned(CLAIMS, {"alg": "ES256", **member}, "AA"), RULES)


MINE = ec("mine")
HINTS: list[dict[str, object]] = [
    {"jku": "https://evil.test/keys"},
    {"x5u": "https://evil.test/keys"},
    {"x5c": ["AA"]},
    {"jwk": public(MINE)},
    {"cty": "JWT"},
    {"pi.atm": 3, "x5t": "AA", "x5t#S256": ["AA"]},
]


@pytest.mark.parametrize("member", HINTS)
def test_what_is_not_understood_in_a_header_is_ignored_and_never_followed(member: dict[str, object]) -> None:
    text = _with_header(ec(), member)
    assert verified(text, public(ec())).claims == CLAIMS
    assert jwt.read(text, RULES).compact.header.keys() <= {"alg", "kid", "typ"}
    for kid in (None, ec().kid):  # by the key that the header names, under the name of one that is trusted
        with pytest.raises(TokenError, match="sign"):
            verified(_with_header(MINE, {**member, "kid": kid}), public(ec()))


def _with_header(key: Key, member: dict[str, object]) -> str:
    told = {"alg": "ES256", "kid": key.kid, "typ": "JWT", **member}
    header = {name: value for name, value in told.items() if value is not None}
    head = ".".join(encode(json.dumps(part).encode()) for part in (header, CLAIMS))
    return f"{head}.{encode(JWSRegistry.algorithms['ES256'].sign(head.encode(), key))}"


@pytest.mark.parametrize("raw", [b'{"sub":"a","sub":"b"}', b"[]", b'"a"', b"{", b"\xff", b'{"n":NaN}'])
def test_claims_that_two_readers_could_read_differently_are_refused(raw: bytes) -> None:
    with pytest.raises(TokenError):
        jwt.read(signed(raw), RULES)


@pytest.mark.parametrize("typ", ["at+jwt", "logout+jwt", "secevent+jwt", "oauth-id-jag+jwt", "dpop+jwt", "JWE"])
def test_a_token_of_another_type_is_refused(typ: str) -> None:
    with pytest.raises(TokenError, match="type"):
        jwt.read(signed(CLAIMS, typ=typ), RULES)


@pytest.mark.parametrize("typ", ["JWT", "jwt", "application/jwt", None])
def test_the_type_of_a_token_is_read_as_rfc_7515_says(typ: str | None) -> None:
    assert jwt.read(signed(CLAIMS, typ=typ), RULES).claims == CLAIMS


@pytest.mark.parametrize("text", ["", ".", "a.b.c.d.e", "not a token", "\0", "ü.ü.ü"])
def test_text_that_is_no_token_raises_the_error_that_was_asked_for(text: str) -> None:
    with pytest.raises(GrantTokenError):
        jwt.read(text, JwtProfile(frozenset({""}), error=GrantTokenError))


# -- key sets ---------------------------------------------------------------------------------------------------------


def test_keys_that_are_weak_private_or_unknown_are_passed_over() -> None:
    point = public(ec())
    bad: list[Mapping[str, object]] = [
        {**public(rsa()), "n": encode((2**1023 + 1).to_bytes(128))},
        {**public(rsa()), "e": "Aw"},
        {**public(rsa()), "n": encode(b"\0" + jose.decode(str(public(rsa())["n"])))},
        ec().as_dict(private=True),
        rsa().as_dict(private=True),
        {**point, "crv": "secp256k1"},
        {**public(rsa()), "e": "AAEAAQ"},
        {**point, "x": point["y"]},
        {**point, "x": encode(b"\0" + jose.decode(str(point["x"])))},
        {**point, "x": ""},
        {**public(okp()), "x": 7},
        {**point, "x": "AA"},
        {**point, "use": "enc"},
        {**point, "use": 7},
        {**point, "key_ops": ["sign"]},
        {**point, "key_ops": "verify"},
        {**point, "alg": "ES384"},
        {**point, "alg": "none"},
        {**point, "kid": 7},
        {**public(okp()), "crv": "X25519"},
        {"kty": "AKP"},
        {},
    ]
    assert keys(*bad) == KeySet(())
    assert [key.kid for key in keys(*bad, point).keys] == ["e-1"]


def test_keys_for_one_use_are_found_by_it() -> None:
    one, other = public(ec(), use="jwt-svid"), public(ec("e-2"), use="sig")
    assert [key.kid for key in key_set([one, other, "noise"], "jwt-svid").keys] == ["e-1"]
    assert [key.kid for key in key_set([one, other]).keys] == ["e-2"]


def test_a_token_without_a_name_of_its_key_is_verified_by_the_only_key_there_is() -> None:
    assert verified(signed(CLAIMS, kid=None), public(ec()), public(rsa())).kid is None
    with pytest.raises(TokenError, match="several"):
        verified(signed(CLAIMS, kid=None), public(ec()), public(ec("e-2")))


def test_two_keys_of_one_name_verify_nothing() -> None:
    with pytest.raises(TokenError, match="several"):
        verified(signed(CLAIMS), public(ec()), public(ec("e-2"), kid="e-1"))


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"{}", b'{"keys":{}}', b'{"keys":[],"keys":[]}', json.dumps({"keys": [{}] * 101}).encode()],
)
def test_a_document_that_is_no_key_set_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        read_key_set(raw)


def test_a_key_set_may_be_as_large_as_is_said() -> None:
    assert len(keys(*(public(ec(), kid=str(number)) for number in range(MAX_KEYS))).keys) == MAX_KEYS


def test_a_key_set_that_is_too_large_is_refused_unread() -> None:
    with pytest.raises(RemitError, match="bytes"):
        read_key_set(b'{"keys":[' + b" " * MAX_SET + b"]}")


# -- claims -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, "", 7, True, ["a"], "a\nb", "a\0", "x" * 2_049])
def test_a_name_is_bounded_text_that_prints(value: object) -> None:
    with pytest.raises(TokenError, match="`sub`"):
        jwt.text({"sub": value}, "sub")
    with pytest.raises(TokenError, match="`sub`"):
        jwt.text_or_none({"sub": value}, "sub")


def test_a_name_may_be_absent_where_that_is_said() -> None:
    assert jwt.text_or_none({}, "sub") is None
    with pytest.raises(TokenError):
        jwt.text({}, "sub")


def test_one_name_alone_is_a_list_of_one() -> None:
    assert [jwt.texts(claims, "g") for claims in ({}, {"g": "a"}, {"g": ["a", "b"]})] == [(), ("a",), ("a", "b")]
    for value in ({"a": 1}, ["a", 7], [["a"]], 7, None):
        with pytest.raises(TokenError):
            jwt.texts({"g": value}, "g")


def test_a_time_is_a_number_of_this_era() -> None:
    assert jwt.moment({"iat": 1.9}, "iat") == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    for value in (None, "1", True, -1, 1e300, 253_402_300_800):
        with pytest.raises(TokenError, match="time"):
            jwt.moment({"iat": value}, "iat")


@pytest.mark.parametrize("aud", [None, "", "b", ["a", "b"], ["a", "a"], [], [["a"]], {"a": 1}, 7, "A", "a ", ["b"]])
def test_an_audience_is_us_and_nobody_else(aud: object) -> None:
    assert jwt.audience({"aud": ["a"]}, ("a",)) == jwt.audience({"aud": "a"}, ("a",)) == "a"
    with pytest.raises(AudienceError):
        jwt.audience({"aud": aud}, ("a",))


HOUR = timedelta(hours=1)


def window(clock: Clock, **claims: object) -> tuple[datetime, datetime]:
    told = {"iat": clock.at(), "exp": clock.at(minutes=5), **claims}
    return jwt.window({name: value for name, value in told.items() if value is not None}, clock(), HOUR)


def test_a_token_counts_from_when_it_was_issued_until_it_ends() -> None:
    clock = Clock()
    assert window(clock) == (START, START + timedelta(minutes=5))


@pytest.mark.parametrize("name", ["iat", "exp"])
def test_a_token_says_when_it_was_issued_and_when_it_ends(name: str) -> None:
    with pytest.raises(TokenError, match=name):
        window(Clock(), **{name: None})


def test_clocks_may_differ_by_the_skew_and_no_more() -> None:
    clock = Clock()
    allowed = SKEW.total_seconds()
    assert window(clock, iat=clock.at(seconds=allowed))[0] > START
    assert window(clock, nbf=clock.at(seconds=allowed))[0] == START
    assert window(clock, iat=clock.at(minutes=-5), exp=clock.at(seconds=1 - allowed))[1] < START
    for late in ({"iat": clock.at(seconds=allowed + 1)}, {"nbf": clock.at(seconds=allowed + 1)}):
        with pytest.raises(TokenError, match="yet"):
            window(clock, **late)
    with pytest.raises(TokenError, match="expired"):
        window(clock, iat=clock.at(minutes=-5), exp=clock.at(seconds=-allowed))


def test_a_token_is_not_believed_longer_than_its_kind_may_live() -> None:
    clock = Clock()
    old = {"iat": clock.at(hours=-1), "exp": clock.at(days=365)}
    assert window(clock, **old)[1] == START
    clock.on(minutes=1)
    with pytest.raises(TokenError, match="expired"):
        window(clock, **old)


# -- names of claims --------------------------------------------------------------------------------------------------

NESTED = {"a": {"b/c": {"~": 1}}, "https://remit.test/groups": ["x"], "l": [{"b": 1}], "": 2}


@pytest.mark.parametrize("name", ["groups", "https://remit.test/groups", "/kubernetes.io/namespace", "/a/b~1c/~0"])
def test_a_claim_is_named_plainly_or_by_a_pointer(name: str) -> None:
    assert jwt.check_claim_name(name, "it") == name


@pytest.mark.parametrize("name", [None, 7, "", "/", "/a/", "//a", "/a~2b", "/a~", "a\n", "x" * 201])
def test_what_names_no_claim_is_refused(name: object) -> None:
    with pytest.raises(InvalidRequestError, match="it is not the name of a claim"):
        jwt.check_claim_name(name, "it")


def test_a_pointer_enters_objects_and_nothing_else() -> None:
    assert jwt.find_claim(NESTED, "/a/b~1c/~0") == 1
    assert jwt.find_claim(NESTED, "https://remit.test/groups") == ["x"]
    for name in ("/a/b", "/l/0/b", "/a/b~1c/~0/x", "missing", "/missing/x"):
        assert jwt.find_claim(NESTED, name) is None


def test_a_value_is_compared_as_the_text_that_json_writes() -> None:
    assert [jwt.claim_text(value) for value in ("a", 7, True, False)] == ["a", "7", "true", "false"]
    for value in (None, 1.5, [], ["a"], {"a": 1}):
        assert jwt.claim_text(value) is None
