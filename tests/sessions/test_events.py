from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest

from remit.core.principal import Signal
from remit.errors import AudienceError, InvalidRequestError, RemitError, TokenError
from remit.sessions.events import CAEP, LOGOUT, MAX_AGE, RISC, EventIssuer, IssuedSignals
from tests.identity.issuing import URL, Clock, Site, ec, issuer, public, signed, unsigned

BROKER = "https://remit.test"
REVOKED = f"{CAEP}session-revoked"
ALICE = {"format": "iss_sub", "iss": URL, "sub": "alice"}
CLOCK = Clock()

EVENT: Mapping[str, Any] = {
    "iss": URL,
    "aud": BROKER,
    "iat": CLOCK.at(),
    "jti": "j-1",
    "sub_id": ALICE,
    "events": {REVOKED: {"event_timestamp": CLOCK.at(minutes=-1), "initiating_entity": "admin"}},
}
LOGGED_OUT: Mapping[str, Any] = {
    "iss": URL,
    "aud": "remit",
    "iat": CLOCK.at(),
    "exp": CLOCK.at(minutes=2),
    "jti": "j-1",
    "sub": "alice",
    "sid": "s-1",
    "events": {LOGOUT: {}},
}


def signals(clock: Clock | None = None, **over: Any) -> IssuedSignals:
    clock = clock or Clock()
    told: dict[str, Any] = {"audiences": frozenset({"remit", BROKER}), "about": URL, **over}
    return IssuedSignals({URL: EventIssuer(issuer(clock=clock), **told)}, clock)


def changed(claims: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**claims, **over}.items() if value is not ...}


def event(made: IssuedSignals | None = None, typ: str | None = "secevent+jwt", **over: Any) -> Sequence[Signal]:
    return asyncio.run((made or signals()).event(signed(changed(EVENT, over), typ=typ)))


def logout(made: IssuedSignals | None = None, typ: str | None = "logout+jwt", **over: Any) -> Sequence[Signal]:
    return asyncio.run((made or signals()).logout(signed(changed(LOGGED_OUT, over), typ=typ)))


# -- security event tokens --------------------------------------------------------------------------------------------


def test_a_revoked_session_ends_what_its_human_had_at_that_moment() -> None:
    (signal,) = event()
    assert (signal.sub, signal.sid, signal.cause) == (f"{URL}#alice", None, "session-revoked")
    assert signal.at == CLOCK.now - timedelta(minutes=1)


def test_a_transmitter_s_clock_may_be_a_little_ahead() -> None:
    assert event(iat=CLOCK.at(seconds=60), events={REVOKED: {}})[0].at == CLOCK.now + timedelta(minutes=1)


def test_an_event_without_a_time_of_its_own_happened_when_it_was_issued() -> None:
    assert event(events={REVOKED: {}})[0].at == CLOCK.now


def test_an_event_of_the_future_reaches_no_further_than_clocks_may_differ() -> None:
    (signal,) = event(events={REVOKED: {"event_timestamp": CLOCK.at(days=365)}})
    assert signal.at == CLOCK.now + timedelta(minutes=1)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (f"{CAEP}session-revoked", {}),
        (f"{CAEP}credential-change", {"change_type": "revoke", "credential_type": "password"}),
        (f"{CAEP}token-claims-change", {"claims": {"role": "x"}}),
        (f"{CAEP}assurance-level-change", {"change_direction": "decrease"}),
        (f"{CAEP}device-compliance-change", {"current_status": "not-compliant"}),
        (f"{CAEP}risk-level-change", {"current_level": "HIGH"}),
        (f"{RISC}account-disabled", {"reason": "hijacking"}),
        (f"{RISC}account-purged", {}),
        (f"{RISC}account-credential-change-required", {}),
        (f"{RISC}credential-compromise", {}),
        (f"{RISC}sessions-revoked", {}),
    ],
)
def test_whatever_puts_a_login_in_doubt_ends_it(kind: str, told: dict[str, Any]) -> None:
    assert [signal.cause for signal in event(events={kind: told})] == [kind.rpartition("/")[2]]


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (f"{CAEP}assurance-level-change", {"change_direction": "increase"}),
        (f"{CAEP}device-compliance-change", {"current_status": "compliant"}),
        (f"{CAEP}risk-level-change", {"current_level": "LOW"}),
        (f"{CAEP}session-established", {}),
        (f"{CAEP}session-presented", {}),
        ("https://schemas.openid.net/secevent/ssf/event-type/verification", {"state": "x"}),
        ("https://example.test/session-revoked", {}),
    ],
)
def test_an_event_that_says_nothing_against_a_login_is_taken_and_ends_nothing(kind: str, told: dict[str, Any]) -> None:
    assert event(events={kind: told}, sub_id=...) == ()


