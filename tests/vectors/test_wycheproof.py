"""What others know to go wrong with JOSE (C2SP Wycheproof), through the reader of other people's tokens.

Here fewer tokens are good than by the specifications: no symmetric keys, no encryption, no keys that are private. So a
case that is said to be valid may be refused for a reason that is listed; none that is said to be invalid is accepted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from remit import jose
from remit.errors import AudienceError, GrantTokenError, TokenError
from remit.jose import jwt
from remit.jose.jwt import JwtProfile
from remit.jose.keys import key_set, read_key_set
from tests.identity.issuing import START

PUBLISHED = Path(__file__).parent / "published"
TYPES = frozenset({"", "jwt"})
MEMBERS = frozenset({"alg", "kid", "typ"})


class Case(NamedTuple):
    """One vector."""

    id: int
    keys: tuple[Mapping[str, Any], ...]
    text: object
    valid: bool

    @property
    def strange(self) -> bool:
        """Whether no key of the case is one that verifies here: symmetric, or on a curve that is not known."""
        return not key_set(self.keys).keys


def cases(name: str, member: str = "jws") -> list[Case]:
    told = json.loads((PUBLISHED / "wycheproof" / f"json_web_{name}_test.json").read_text("utf-8"))
    return [
        Case(test["tcId"], tuple(_keys(group)), test[member], test["result"] == "valid")
        for group in told["testGroups"]
        for test in group["tests"]
    ]


def _keys(group: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Return the keys of a group without what is private in them: an issuer publishes no more."""
    told = group.get("public", group["private"])
    for key in told.get("keys", [told]):
        hidden = {"d", "p", "q", "dp", "dq", "qi"} if "public" not in group else set()
        yield {name: value for name, value in key.items() if name not in hidden}


def accepted(case: Case) -> bool:
    """Whether the signature of a case is good; its payload is text that need not be JSON."""
    text = case.text if isinstance(case.text, str) else json.dumps(case.text)
    try:
        key_set(case.keys).verify(jose.read(text, MEMBERS, others=True))
    except TokenError:
        return False
    return True


SIGNATURES, KEYS = cases("signature"), cases("key")
EMPTY = {259, 264, 268, 272, 320, 325}  # nothing is signed: that is no set of claims
OTHER = {346, 350}  # the algorithm is another than the key says it is for


@pytest.mark.parametrize("case", [*SIGNATURES, *KEYS], ids=lambda case: str(case.id))
def test_what_is_said_to_be_invalid_is_refused(case: Case) -> None:
    assert case.valid or not accepted(case)


@pytest.mark.parametrize("case", SIGNATURES, ids=lambda case: str(case.id))
def test_what_is_said_to_be_valid_is_accepted_but_for_what_never_counts_here(case: Case) -> None:
    never = case.strange or case.id in EMPTY | OTHER
    assert accepted(case) == (case.valid and not never)


def test_the_vectors_are_all_there_and_most_of_them_count() -> None:
    assert (len(SIGNATURES), len(KEYS)) == (401, 26)
    assert sum(accepted(case) for case in SIGNATURES) == 26


@pytest.mark.parametrize("case", cases("encryption", "jwe"), ids=lambda case: str(case.id))
def test_nothing_that_is_encrypted_is_read(case: Case) -> None:
    assert not accepted(case)
    for error in (TokenError, GrantTokenError):
        with pytest.raises(error):
            jwt.read(case.text if isinstance(case.text, str) else json.dumps(case.text), JwtProfile(TYPES, error=error))


# -- identity chaining ------------------------------------------------------------------------------------------------

CHAINING = json.loads((PUBLISHED / "published.json").read_text("utf-8"))["identity_chaining"]
THEN = datetime.fromtimestamp(1_695_287_700, UTC)
AUDIENCE = "https://as.b.example/auth"


def chained() -> Mapping[str, object]:
    """Return the verified claims of the grant that the draft prints."""
    keys = read_key_set(json.dumps({"keys": [CHAINING["jwk"]]}).encode())
    token = jwt.read(CHAINING["jwt"], JwtProfile(TYPES))
    keys.verify(token.compact)
    return token.claims


def test_the_printed_grant_between_domains_holds_for_its_minute_and_its_audience() -> None:
    claims = chained()
    assert (claims["iss"], claims["sub"]) == ("https://as.a.example/auth", "johndoe@a.example")
    assert jwt.audience(claims, (AUDIENCE,)) == AUDIENCE
    assert jwt.window(claims, THEN, timedelta(hours=1))[1] - THEN == timedelta(seconds=52)


def test_the_printed_grant_is_for_nobody_else_and_no_other_time() -> None:
    with pytest.raises(AudienceError):
        jwt.audience(chained(), ("https://as.a.example/auth",))
    with pytest.raises(TokenError, match="expired"):
        jwt.window(chained(), START, timedelta(days=4_000))
    with pytest.raises(TokenError, match="type"):
        jwt.read(CHAINING["jwt"], JwtProfile(frozenset({"oauth-id-jag+jwt"})))
