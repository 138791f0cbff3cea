from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from remit.core.grant import LOCAL, UNSAID, WORKLOAD
from remit.core.principal import Human
from remit.errors import AudienceError, GrantTokenError, RemitError, UnavailableError
from remit.identity.humans import MAX_AGE, MAX_GRANT, MAX_GROUPS, IssuedHumans, Registration
from remit.identity.issuers import KEEP
from remit.jose.jwt import SKEW
from tests.identity.issuing import URL, Clock, Site, ec, issuer, public, rsa, signed, unsigned

BROKER = "https://remit.test"
JAG = "oauth-id-jag+jwt"
AGENT = "https://agent.test/client.json"

CLOCK = Clock()
ID_TOKEN: Mapping[str, object] = {
    "iss": URL,
    "sub": "alice",
    "aud": "remit",
    "iat": CLOCK.at(),
    "exp": CLOCK.at(minutes=10),
    "auth_time": CLOCK.at(minutes=-3),
    "acr": "phr",
    "amr": ["pwd", "hwk"],
    "sid": "s-1",
    "groups": ["analysts", "on-call"],
}
GRANT: Mapping[str, object] = {
    "iss": URL,
    "sub": "alice",
    "aud": BROKER,
    "client_id": AGENT,
    "jti": "j-1",
    "iat": CLOCK.at(),
    "exp": CLOCK.at(minutes=5),
    "auth_time": CLOCK.at(minutes=-3),
    "acr": "phr",
}


def known(site: Site | None = None, clock: Clock | None = None, **over: Any) -> IssuedHumans:
    clock = clock or Clock()
    one = Registration(issuer(site, clock), "remit", groups="groups", id_jag=True)
    return IssuedHumans((replace(one, **over),), BROKER, clock)


