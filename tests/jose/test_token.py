from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from remit import jose
from remit.core import scope as scopes
from remit.core.grant import GrantContext
from remit.core.orders import json_text
from remit.core.principal import Ancestor, GrantView
from remit.core.request import Binding, Bounds, GrantRequest
from remit.core.task import Grant, Subject, Task, nothing, open_task
from remit.errors import AudienceError, TokenError
from remit.jose import token as tokens
from remit.jose.token import TokenSpec
from remit.keys.signers import FileSigner

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
ISSUER = "http://127.0.0.1:8470"
SIGNER = FileSigner(ec.derive_private_key(7, ec.SECP256R1()))
KEYS = {SIGNER.kid: jose.public_key(SIGNER.public_jwk())}
DETAIL = {"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/v1/**"]}
JKT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"


def life(claims: dict[str, Any]) -> int:
    """Return for how many seconds a token with these claims lives."""
    seconds: int = claims["exp"] - claims["iat"]
    return seconds


def wanted(depth: int) -> GrantRequest:
    return GrantRequest(scopes.parse([DETAIL]), Bounds(timedelta(hours=1), depth=depth, fan_out=3), Binding(jkt=JKT))


CONTENT = {"authorization_details": [DETAIL]}  # beside the claims: ``mint`` takes its JSON as it is


def family() -> tuple[Task, Grant]:
    """Return a task of three generations, and the youngest grant."""
    subject = Subject("unix://host#1000", "local-uid")
    task = nothing("task_1").apply(
        open_task("task_1", "grt_1", subject, replace(wanted(2), purpose="draft"), GrantContext("planner"), NOW)
    )
    task = task.apply(task.delegate("grt_1", "grt_2", wanted(1), GrantContext("researcher"), NOW))
    task = task.apply(task.delegate("grt_2", "grt_3", wanted(0), GrantContext("reader"), NOW))
    return task, task.grant("grt_3")


def view(task: Task, grant: Grant) -> GrantView:
    line = tuple(Ancestor(g.id, g.agent, g.attested, g.label) for g in reversed(task.lineage(grant.id)))
    return GrantView(grant, task.id, task.head.subject, task.head.purpose, line)


def content(par_hash: str | None = JKT) -> dict[str, object]:
    task, grant = family()
    return tokens.claims(view(task, grant), TokenSpec(par_hash=par_hash), ISSUER, "tok_1", NOW)


def minted(**changes: object) -> str:
    changed = {name: value for name, value in {**CONTENT, **content(), **changes}.items() if value is not None}
    return tokens.mint(changed, SIGNER.kid, SIGNER.alg, SIGNER.sign)


def test_a_token_that_was_minted_is_read() -> None:
    found = tokens.read(minted(), KEYS, ISSUER, NOW)
    assert (found.task, found.grant, found.parent, found.jkt, found.jti) == ("task_1", "grt_3", "grt_2", JKT, "tok_1")


def test_the_claims_are_those_of_the_design() -> None:
    assert set(content()) == {
        *("iss", "aud", "sub", "acr", "client_id", "act", "cnf", "iat", "exp", "jti"),
        *("task", "del_depth", "del_max_depth", "par_hash"),
    }


def test_claims_whose_json_is_known_are_written_as_if_they_were_values() -> None:
    scope = scopes.parse([DETAIL])

    def mint(claims: Mapping[str, object], **written: str) -> str:
        return tokens.mint(claims, SIGNER.kid, SIGNER.alg, lambda _: b"signature", **written)

    whole = mint({**content(), "authorization_details": scopes.dump(scope)})
    assert mint(content(), authorization_details=scopes.text(scope)) == whole


def test_the_human_stays_the_subject_in_every_generation() -> None:
    assert content()["sub"] == "unix://host#1000"


def test_the_actor_is_the_holder_and_its_ancestors_are_nested_in_it() -> None:
    assert content()["act"] == {"sub": "reader", "act": {"sub": "researcher", "act": {"sub": "planner"}}}


def test_depth_says_where_the_grant_is_and_how_far_it_may_go() -> None:
    assert (content()["del_depth"], content()["del_max_depth"]) == (2, 2)


def test_the_token_of_a_root_has_no_parent_hash() -> None:
    assert "par_hash" not in content(None)


def test_the_purpose_is_bound_by_its_digest_alone() -> None:
    about = content()["task"]
    assert isinstance(about, dict)
    assert about["purpose_s256"] == jose.digest("draft")


def test_a_token_lives_ten_minutes() -> None:
    assert life(content()) == 600


def test_a_token_never_outlives_its_grant() -> None:
    task, grant = family()
    grant = replace(grant, expires_at=NOW + timedelta(seconds=90))
    assert life(tokens.claims(view(task, grant), TokenSpec(), ISSUER, "t", NOW)) == 90


@pytest.mark.parametrize("seconds", [599, 0, -5])
def test_a_token_is_good_in_its_time(seconds: int) -> None:
    assert tokens.read(minted(), KEYS, ISSUER, NOW + timedelta(seconds=seconds)).grant == "grt_3"


@pytest.mark.parametrize("seconds", [600, 601, -6])
def test_a_token_is_not_good_outside_its_time(seconds: int) -> None:
    with pytest.raises(TokenError):
        tokens.read(minted(), KEYS, ISSUER, NOW + timedelta(seconds=seconds))


def test_an_expired_token_still_says_what_to_revoke() -> None:
    assert tokens.read(minted(), KEYS, ISSUER, NOW + timedelta(days=1), expired=True).grant == "grt_3"


