"""``[scopes.NAME]``, read strictly: a mistake is told when the broker starts, with its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from remit.compose.identities import scopes
from remit.config.settings import Places, Settings, read
from remit.errors import InvalidRequestError

DETAIL = {"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/**"]}
FIND = {"authorization_details": [DETAIL], "purpose": "find things"}


def _settings(name: str, table: object) -> Settings:
    return read(Places(Path("/c"), Path("/s"), Path("/r")), {"scopes": {name: table}})


def test_a_name_stands_for_details_a_purpose_and_a_time() -> None:
    found = scopes(_settings("find:web", {**FIND, "title": "Search", "ttl": 60, "clients": ["app"]}))["find:web"]
    assert [detail.resource for detail in found.details] == ["search"]
    assert (found.purpose, found.title, found.ttl, found.clients) == ("find things", "Search", 60, ("app",))


@pytest.mark.parametrize(
    ("name", "table", "told"),
    [
        ("two words", FIND, "`scopes` has a name"),
        ("", FIND, "`scopes` has a name"),
        ('quo"te', FIND, "`scopes` has a name"),
        ("find", {**FIND, "purpose": ""}, "`scopes.purpose` must be text"),
        ("find", {"authorization_details": [DETAIL]}, "`scopes.purpose` is missing"),
        ("find", {"purpose": "find things"}, "`scopes.authorization_details` is missing"),
        ("find", {**FIND, "authorization_details": []}, "scopes.authorization_details"),
        ("find", {**FIND, "authorization_details": [{**DETAIL, "pahts": []}]}, "`scopes.find`: `pahts` is not a field"),
        ("find", {**FIND, "authorization_details": [{"type": "nothing"}]}, "`scopes.find`: `type` must be one of"),
        ("find", {**FIND, "ttl": 0}, "scopes.ttl"),
        ("find", {**FIND, "ttl": 86_401}, "`scopes.find`: `ttl` must be"),
        ("find", {**FIND, "titel": "x"}, "`scopes.titel` is not a setting"),
        ("find", "all", "`scopes` must be sections by name"),
    ],
)
def test_what_is_wrong_is_told_with_its_name(name: str, table: object, told: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        scopes(_settings(name, table))
    assert told in caught.value.detail