def changed(claims: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    """Return claims with others over them; those that are ``...`` are left out."""
    return {name: value for name, value in {**claims, **over}.items() if value is not ...}


def read(humans: IssuedHumans | None = None, nonce: str | None = None, header: Any = None, **over: object) -> Human:
    token = signed(changed(ID_TOKEN, over), **(header or {}))
    return asyncio.run((humans or known()).id_token(token, nonce=nonce))


def redeemed(humans: IssuedHumans | None = None, client: str = AGENT, typ: str | None = JAG, **over: object) -> Human:
    return asyncio.run((humans or known()).id_jag(signed(changed(GRANT, over), typ=typ), client))


# -- ID tokens --------------------------------------------------------------------------------------------------------


def test_a_human_is_who_the_issuer_says_and_how_it_says_they_were_proven() -> None:
    human = read()
    assert human.subject.sub == f"{URL}#alice"
    assert (human.subject.acr, human.subject.amr) == ("phr", ("pwd", "hwk"))
    assert human.subject.auth_time == CLOCK.now - timedelta(minutes=3)
    assert human.subject.groups == ("analysts", "on-call")
    assert human.subject.sid == f"{URL}#s-1"
    assert (human.client, human.nonce, human.details) == ("remit", None, None)
    assert (human.issued_at, human.until) == (CLOCK.now, CLOCK.now + timedelta(minutes=10) + SKEW)


def test_what_an_issuer_does_not_say_is_not_made_up() -> None:
    human = read(auth_time=..., acr=..., amr=..., sid=..., groups=...)
    assert human.subject.acr == UNSAID
    assert (human.subject.auth_time, human.subject.amr, human.subject.sid, human.subject.groups) == (None, (), None, ())


def test_a_token_is_the_same_token_whoever_brings_it() -> None:
    humans, token = known(), signed(ID_TOKEN)
    first, second = (asyncio.run(humans.id_token(token)) for _ in range(2))
    assert first.digest == second.digest
    assert read(jti="another").digest != first.digest


@pytest.mark.parametrize(
    ("over", "error", "says"),
    [
        ({"iss": "https://evil.test"}, GrantTokenError, "trusted"),
        ({"iss": f"{URL}/"}, GrantTokenError, "trusted"),
        ({"iss": [URL]}, GrantTokenError, "`iss`"),
        ({"iss": ...}, GrantTokenError, "`iss`"),
        ({"aud": "another"}, AudienceError, "meant"),
        ({"aud": ["remit", "another"]}, AudienceError, "meant"),
        ({"aud": BROKER}, AudienceError, "meant"),
        ({"aud": ...}, AudienceError, "meant"),
        ({"azp": "another"}, GrantTokenError, "another client"),
        ({"azp": None}, GrantTokenError, "another client"),
        ({"sub": ...}, GrantTokenError, "`sub`"),
        ({"sub": ""}, GrantTokenError, "`sub`"),
        ({"sub": 7}, GrantTokenError, "`sub`"),
        ({"exp": ...}, GrantTokenError, "`exp`"),
        ({"iat": ...}, GrantTokenError, "`iat`"),
        ({"exp": CLOCK.at(seconds=-60)}, GrantTokenError, "expired"),
        ({"iat": CLOCK.at(seconds=61)}, GrantTokenError, "yet"),
        ({"nbf": CLOCK.at(seconds=61)}, GrantTokenError, "yet"),
        ({"auth_time": CLOCK.at(seconds=61)}, GrantTokenError, "only later"),
        ({"auth_time": "now"}, GrantTokenError, "`auth_time`"),
        ({"acr": ["phr"]}, GrantTokenError, "`acr`"),
        ({"acr": WORKLOAD}, GrantTokenError, "remit's own"),  # it would be no human to policies
        ({"acr": LOCAL}, GrantTokenError, "remit's own"),  # the owner of the state could act for them
        ({"acr": UNSAID}, GrantTokenError, "remit's own"),
        ({"amr": {"pwd": 1}}, GrantTokenError, "`amr`"),
        ({"sid": 7}, GrantTokenError, "`sid`"),
        ({"groups": {"analysts": True}}, GrantTokenError, "`groups`"),
        ({"groups": ["analysts", 7]}, GrantTokenError, "`groups`"),
        ({"events": {}}, GrantTokenError, "message"),
    ],
)
def test_an_id_token_with_one_thing_wrong_is_refused(over: dict[str, Any], error: type[RemitError], says: str) -> None:
    with pytest.raises(error, match=says):
        read(**over)


def test_a_human_may_log_in_by_a_clock_that_is_a_little_ahead() -> None:
    assert read(auth_time=CLOCK.at(seconds=60)).subject.auth_time == CLOCK.now + SKEW


@pytest.mark.parametrize("typ", ["at+jwt", JAG, "logout+jwt", "secevent+jwt"])
def test_a_token_of_another_kind_is_no_id_token(typ: str) -> None:
    with pytest.raises(GrantTokenError, match="type"):
        read(header={"typ": typ})


@pytest.mark.parametrize("alg", ["none", "HS256"])
def test_nobody_is_a_human_by_a_token_that_no_issuer_signed(alg: str) -> None:
    for signature in ("", "AA"):
        with pytest.raises(GrantTokenError):
            asyncio.run(known().id_token(unsigned(ID_TOKEN, {"alg": alg, "kid": "e-1"}, signature)))


def test_a_token_by_a_key_that_is_not_the_issuer_s_is_refused() -> None:
    with pytest.raises(GrantTokenError, match="signature"):
        asyncio.run(known().id_token(signed(ID_TOKEN, ec("e-9"), kid="e-1")))
    with pytest.raises(GrantTokenError, match="not signed by a key"):
        asyncio.run(known().id_token(signed(ID_TOKEN, ec("e-9"))))


def test_an_issuer_signs_as_it_says_it_does() -> None:
    humans = known(Site(said={"id_token_signing_alg_values_supported": ["RS256"]}))
    with pytest.raises(GrantTokenError, match="algorithm"):
        read(humans)
    assert asyncio.run(humans.id_token(signed(ID_TOKEN, rsa(), "RS256"))).client == "remit"


def test_the_keys_of_one_issuer_are_not_those_of_another() -> None:
    clock, other = Clock(), "https://other.test"
    sites = [Site(), Site(url=other, keys=[public(ec("e-2"))])]
    both = [Registration(issuer(site, clock, site.url), "remit") for site in sites]
    humans = IssuedHumans(both, BROKER, clock)
    assert read(humans).subject.sub == f"{URL}#alice"
    with pytest.raises(GrantTokenError, match="not signed by a key"):
        read(humans, iss=other)


def test_a_nonce_ties_a_token_to_one_request() -> None:
    token = signed({**ID_TOKEN, "nonce": "n-1"})
    assert asyncio.run(known().id_token(token, nonce="n-1")).nonce == "n-1"
    for expected in ("n-2", "", "n-1 "):
        with pytest.raises(GrantTokenError, match="this request"):
            asyncio.run(known().id_token(token, nonce=expected))
    with pytest.raises(GrantTokenError, match="this request"):
        read(nonce="n-1")


def test_an_issuer_s_word_is_not_believed_longer_than_half_a_day() -> None:
    with pytest.raises(GrantTokenError, match="expired"):
        read(iat=CLOCK.at(seconds=-MAX_AGE.total_seconds() - 60), exp=CLOCK.at(days=30))
    assert read(exp=CLOCK.at(days=30)).until == CLOCK.now + MAX_AGE + SKEW


def test_an_issuer_that_cannot_be_asked_lets_nobody_in_after_a_while() -> None:
    site, clock = Site(), Clock()
    humans = known(site, clock)
    read(humans)
    site.down = True
    clock.now += KEEP
    with pytest.raises(UnavailableError, match="cannot be asked"):
        asyncio.run(humans.id_token(signed(changed(ID_TOKEN, {"iat": clock.at(), "exp": clock.at(minutes=9)}))))


def test_two_clients_of_one_issuer_are_told_apart() -> None:
    clock = Clock()
    one = issuer(clock=clock)
    humans = IssuedHumans([Registration(one, "remit"), Registration(one, "web")], BROKER, clock)
    assert [read(humans, aud=name).client for name in ("remit", "web")] == ["remit", "web"]
    with pytest.raises(GrantTokenError, match="another client"):
        read(humans, aud="web", azp="remit")


@pytest.mark.parametrize("human", [read(), redeemed()], ids=["ID token", "ID-JAG"])
def test_a_human_is_confirmed_by_their_token_and_by_nothing_else_that_is_said_of_them(human: Human) -> None:
    humans = known()
    bob = replace(human.subject, sub=f"{URL}#bob", acr="urn:mfa", auth_time=CLOCK.now)
    forged = replace(human, subject=bob, digest="d", nonce="n", confidential=True, details=[], jkt="k")
    assert asyncio.run(humans.confirm(forged)) == human
    assert asyncio.run(humans.confirm(replace(human, state="s"))) == replace(human, state="s")
    for other in ({"token": ""}, {"id_jag": not human.id_jag}, {"token": human.token[:-8]}):
        with pytest.raises(GrantTokenError):
            asyncio.run(humans.confirm(replace(human, **other)))


# -- groups -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "claims"),
    [
        ("groups", {"groups": ["a", "b"]}),
        ("https://remit.test/groups", {"https://remit.test/groups": ["a", "b"]}),
        ("/realm_access/roles", {"realm_access": {"roles": ["a", "b"]}}),
        ("/resource_access/my~1app/roles", {"resource_access": {"my/app": {"roles": ["a", "b"]}}}),
    ],
)
def test_groups_are_found_where_the_configuration_says(name: str, claims: dict[str, Any]) -> None:
    assert read(known(groups=name), **claims).subject.groups == ("a", "b")