def test_several_events_of_one_token_are_several_signals() -> None:
    found = event(events={REVOKED: {}, f"{CAEP}credential-change": {}, f"{CAEP}session-established": {}})
    assert [signal.cause for signal in found] == ["credential-change", "session-revoked"]
    assert len({signal.digest for signal in found}) == 2


@pytest.mark.parametrize(
    ("subject", "sub", "sid"),
    [
        (ALICE, f"{URL}#alice", None),
        ({"format": "aliases", "identifiers": [{"format": "email", "email": "a@b"}, ALICE]}, f"{URL}#alice", None),
        ({"format": "aliases", "identifiers": [{**ALICE, "iss": "https://other.test"}, ALICE]}, f"{URL}#alice", None),
        ({"format": "aliases", "identifiers": ["x", {"format": "uri", "iss": URL}, ALICE]}, f"{URL}#alice", None),
        ({"format": "complex", "user": ALICE}, f"{URL}#alice", None),
        ({"format": "complex", "session": {"format": "opaque", "id": "s-1"}}, None, f"{URL}#s-1"),
        ({"format": "opaque", "id": "s-1"}, None, f"{URL}#s-1"),
        ({**ALICE, "iss": f"{URL}/"}, f"{URL}#alice", None),
        (
            {"format": "complex", "user": ALICE, "session": {"format": "opaque", "id": "s-1"}},
            f"{URL}#alice",
            f"{URL}#s-1",
        ),
        ({"format": "complex", "user": ALICE, "session": {"format": "jwt_id", "jti": "x"}}, f"{URL}#alice", None),
        ({"format": "complex", "user": ALICE, "device": {"format": "opaque", "id": "d"}}, f"{URL}#alice", None),
    ],
)
def test_an_event_is_about_a_human_or_one_session(subject: dict[str, Any], sub: str | None, sid: str | None) -> None:
    (signal,) = event(sub_id=subject)
    assert (signal.sub, signal.sid) == (sub, sid)


def test_risc_as_google_sends_it_is_about_its_human() -> None:
    subject = {"subject_type": "iss-sub", "iss": f"{URL}/", "sub": "alice"}
    (signal,) = event(sub_id=..., events={f"{RISC}sessions-revoked": {"subject": subject}})
    assert (signal.sub, signal.sid, signal.cause) == (f"{URL}#alice", None, "sessions-revoked")


def test_an_opaque_name_is_a_session_only_where_a_session_was_revoked() -> None:
    with pytest.raises(InvalidRequestError):
        event(sub_id={"format": "opaque", "id": "s-1"}, events={f"{CAEP}credential-change": {}})


def test_an_older_transmitter_puts_the_subject_into_the_event() -> None:
    (signal,) = event(sub_id=..., events={REVOKED: {"subject": ALICE}})
    assert signal.sub == f"{URL}#alice"


@pytest.mark.parametrize(
    "subject",
    [
        ...,
        "alice",
        {},
        {"format": "email", "email": "alice@example.test"},
        {"format": "iss_sub", "iss": "https://other.test", "sub": "alice"},
        {"format": "iss_sub", "iss": URL},
        {"format": "iss_sub", "iss": [URL], "sub": "alice"},
        {"subject_type": "iss-sub", "iss": "https://other.test", "sub": "alice"},
        {"format": "opaque"},
        {"format": "iss_sub", "iss": URL, "sub": ""},
        {"format": "aliases", "identifiers": []},
        {"format": "complex"},
        {"format": "complex", "user": {"format": "email", "email": "a@b"}},
        {"format": "complex", "session": {"format": "opaque"}},
    ],
)
def test_an_event_about_nobody_who_can_be_told_is_refused(subject: Any) -> None:
    with pytest.raises(InvalidRequestError):
        event(sub_id=subject)


def test_an_issuer_speaks_of_its_own_humans_alone() -> None:
    clock, other = Clock(), "https://other.test"
    theirs = issuer(Site(url=other, keys=[public(ec("e-2"))]), clock, other)
    made = IssuedSignals({other: EventIssuer(theirs, frozenset({BROKER}), about=other)}, clock)
    token = signed({**EVENT, "iss": other}, ec("e-2"), typ="secevent+jwt")
    with pytest.raises(InvalidRequestError, match="another issuer"):
        asyncio.run(made.event(token))