def test_an_audience_in_a_list_of_one_is_the_same_audience() -> None:
    assert tokens.read(minted(aud=[ISSUER]), KEYS, ISSUER, NOW).grant == "grt_3"


@pytest.mark.parametrize("aud", ["http://other", ISSUER + "/", ["http://other"]])
def test_any_other_audience_is_refused(aud: object) -> None:
    with pytest.raises(AudienceError):
        tokens.check_audience(tokens.read(minted(aud=aud), KEYS, ISSUER, NOW), {ISSUER})


@pytest.mark.parametrize("aud", [[ISSUER, "http://other"], [], "", [""], [1], {}, None])
def test_a_token_for_more_than_one_audience_or_none_is_refused(aud: object) -> None:
    with pytest.raises(TokenError, match="one audience"):
        tokens.read(minted(aud=aud), KEYS, ISSUER, NOW)


@pytest.mark.parametrize("typ", ["JWT", "dpop+jwt", "AT+JWT", "application/at+jwt", "at+jwt "])
def test_any_other_type_is_refused(typ: str) -> None:
    header = {"typ": typ, "alg": SIGNER.alg, "kid": SIGNER.kid}
    signed = ".".join(jose.encode(json_text(part).encode()) for part in (header, content()))
    with pytest.raises(TokenError, match="not an access token"):
        tokens.read(f"{signed}.{jose.encode(SIGNER.sign(signed.encode()))}", KEYS, ISSUER, NOW)


def test_a_token_of_a_key_that_is_no_longer_published_is_refused() -> None:
    with pytest.raises(TokenError, match="not signed by a key"):
        tokens.read(minted(), {}, ISSUER, NOW)


@pytest.mark.parametrize("cnf", [{}, {"jkt": JKT, "x5t#S256": JKT}, {"jwk": {}}, {"jkt": "short"}, "jkt", None])
def test_a_token_that_is_not_bound_to_one_key_is_refused(cnf: object) -> None:
    with pytest.raises(TokenError):
        tokens.read(minted(cnf=cnf), KEYS, ISSUER, NOW)


def test_a_token_that_starts_later_is_refused_until_then() -> None:
    with pytest.raises(TokenError, match="not valid yet"):
        tokens.read(minted(nbf=int(NOW.timestamp()) + 6), KEYS, ISSUER, NOW)


@pytest.mark.parametrize("exp", [None, "1", 1.5, True, -1, 253_402_300_800])
def test_an_instant_that_is_not_a_whole_number_of_seconds_is_refused(exp: object) -> None:
    with pytest.raises(TokenError, match="exp"):
        tokens.read(minted(exp=exp), KEYS, ISSUER, NOW)


def test_an_nbf_that_is_no_instant_is_refused() -> None:
    with pytest.raises(TokenError, match="nbf"):
        tokens.read(minted(nbf="1"), KEYS, ISSUER, NOW)


def test_a_token_of_another_issuer_is_refused() -> None:
    with pytest.raises(TokenError, match="not made by this broker"):
        tokens.read(minted(iss="http://other"), KEYS, ISSUER, NOW)


def test_how_the_human_was_proven_is_told() -> None:
    subject = Subject("https://idp.test#alice", "urn:test:strong", NOW, ("pwd", "otp"))
    task = nothing("task_1").apply(
        open_task("task_1", "grt_1", subject, replace(wanted(0), purpose="draft"), GrantContext("planner"), NOW)
    )
    told = tokens.claims(view(task, task.grant("grt_1")), TokenSpec(), ISSUER, "t", NOW)
    assert (told["acr"], told["auth_time"], told["amr"]) == (
        "urn:test:strong",
        int(NOW.timestamp()),
        ["pwd", "otp"],
    )


def test_a_grant_with_a_place_in_the_status_list_names_it() -> None:
    task, grant = family()
    told = tokens.claims(view(task, replace(grant, status=412)), TokenSpec(), ISSUER, "t", NOW)
    assert told["status"] == {"status_list": {"idx": 412, "uri": f"{ISSUER}/oauth/status/1"}}


def test_a_token_that_is_bound_to_a_certificate_ends_with_it() -> None:
    task, grant = family()
    grant = replace(grant, binding=Binding(x5t=JKT))
    told = tokens.claims(view(task, grant), TokenSpec(until=NOW + timedelta(seconds=30)), ISSUER, "t", NOW)
    assert (told["cnf"], life(told)) == ({"x5t#S256": JKT}, 30)


def test_a_token_can_be_for_another_audience() -> None:
    task, grant = family()
    assert tokens.claims(view(task, grant), TokenSpec("http://gateway"), ISSUER, "t", NOW)["aud"] == "http://gateway"


def test_no_more_than_ten_actors_are_named() -> None:
    task = nothing("task_1").apply(
        open_task("task_1", "grt_0", Subject("a", "b"), replace(wanted(15), purpose="draft"), GrantContext("a0"), NOW)
    )
    for level in range(1, 15):
        task = task.apply(
            task.delegate(f"grt_{level - 1}", f"grt_{level}", wanted(15 - level), GrantContext(f"a{level}"), NOW)
        )
    act, named = tokens.claims(view(task, task.grant("grt_14")), TokenSpec(), ISSUER, "t", NOW)["act"], []
    while isinstance(act, dict):
        named.append(act["sub"])
        act = act.get("act")
    assert named == [f"a{level}" for level in range(14, 4, -1)]


def test_a_token_for_one_of_those_who_are_asked_is_taken() -> None:
    tokens.check_audience(tokens.read(minted(), KEYS, ISSUER, NOW), {ISSUER, "http://gateway"})