def test_one_group_alone_may_come_as_text_and_none_as_nothing() -> None:
    assert read(groups="analysts").subject.groups == ("analysts",)
    assert read(groups=None).subject.groups == ()
    assert read(known(groups=None)).subject.groups == ()
    assert read(known(groups="/groups/deeper")).subject.groups == ()


def test_groups_that_the_issuer_left_out_are_not_taken_for_none() -> None:
    elsewhere: dict[str, Any] = {
        "groups": ...,
        "_claim_names": {"groups": "src1"},
        "_claim_sources": {"src1": {"endpoint": "x"}},
    }
    with pytest.raises(GrantTokenError, match="left out"):
        read(**elsewhere)
    assert read(**{**elsewhere, "_claim_names": {"other": "src1"}}).subject.groups == ()
    assert read(known(groups=None), **elsewhere).subject.groups == ()


def test_a_claim_of_groups_that_an_issuer_does_not_send_is_said_in_the_log_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    humans = known(groups="/access/roles")
    assert [read(humans, jti=jti).subject.groups for jti in "ab"] == [(), ()]
    (said,) = caplog.messages
    assert f"`/access/roles` is not in ID tokens of {URL} for client `remit`" in said
    assert "scopes" in said
    caplog.clear()
    read(groups=[])
    read(known(groups=None), groups=...)
    redeemed(groups=...)  # an assertion grant asks for no scopes
    assert caplog.messages == []


def test_the_number_of_groups_is_bounded() -> None:
    assert len(read(groups=["g"] * MAX_GROUPS).subject.groups) == MAX_GROUPS
    with pytest.raises(GrantTokenError, match="more than"):
        read(groups=["g"] * (MAX_GROUPS + 1))


# -- identity assertion grants ----------------------------------------------------------------------------------------


def test_an_identity_assertion_is_for_one_client_and_this_broker() -> None:
    human = redeemed(amr=["hwk"], groups=["analysts"])
    assert (human.subject.sub, human.subject.acr, human.client) == (f"{URL}#alice", "phr", AGENT)
    assert (human.subject.amr, human.subject.groups, human.details) == (("hwk",), ("analysts",), None)
    assert human.until == CLOCK.now + timedelta(minutes=5) + SKEW


def test_the_key_that_an_identity_assertion_is_bound_to_is_handed_on() -> None:
    assert redeemed(cnf={"jkt": "k"}).jkt == "k"
    assert (redeemed().jkt, redeemed(cnf=None).jkt) == (None, None)


