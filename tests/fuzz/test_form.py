"""Forms and queries: whatever is sent is read as one field each, or refused; nothing is read in two ways."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from remit.core.audience import Audiences
from remit.core.request import LIMITS
from remit.errors import InvalidRequestError, TargetError
from remit.oauth import token_requests
from remit.oauth.clients import TARGETS
from remit.web import wire
from remit.web.verifier import Verifier

KNOWN = frozenset({"grant_type", "ttl", "scope", "é"}) | TARGETS
NAMES = st.sampled_from(sorted(KNOWN))
BYTES = st.text("abz019%=&+;#[]éGrant_type\0\r\n ", max_size=60).map(lambda text: text.encode("utf-8"))


def read(raw: bytes) -> dict[str, str] | None:
    """Read fields, or return None for what is refused as a bad request."""
    try:
        return wire.pairs(raw, KNOWN, TARGETS)
    except InvalidRequestError:
        return None


AUDIENCES = Audiences("https://remit.test", "https://gateway.test")
VERIFIER = SimpleNamespace(issuer=AUDIENCES.issuer, gateway=AUDIENCES.gateway, audiences=AUDIENCES)


@given(st.binary(max_size=200) | BYTES)
@example(b"ttl=1&ttl=1")
@example(b"ttl=1;scope=2")
@example(b"%74tl=1&ttl=2")
@example(b"ttl=%ff")
@example(b"ttl=%")
@example(b"&")
def test_whatever_is_sent_is_read_or_refused(raw: bytes) -> None:
    fields = read(raw)
    if fields is None:
        return
    assert fields.keys() <= KNOWN
    assert all(fields.values())
    again = dict(parse_qsl(raw.decode("ascii"), keep_blank_values=True))
    assert {name: value for name, value in again.items() if value and name in KNOWN} == fields


@given(st.dictionaries(NAMES, st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)))
def test_what_was_written_is_read(fields: dict[str, str]) -> None:
    assert read(urlencode(fields).encode("ascii")) == fields


@given(NAMES, st.text("ab", max_size=3), st.text("ab", max_size=3))
def test_a_name_given_twice_is_refused_whatever_its_values(name: str, one: str, two: str) -> None:
    raw = urlencode([(name, one), ("ttl" if name != "ttl" else "scope", "1"), (name, two)]).encode("ascii")
    assert read(raw) is None


@given(st.sampled_from(sorted(TARGETS)))
def test_an_audience_given_twice_or_empty_is_refused_as_such(name: str) -> None:
    for raw in (f"{name}=a&{name}=b", f"{name}="):
        try:
            wire.pairs(raw.encode(), KNOWN, TARGETS)
        except TargetError:
            continue
        raise AssertionError(raw)


@given(st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=12))
def test_a_name_that_means_nothing_is_ignored_once_and_twice_and_refused_where_it_is_strict(name: str) -> None:
    if name in KNOWN | LIMITS | {"purpose"}:
        return
    assert read(f"{name}=1&ttl=2&{name}=3".encode()) == {"ttl": "2"}
    with pytest.raises(InvalidRequestError):
        wire.pairs(f"{name}=1".encode(), KNOWN, strict=True)


@given(st.sampled_from(sorted(LIMITS - KNOWN)), st.sampled_from("_-"))
def test_what_limits_a_grant_is_refused_where_it_means_nothing_in_any_spelling(name: str, dash: str) -> None:
    for spelled in (name, name.upper(), name.title()):
        assert read(f"{spelled.replace('_', dash)}=1".encode()) is None


@given(st.integers(wire.MAX_FIELDS + 1, 200))
def test_more_fields_than_a_form_has_are_refused(count: int) -> None:
    raw = "&".join(f"n{number}=1" for number in range(count)).encode()
    assert read(raw) is None


@given(st.dictionaries(st.sampled_from(sorted(token_requests.FIELDS)), st.text(max_size=30)))
def test_whatever_bounds_are_asked_for_is_read_or_refused(form: dict[str, str]) -> None:
    try:
        wanted = token_requests.read(form)
    except InvalidRequestError:
        return
    assert wanted.bounds.depth >= 0
    assert wanted.bounds.fan_out >= 0


@given(st.text(max_size=40), st.text(max_size=40))
def test_whoever_is_named_a_token_is_for_the_broker_or_its_gateway(resource: str, audience: str) -> None:
    form = {"resource": resource, "audience": audience}
    try:
        found = token_requests.audience(form, cast("Verifier", VERIFIER))
    except TargetError:
        return
    assert found in {None, "https://gateway.test"}
    assert {resource, audience} <= {"https://remit.test", "https://gateway.test"}
