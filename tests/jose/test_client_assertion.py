from __future__ import annotations

from datetime import timedelta

import pytest

from remit.errors import AudienceError, RemitError, UnauthenticatedError
from remit.jose import client_assertion
from tests.identity.issuing import START, ec, okp, rsa, signed

ISSUER = "https://remit.test"
AUDIENCES = {ISSUER, f"{ISSUER}/oauth/token"}


def at(**by: float) -> int:
    return int((START + timedelta(**by)).timestamp())


def claims(**changes: object) -> dict[str, object]:
    told = {"iss": "app", "sub": "app", "aud": ISSUER, "jti": "one-of-many", "iat": at(), "exp": at(seconds=60)}
    return {name: value for name, value in {**told, **changes}.items() if value is not None}


@pytest.mark.parametrize("aud", [ISSUER, f"{ISSUER}/oauth/token", [ISSUER], [ISSUER, f"{ISSUER}/oauth/token"]], ids=str)
def test_an_assertion_may_name_us_as_libraries_do(aud: object) -> None:
    found = client_assertion.read(signed(claims(aud=aud)), AUDIENCES, START)
    assert (found.client, found.jti, found.expires_at) == ("app", "one-of-many", START + timedelta(seconds=60))


@pytest.mark.parametrize("typ", [None, "JWT", "client-authentication+jwt"])
def test_an_assertion_has_the_type_of_rfc_7523bis_or_any_jwts(typ: str | None) -> None:
    assert client_assertion.read(signed(claims(), typ=typ), AUDIENCES, START).client == "app"


@pytest.mark.parametrize(("key", "alg"), [(ec(), "ES256"), (rsa(), "RS256"), (rsa(), "PS256"), (okp(), "EdDSA")])
def test_it_is_signed_by_what_metadata_names(key: object, alg: str) -> None:
    assert alg in client_assertion.ALGORITHMS
    assert client_assertion.read(signed(claims(), key, alg), AUDIENCES, START).client == "app"  # type: ignore[arg-type]  # each is a key


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"sub": "other"}, UnauthenticatedError),
        ({"iss": None}, UnauthenticatedError),
        ({"aud": None}, AudienceError),
        ({"aud": []}, AudienceError),
        ({"aud": "https://other.test"}, AudienceError),
        ({"aud": [ISSUER, "https://other.test"]}, AudienceError),
        ({"aud": [[ISSUER]]}, AudienceError),
        ({"aud": {"a": ISSUER}}, AudienceError),
        ({"jti": None}, UnauthenticatedError),
        ({"jti": "short"}, UnauthenticatedError),
        ({"jti": 12345678}, UnauthenticatedError),
        ({"exp": None}, UnauthenticatedError),
        ({"exp": at()}, UnauthenticatedError),
        ({"exp": at(hours=2)}, UnauthenticatedError),
        ({"iat": at(seconds=61)}, UnauthenticatedError),
        ({"nbf": at(seconds=61)}, UnauthenticatedError),
    ],
    ids=str,
)
def test_an_assertion_with_one_thing_wrong_is_refused(changes: dict[str, object], error: type[RemitError]) -> None:
    with pytest.raises(error):
        client_assertion.read(signed(claims(**changes)), AUDIENCES, START)


@pytest.mark.parametrize(("alg", "typ"), [("ES384", "JWT"), ("ES256", "at+jwt"), ("ES256", "dpop+jwt")])
def test_a_token_of_another_kind_is_no_assertion(alg: str, typ: str) -> None:
    key = ec(curve="P-384", kid="e-384") if alg == "ES384" else ec()
    with pytest.raises(UnauthenticatedError):
        client_assertion.read(signed(claims(), key, alg, typ=typ), AUDIENCES, START)


def test_whose_it_is_can_be_told_before_it_is_verified() -> None:
    assert client_assertion.issuer(signed(claims())) == "app"
    assert client_assertion.issuer(signed(claims(iss="https://ci.test"))) is None
    assert client_assertion.issuer(signed(claims(iss=None, sub=None))) is None


def test_two_assertions_of_one_name_are_one() -> None:
    one, other = (client_assertion.read(signed(claims(exp=at(seconds=s))), AUDIENCES, START) for s in (30, 60))
    assert one.digest == other.digest
    stranger = client_assertion.read(signed(claims(iss="b", sub="b")), AUDIENCES, START)
    assert stranger.digest != one.digest
