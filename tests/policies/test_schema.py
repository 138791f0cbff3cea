"""The optional dependency is asked for in one place, and its absence is said."""

from __future__ import annotations

import sys

import pytest

from remit.errors import UnavailableError
from remit.policies import model


def test_without_cedar_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cedarpy", None)
    with pytest.raises(UnavailableError) as caught:
        model.cedar()
    assert caught.value.help == "in a clone of remit: pip install '.[policy]'"


def test_the_schema_is_parsed_once() -> None:
    assert model.schema() is model.schema()
    assert "action open, delegate, issue, renew" in model.schema_text()
