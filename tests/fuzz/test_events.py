"""Security event tokens and logout tokens: whatever they hold, they are read, or refused with an error of ours."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.core.principal import Signal
from remit.errors import InvalidRequestError, TokenError
from remit.sessions.events import CAEP, LOGOUT, EventIssuer, IssuedSignals
from tests.fuzz.test_token import ALPHABET, JSON
from tests.identity.issuing import URL, Clock, issuer, signed

CLOCK = Clock()
SIGNALS = IssuedSignals({URL: EventIssuer(issuer(clock=CLOCK), frozenset({"remit"}), about=URL)}, CLOCK)
KIND = f"{CAEP}session-revoked"
HUMAN: dict[str, object] = {"format": "iss_sub", "iss": URL, "sub": "alice"}
COMMON: dict[str, object] = {"iss": URL, "aud": "remit", "iat": CLOCK.at(), "jti": "j"}
SET: dict[str, object] = {**COMMON, "sub_id": HUMAN, "events": {KIND: {}}}
OUT: dict[str, object] = {**COMMON, "exp": CLOCK.at(minutes=2), "sub": "alice", "events": {LOGOUT: {}}}
GOOD_SET, GOOD_OUT = signed(SET, typ="secevent+jwt"), signed(OUT, typ="logout+jwt")

SUBJECTS = st.recursive(
    st.sampled_from([HUMAN, {"format": "opaque", "id": "s"}, {"format": "email", "email": "a@b"}]) | JSON,
    lambda inner: st.fixed_dictionaries(
        {"format": st.sampled_from(["complex", "aliases", "iss_sub", "opaque"])},
        optional={
            "user": inner,
            "session": inner,
            "identifiers": st.lists(inner, max_size=3),
            "id": inner,
            "sub": inner,
        },
    ),
    max_leaves=6,
)

Read = Callable[[str], Awaitable[Sequence[Signal]]]


def read(by: Read, text: str) -> Sequence[Signal] | None:
    """Read a token; None when it is refused, with one of the two errors there are for it."""

    async def main() -> Sequence[Signal]:
        return await by(text)

    try:
        return asyncio.run(main())
    except (TokenError, InvalidRequestError):
        return None


def test_what_is_changed_below_is_good_as_it_is() -> None:
    event, logout = read(SIGNALS.event, GOOD_SET), read(SIGNALS.logout, GOOD_OUT)
    assert event is not None
    assert logout is not None
    assert [one.sub for one in (*event, *logout)] == [f"{URL}#alice"] * 2


@given(st.text(max_size=200))
def test_no_text_says_anything_by_chance(text: str) -> None:
    assert read(SIGNALS.event, text) is None
    assert read(SIGNALS.logout, text) is None


@given(st.data(), st.sampled_from(ALPHABET))
def test_no_character_can_be_replaced(data: st.DataObject, char: str) -> None:
    for by, good in ((SIGNALS.event, GOOD_SET), (SIGNALS.logout, GOOD_OUT)):
        index = data.draw(st.integers(0, len(good) - 1))
        if good[index] != char:
            assert read(by, good[:index] + char + good[index + 1 :]) is None


@given(st.sampled_from(["iss", "aud", "iat", "jti", "sub_id", "events", "txn", "exp", "sub", "toe"]), JSON)
def test_whatever_stands_in_a_claim_it_is_about_no_human_of_another_issuer(name: str, value: object) -> None:
    for by, good, typ in ((SIGNALS.event, SET, "secevent+jwt"), (SIGNALS.logout, OUT, "logout+jwt")):
        for signal in read(by, signed({**good, name: value}, typ=typ)) or ():
            assert signal.sub is None or signal.sub.startswith(f"{URL}#")
            assert signal.sid is None or signal.sid.startswith(f"{URL}#")
            assert signal.sub is not None or signal.sid is not None


@given(SUBJECTS)
def test_whatever_a_subject_is_it_names_somebody_or_is_refused(subject: object) -> None:
    for signal in read(SIGNALS.event, signed({**SET, "sub_id": subject}, typ="secevent+jwt")) or ():
        assert signal.sub is not None or signal.sid is not None
        assert signal.sub in {None, f"{URL}#alice"} or str(signal.sub).startswith(f"{URL}#")


@given(st.dictionaries(st.sampled_from([KIND, LOGOUT, f"{CAEP}risk-level-change", "x"]), JSON, max_size=3))
def test_whatever_an_event_holds_it_says_the_same_twice(events: dict[str, object]) -> None:
    token = signed({**SET, "events": events}, typ="secevent+jwt")
    first = read(SIGNALS.event, token)
    assert read(SIGNALS.event, token) == first
    if first:
        assert KIND in events or f"{CAEP}risk-level-change" in events


@pytest.mark.parametrize("typ", ["secevent+jwt", "logout+jwt", "JWT", None])
def test_one_kind_is_never_taken_for_the_other(typ: str | None) -> None:
    both = {**SET, **OUT, "events": {KIND: {}, LOGOUT: {}}}
    assert read(SIGNALS.event, signed(both, typ=typ)) is None  # an event never expires
    if typ == "secevent+jwt":
        assert read(SIGNALS.logout, signed(both, typ=typ)) is None