@pytest.mark.parametrize(
    ("over", "error", "says"),
    [
        ({"iss": "https://evil.test"}, TokenError, "trusted"),
        ({"aud": "https://other.test"}, AudienceError, "meant"),
        ({"aud": ...}, AudienceError, "meant"),
        ({"sub": "alice"}, TokenError, "not a security event"),
        ({"exp": CLOCK.at(hours=1)}, TokenError, "not a security event"),
        ({"jti": ...}, TokenError, "`jti`"),
        ({"iat": ...}, TokenError, "`iat`"),
        ({"iat": CLOCK.at(seconds=61)}, TokenError, "yet"),
        ({"iat": CLOCK.at(seconds=-MAX_AGE.total_seconds())}, TokenError, "older"),
        ({"events": ...}, TokenError, "no events"),
        ({"events": {}}, TokenError, "no events"),
        ({"events": [REVOKED]}, TokenError, "no events"),
        ({"events": {REVOKED: None}}, TokenError, "no event"),
        ({"events": {f"https://a.test/{n}": {} for n in range(17)}}, TokenError, "no events"),
        ({"events": {REVOKED: {"event_timestamp": "now"}}}, TokenError, "event_timestamp"),
    ],
)
def test_an_event_token_with_one_thing_wrong_is_refused(
    over: dict[str, Any], error: type[RemitError], says: str
) -> None:
    with pytest.raises(error, match=says):
        event(**over)


@pytest.mark.parametrize("typ", [None, "JWT", "logout+jwt", "at+jwt"])
def test_a_token_of_another_kind_is_no_event(typ: str | None) -> None:
    with pytest.raises(TokenError, match="type"):
        event(typ=typ)


def test_a_message_that_its_issuer_did_not_sign_ends_nothing() -> None:
    forged = signed(EVENT, ec("e-9"), kid="e-1", typ="secevent+jwt")
    for token in (forged, unsigned(EVENT, {"alg": "none", "typ": "secevent+jwt"}, "AA")):
        with pytest.raises(TokenError):
            asyncio.run(signals().event(token))
    with pytest.raises(TokenError, match="signature"):
        asyncio.run(signals().logout(signed(LOGGED_OUT, ec("e-9"), kid="e-1", typ="logout+jwt")))


def test_the_same_message_is_known_when_it_comes_again() -> None:
    token = signed(EVENT, typ="secevent+jwt")
    made = signals()
    assert asyncio.run(made.event(token)) == asyncio.run(made.event(token))
    assert event(jti="j-2")[0].digest != event()[0].digest


# -- logout tokens ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("typ", ["logout+jwt", "JWT", None])
def test_a_logout_token_names_a_human_and_a_session(typ: str | None) -> None:
    (signal,) = logout(typ=typ)
    assert (signal.sub, signal.sid) == (f"{URL}#alice", f"{URL}#s-1")
    assert (signal.cause, signal.at) == ("logout", CLOCK.now)


@pytest.mark.parametrize(
    ("over", "sub", "sid"), [({"sub": ...}, None, f"{URL}#s-1"), ({"sid": ...}, f"{URL}#alice", None)]
)
def test_a_logout_token_may_name_one_of_the_two(over: dict[str, Any], sub: str | None, sid: str | None) -> None:
    (signal,) = logout(**over)
    assert (signal.sub, signal.sid) == (sub, sid)


@pytest.mark.parametrize(
    ("over", "error", "says"),
    [
        ({"sub": ..., "sid": ...}, TokenError, "neither"),
        ({"nonce": "n"}, TokenError, "not a logout token"),
        ({"events": {REVOKED: {}}}, TokenError, "not a logout token"),
        ({"events": ...}, TokenError, "no events"),
        ({"events": {LOGOUT: None}}, TokenError, "no event"),
        ({"jti": ...}, TokenError, "`jti`"),
        ({"iat": ...}, TokenError, "`iat`"),
        ({"exp": ...}, TokenError, "`exp`"),
        ({"exp": CLOCK.at(seconds=-60)}, TokenError, "expired"),
        ({"iat": CLOCK.at(seconds=61)}, TokenError, "yet"),
        ({"aud": "another"}, AudienceError, "meant"),
        ({"iss": "https://evil.test"}, TokenError, "trusted"),
        ({"sid": 7}, TokenError, "`sid`"),
    ],
)
def test_a_logout_token_with_one_thing_wrong_is_refused(
    over: dict[str, Any], error: type[RemitError], says: str
) -> None:
    with pytest.raises(error, match=says):
        logout(**over)


def test_an_id_token_logs_nobody_out() -> None:
    with pytest.raises(TokenError, match="not a logout token"):
        logout(typ="JWT", events=..., nonce="n", auth_time=CLOCK.at())


def test_a_transmitter_that_logs_nobody_in_logs_nobody_out() -> None:
    with pytest.raises(TokenError, match="no logout tokens"):
        logout(signals(logouts=False))
