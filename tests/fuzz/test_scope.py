from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from remit.core import scope
from remit.core.scope import Scope
from remit.errors import RemitError
from remit.jose.strict import read_json
from tests.core.drawn import details
from tests.fuzz.test_token import JSON

BREAKING = ['"', "\\", "{", "}", "[", "]", ",", ":", "\0", "\n", "NaN", "1e9", "é", "\\ud800", "null", "-0", "true"]


def read(text: str) -> Scope | None:
    """Read a scope as the token endpoint does; None when it is refused, and nothing else is raised."""
    try:
        return scope.parse(read_json(text))
    except RemitError:
        return None


@given(st.text(max_size=200))
def test_no_text_is_a_scope_by_chance(text: str) -> None:
    assert read(text) is None


@given(JSON)
def test_no_json_is_a_scope_by_chance(value: object) -> None:
    assert read(json.dumps(value)) is None


@given(st.data())
def test_a_scope_with_text_put_into_it_is_read_to_one_meaning_or_refused(data: st.DataObject) -> None:
    text = json.dumps([data.draw(details())])
    at = data.draw(st.integers(0, len(text)))
    found = read(text[:at] + data.draw(st.sampled_from(BREAKING)) + text[at:])
    if found is not None:
        assert scope.parse(read_json(json.dumps(scope.dump(found)))) == found


@given(st.data())
def test_a_name_given_twice_is_refused_wherever_it_is(data: st.DataObject) -> None:
    raw = data.draw(details())
    name = data.draw(st.sampled_from(sorted(raw)))
    text = json.dumps(raw)
    assert read(f'[{text[:-1]}, "{name}": {json.dumps(raw[name])}}}]') is None