def test_what_an_identity_assertion_allows_is_handed_on() -> None:
    limit = [{"type": "http", "resource": "search", "actions": ["GET"]}]
    assert redeemed(authorization_details=limit).details == limit
    assert redeemed(resource=BROKER).details is None
    assert redeemed(resource=[BROKER]).details is None


def test_an_identity_assertion_counts_once_by_its_name_whatever_else_it_says() -> None:
    assert redeemed().digest == redeemed(iat=CLOCK.at(seconds=-1)).digest
    assert redeemed().digest != redeemed(jti="j-2").digest
    assert redeemed().digest != read(jti="j-1").digest


@pytest.mark.parametrize(
    ("over", "error", "says"),
    [
        ({"iss": "https://evil.test"}, GrantTokenError, "trusted"),
        ({"aud": "remit"}, AudienceError, "meant"),
        ({"aud": f"{BROKER}/"}, AudienceError, "meant"),
        ({"aud": [BROKER, "https://other.test"]}, AudienceError, "meant"),
        ({"aud": f"{BROKER}/oauth/token"}, AudienceError, "meant"),
        ({"client_id": "another"}, GrantTokenError, "another client"),
        ({"client_id": ...}, GrantTokenError, "`client_id`"),
        ({"client_id": [AGENT]}, GrantTokenError, "`client_id`"),
        ({"scope": ""}, GrantTokenError, "`scope`"),
        ({"scope": ["search"]}, GrantTokenError, "`scope`"),
        ({"scope": "search", "authorization_details": []}, GrantTokenError, "scopes and to details"),
        ({"cnf": {"x5t#S256": "x"}}, GrantTokenError, "limited to a key"),
        ({"cnf": {"jkt": "x", "kid": "y"}}, GrantTokenError, "limited to a key"),
        ({"cnf": {"jkt": ""}}, GrantTokenError, "limited to a key"),
        ({"cnf": {"jkt": ["x"]}}, GrantTokenError, "limited to a key"),
        ({"cnf": "x"}, GrantTokenError, "limited to a key"),
        ({"cnf": {}}, GrantTokenError, "limited to a key"),
        ({"tenant": "t"}, GrantTokenError, "limited to a tenant"),
        ({"aud_tenant": "t"}, GrantTokenError, "limited to a tenant"),
        ({"resource": "https://other.test"}, GrantTokenError, "resource"),
        ({"resource": [BROKER, "https://other.test"]}, GrantTokenError, "resource"),
        ({"resource": 7}, GrantTokenError, "resource"),
        ({"jti": ...}, GrantTokenError, "`jti`"),
        ({"jti": ""}, GrantTokenError, "`jti`"),
        ({"sub": ...}, GrantTokenError, "`sub`"),
        ({"exp": CLOCK.at(seconds=-60)}, GrantTokenError, "expired"),
        ({"iat": CLOCK.at(seconds=61)}, GrantTokenError, "yet"),
    ],
)
def test_an_identity_assertion_with_one_thing_wrong_is_refused(
    over: dict[str, Any], error: type[RemitError], says: str
) -> None:
    with pytest.raises(error, match=says):
        redeemed(**over)


@pytest.mark.parametrize("typ", [None, "JWT", "at+jwt", "secevent+jwt", "jwt-authorization-grant+jwt"])
def test_a_token_of_another_kind_is_no_identity_assertion(typ: str | None) -> None:
    with pytest.raises(GrantTokenError, match="type"):
        redeemed(typ=typ)


def test_an_identity_assertion_is_for_nobody_without_a_name() -> None:
    with pytest.raises(GrantTokenError, match="another client"):
        redeemed(client="")


def test_identity_assertions_are_taken_where_that_is_configured() -> None:
    with pytest.raises(GrantTokenError, match="not taken here"):
        redeemed(known(id_jag=False))


def test_an_identity_assertion_lives_for_an_hour_at_most() -> None:
    assert redeemed(exp=CLOCK.at(days=1)).until == CLOCK.now + MAX_GRANT + SKEW
    with pytest.raises(GrantTokenError, match="expired"):
        redeemed(iat=CLOCK.at(hours=-2), exp=CLOCK.at(days=1))


def test_claims_that_occur_twice_are_refused() -> None:
    raw = json.dumps(dict(ID_TOKEN)).encode()[:-1] + b', "sub": "root"}'
    with pytest.raises(GrantTokenError, match="strict JSON"):
        asyncio.run(known().id_token(signed(raw)))


def test_an_assertion_may_be_limited_by_names() -> None:
    found = redeemed(scope="search sales", authorization_details=...)
    assert (found.scope, found.details) == ("search sales", None)
