"""A grant: never wider than its parent, never later, and within the ceilings."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from remit.core import scope
from remit.core.grant import Grant, GrantContext, make_root
from remit.core.request import MAX_DEPTH, MAX_FAN_OUT, MAX_LABEL, MAX_TTL, Bounds, GrantRequest
from remit.errors import AttenuationError, DepthError, InvalidRequestError
from tests.grant_requests import changed

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
SEARCH = {"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/v1/**"]}
NARROW = {**SEARCH, "paths": ["/v1/a"]}
WIDE = {**SEARCH, "paths": ["/**"]}
READER = "spiffe://prod.test/reader"
WANTED = GrantRequest(scope.parse([SEARCH]), Bounds(timedelta(minutes=5), depth=2, fan_out=3))
ROOT = make_root("grt_1", WANTED, GrantContext(), NOW)


def child(*raw: Mapping[str, object], **more: object) -> Grant:
    """Make a child of the root."""
    wanted = GrantRequest(scope.parse([dict(item) for item in raw or (NARROW,)]))
    return ROOT.child("grt_2", changed(wanted, more), GrantContext("sub"), NOW + SECOND)


def test_a_root_has_no_parent_and_ends_after_its_ttl() -> None:
    assert (ROOT.parent, ROOT.level, ROOT.covers) == (None, 0, ())
    assert (ROOT.opened_at, ROOT.expires_at) == (NOW, NOW + timedelta(minutes=5))
    assert (ROOT.bounds.depth, ROOT.bounds.fan_out, ROOT.revoked, ROOT.bounds.exercise) == (2, 3, False, True)


def test_a_child_hangs_one_level_below_and_remembers_what_covers_it() -> None:
    made = child(NARROW, SEARCH)
    assert (made.parent, made.level, made.covers) == ("grt_1", 1, (0, 0))


def test_a_ttl_beyond_the_ceiling_is_refused_with_what_to_do() -> None:
    with pytest.raises(InvalidRequestError, match="from 1 second to 28800 seconds") as refusal:
        child(ttl=MAX_TTL + SECOND)
    assert refusal.value.help == "renew the task before it ends, or open another one then"


def test_a_child_without_a_ttl_ends_with_its_parent() -> None:
    assert child().expires_at == ROOT.expires_at


def test_a_child_may_end_with_its_parent_and_no_later() -> None:
    left = ROOT.expires_at - NOW - SECOND
    assert child(ttl=left).expires_at == ROOT.expires_at
    with pytest.raises(AttenuationError, match="ends after the parent"):
        child(ttl=left + timedelta(microseconds=1))


def test_what_is_wider_is_refused_with_all_offending_details() -> None:
    other = {**SEARCH, "resource": "other"}
    with pytest.raises(AttenuationError) as caught:
        child(WIDE, NARROW, other)
    assert [(d["resource"], d["paths"]) for d in caught.value.offending] == [("search", ["/**"]), ("other", ["/v1/**"])]


def test_a_child_is_of_its_parents_client_unless_it_is_attested_as_one_itself() -> None:
    assert (ROOT.client, child().client) == (None, None)
    root = make_root("grt_1", WANTED, GrantContext(client="app"), NOW)
    wanted = GrantRequest(scope.parse([NARROW]))
    assert root.client == root.child("grt_2", wanted, GrantContext("sub"), NOW).client == "app"
    named = changed(wanted, {"agent": READER, "attested": True})
    assert root.child("grt_2", named, GrantContext("sub"), NOW).client == READER


CEILINGS = {
    "depth below zero": {"depth": -1},
    "depth above the ceiling": {"depth": MAX_DEPTH + 1},
    "fan-out below zero": {"fan_out": -1},
    "fan-out above the ceiling": {"fan_out": MAX_FAN_OUT + 1},
    "no time at all": {"ttl": timedelta(0)},
    "less than no time": {"ttl": -SECOND},
    "more time than the ceiling": {"ttl": MAX_TTL + timedelta(microseconds=1)},
    "all the time there is": {"ttl": timedelta.max},
    "a label of two lines": {"label": "a\nb"},
    "a label that is too long": {"label": "a" * (MAX_LABEL + 1)},
}


@pytest.mark.parametrize("more", CEILINGS.values(), ids=CEILINGS.keys())
def test_what_is_beyond_the_ceilings_is_a_bad_request(more: dict[str, object]) -> None:
    with pytest.raises(InvalidRequestError):
        make_root("grt_1", changed(WANTED, more), GrantContext(), NOW)


def test_the_ceilings_themselves_are_accepted() -> None:
    most = changed(WANTED, {"depth": MAX_DEPTH, "fan_out": MAX_FAN_OUT, "ttl": MAX_TTL, "label": "a" * MAX_LABEL})
    assert make_root("grt_1", most, GrantContext(), NOW).expires_at == NOW + MAX_TTL


def test_a_grant_keeps_who_holds_it_and_how() -> None:
    made = child(agent="sub", attested=True, jkt="thumb", label="researcher", exercise=False)
    assert (made.agent, made.attested, made.binding.jkt, made.label, made.bounds.exercise) == (
        "sub",
        True,
        "thumb",
        "researcher",
        False,
    )


def test_a_root_says_how_long_it_lasts() -> None:
    with pytest.raises(InvalidRequestError, match="`ttl` is missing"):
        make_root("grt_1", changed(WANTED, {"ttl": None}), GrantContext(), NOW)


DELEGABLE: dict[str, tuple[dict[str, object], dict[str, object], str]] = {
    "no hop is left": ({"depth": 0}, {}, "may not be delegated further"),
    "more hops than are left": ({}, {"depth": 2}, "`depth` may be at most 1 here"),
    "more children than its own": ({}, {"fan_out": 4}, "`fan_out` may be at most 3 here"),
    "nobody attests it": ({"unattested": False}, {}, "attested agents alone"),
    "not one of those who may be delegates": ({"delegates": ()}, {"agent": "a", "attested": True}, "to this agent"),
}


@pytest.mark.parametrize(("above", "more", "says"), DELEGABLE.values(), ids=DELEGABLE.keys())
def test_what_a_grant_may_not_delegate_is_refused_with_what_to_do(
    above: dict[str, object], more: dict[str, object], says: str
) -> None:
    parent = make_root("grt_1", changed(WANTED, above), GrantContext(), NOW)
    with pytest.raises(DepthError, match=says) as refusal:
        parent.check_delegable(changed(GrantRequest(WANTED.scope), more))
    assert refusal.value.help


def test_what_a_grant_may_delegate_is_taken_to_its_edges() -> None:
    ROOT.check_delegable(changed(GrantRequest(WANTED.scope), {"depth": 1, "fan_out": 3}))
    attested = {"agent": "spiffe://prod.test/ci", "attested": True}
    closed = make_root("grt_1", changed(WANTED, {"unattested": False}), GrantContext(), NOW)
    closed.check_delegable(changed(GrantRequest(WANTED.scope), attested))


def test_the_size_of_a_grant_counts_all_that_its_request_can_make_long() -> None:
    named = changed(WANTED, {"label": "four", "delegates": ("spiffe://prod.test/**",)})
    made = make_root("grt_1", named, GrantContext("agent"), NOW)
    assert made.size - scope.size(WANTED.scope) == len("four") + len("spiffe://prod.test/**") + len("agent")
