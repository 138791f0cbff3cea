"""Delegability is explicit: hops, children, by whom, attested or not, used or not; more than that needs an approval."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.core import scope, spiffe
from remit.core.grant import APPROVED, Grant, GrantContext, make_root
from remit.core.request import MAX_DEPTH, MAX_FAN_OUT, MAX_TTL, Bounds, GrantRequest
from remit.core.task import Subject, nothing, open_task
from remit.errors import AttenuationError, DelegateError, DeniedError, InvalidRequestError
from tests.grant_requests import changed

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SEARCH = {"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/v1/**"]}
OTHER = {**SEARCH, "resource": "mail"}
CI, CI_ALL = "spiffe://prod.test/ci/build", "spiffe://prod.test/ci/**"
DEV = "spiffe://dev.test/planner"
KEYED, MINE = "wimse://prod.test/**", "wimse://prod.test/planner"
PATTERNS = ("*", CI, CI_ALL, KEYED, MINE, "spiffe://prod.test/**", "spiffe://dev.test/**", "https://ci.test#repo")
WANTED = GrantRequest(scope.parse([SEARCH]), Bounds(timedelta(minutes=5), depth=3, fan_out=3))


def root(**more: object) -> Grant:
    """Return a root grant."""
    return make_root("grt_1", changed(WANTED, more), GrantContext(), NOW)


def child(parent: Grant, raw: Mapping[str, object] = SEARCH, /, approval: str | None = None, **more: object) -> Grant:
    """Return a child of ``parent``."""
    return parent.child("grt_2", wanted(raw, **more), GrantContext(approval=approval), NOW)


def wanted(raw: Mapping[str, object] = SEARCH, /, **more: object) -> GrantRequest:
    """Return what a child asks for."""
    return changed(GrantRequest(scope.parse([dict(raw)])), more)


# -- by whom ----------------------------------------------------------------------------------------------------------


def test_a_root_may_be_delegated_to_every_attested_workload_unless_it_says_to_whom() -> None:
    assert root().delegates == (spiffe.ANY,)
    assert root(delegates=()).delegates == ()
    assert root(delegates=(CI_ALL,)).delegates == (CI_ALL,)


def test_a_child_has_its_parents_delegates_unless_it_names_fewer() -> None:
    above = root(delegates=(CI_ALL, "https://ci.test#repo"))
    assert child(above).delegates == above.delegates
    assert child(above, delegates=(CI,)).delegates == (CI,)
    assert child(above, delegates=()).delegates == ()
    for wider in (("*",), ("spiffe://prod.test/**",), (CI, "spiffe://dev.test/x"), ("https://ci.test#other",)):
        with pytest.raises(AttenuationError, match="`delegates` is wider"):
            child(above, delegates=wider)


@pytest.mark.parametrize(
    "patterns", [("spiffe://",), ("spiffe://*/x",), ("",), ("a*",), ("spiffe://prod.test/**/x",), (CI,) * 33]
)
def test_what_is_no_pattern_and_too_many_are_refused(patterns: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequestError):
        root(delegates=patterns)


@pytest.mark.attack("DOS-09")
def test_the_patterns_of_a_grant_are_bounded_together_and_the_most_are_compared_fast() -> None:
    with pytest.raises(InvalidRequestError, match="8,192 characters"):
        root(delegates=tuple(f"spiffe://d.test/{'a/' * 900}{n}" for n in range(5)))
    wide = (*tuple(f"spiffe://d.test/{'*/' * 110}y{n:02}" for n in range(31)), f"spiffe://d.test/{'*/' * 110}**")
    parent = root(delegates=wide)
    last = tuple(f"spiffe://d.test/{'a/' * 110}x{n:02}" for n in range(32))
    took = []
    for _ in range(3):
        start = time.thread_time()
        assert child(parent, delegates=last).delegates == last
        took.append(time.thread_time() - start)
    assert min(took) < 0.05


def test_who_may_be_a_delegate() -> None:
    assert root().may_be_delegated_to(CI)
    assert root(delegates=(CI_ALL,)).may_be_delegated_to(CI)
    assert not root(delegates=(CI_ALL,)).may_be_delegated_to("spiffe://prod.test/cix")
    assert not root(delegates=(CI_ALL,)).may_be_delegated_to("spiffe://dev.test/ci/build")
    assert not root(delegates=()).may_be_delegated_to(CI)
    assert root(delegates=("https://ci.test#repo",)).may_be_delegated_to("https://ci.test#repo")


@given(st.lists(st.sampled_from(PATTERNS), max_size=3), st.lists(st.sampled_from(PATTERNS), max_size=3))
def test_no_chain_of_children_reaches_a_workload_that_the_root_may_not(first: list[str], second: list[str]) -> None:
    above = root(delegates=tuple(first))
    try:
        below = child(above, delegates=tuple(second), depth=2)
    except AttenuationError:
        return
    for agent in (CI, "spiffe://prod.test/x", "spiffe://dev.test/x", "https://ci.test#repo"):
        assert above.may_be_delegated_to(agent) or not below.may_be_delegated_to(agent)


# -- attested or not --------------------------------------------------------------------------------------------------


def test_where_only_attested_children_may_be_that_holds_for_all_below() -> None:
    above = root(unattested=False)
    assert not above.bounds.unattested
    with pytest.raises(AttenuationError, match="`unattested` must be false"):
        child(above, depth=1)
    below = child(above, depth=1, unattested=False)
    assert not below.bounds.unattested
    assert not child(below).bounds.unattested  # a leaf need not say it


def test_a_child_may_be_stricter_than_its_parent() -> None:
    assert root().bounds.unattested
    assert not child(root(), unattested=False).bounds.unattested
    assert child(root()).bounds.unattested


@pytest.mark.parametrize(
    ("more", "apart"),
    [
        ({}, False),
        ({"jkt": "k" * 43}, True),
        ({"x5t": "x" * 43}, True),
        ({"agent": CI, "attested": True}, True),
    ],
)
def test_a_grant_is_for_one_holder_alone_where_it_is_bound_or_attested(more: dict[str, object], *, apart: bool) -> None:
    assert root(**more).apart is apart


# -- used or not ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({}, None),
        ({"exercise": False}, "advisory"),
        ({"exercise": False, "depth": 0}, "binding"),
        ({"exercise": False, "unattested": False}, "advisory"),  # it may be attested by a name of its own
        ({"exercise": False, "unattested": False, "delegates": (CI_ALL,)}, "advisory"),  # what it is shown, it can show
        ({"exercise": False, "unattested": False, "delegates": (CI_ALL,), "agent": DEV, "attested": True}, "advisory"),
        ({"exercise": False, "unattested": False, "delegates": (KEYED,), "agent": CI, "attested": True}, "binding"),
        ({"exercise": False, "unattested": False, "delegates": (KEYED,)}, "advisory"),  # it may have such a name too
        ({"exercise": False, "unattested": False, "delegates": (KEYED, CI), "agent": CI, "attested": True}, "advisory"),
        ({"exercise": False, "unattested": False, "delegates": ()}, "binding"),
        ({"exercise": False, "unattested": True, "delegates": (KEYED,), "agent": CI, "attested": True}, "advisory"),
        ({"exercise": False, "unattested": False, "delegates": (KEYED,), "agent": MINE, "attested": True}, "advisory"),
    ],
)
def test_exercise_false_binds_only_where_no_child_can_be_the_holder_itself(
    more: dict[str, object], says: str | None
) -> None:
    assert root(**more).unusable == says


CHILDREN: list[dict[str, object]] = [
    {},
    {"jkt": "k" * 43},
    *({"agent": name, "attested": True, **more} for name in PATTERNS[1:] for more in ({}, {"jkt": "k" * 43})),
]


@given(
    st.sampled_from([{}, {"agent": CI, "attested": True}, {"agent": MINE, "attested": True}]),
    st.booleans(),
    st.lists(st.sampled_from(PATTERNS), max_size=2),
    st.sampled_from(CHILDREN),
)
def test_under_no_child_of_a_grant_that_binds_may_its_holder_act(
    own: dict[str, object], unattested: object, delegates: list[str], made: dict[str, object]
) -> None:
    more = {"exercise": False, "unattested": unattested, "delegates": tuple(delegates), **own}
    start = open_task(
        "task_1", "root", Subject("s", "a"), changed(WANTED, {"purpose": "p", **more}), GrantContext(), NOW
    )
    task = nothing("task_1").apply(start)
    try:
        task = task.apply(task.delegate("root", "child", wanted(**made), GrantContext(), NOW))
    except DelegateError:
        return
    if task.grant("root").unusable == "binding":
        assert made["attested"]
        assert made["agent"] != own.get("agent")
        with pytest.raises(DeniedError):
            task.check_acting("child", "root")


# -- beyond -----------------------------------------------------------------------------------------------------------

BEYOND: dict[str, tuple[dict[str, object], dict[str, object], tuple[str, ...]]] = {
    "nothing": ({}, {"depth": 2, "fan_out": 3}, ()),
    "details": ({}, {"scope": scope.parse([OTHER])}, ("authorization_details",)),
    "depth": ({}, {"depth": 3}, ("depth",)),
    "no hop at all": ({"depth": 0}, {}, ("depth",)),
    "fan-out": ({}, {"fan_out": 4}, ("fan_out",)),
    "delegates": ({"delegates": (CI,)}, {"delegates": (CI_ALL,)}, ("delegates",)),
    "fewer delegates": ({"delegates": (CI_ALL,)}, {"delegates": (CI,)}, ()),
    "an agent that is no delegate": ({"delegates": ()}, {"agent": CI, "attested": True}, ("delegates",)),
    "an agent that is one": ({"delegates": (CI,)}, {"agent": CI, "attested": True}, ()),
    "an agent that nobody attested": ({"unattested": False}, {}, ("unattested",)),
    "children that nobody attests": (
        {"unattested": False},
        {"agent": CI, "attested": True, "depth": 1},
        ("unattested",),
    ),
    "a leaf": ({"unattested": False}, {"agent": CI, "attested": True}, ()),
    "everything": (
        {"depth": 0, "fan_out": 0, "delegates": (), "unattested": False},
        {"scope": scope.parse([OTHER]), "depth": 1, "fan_out": 1, "delegates": (CI,)},
        ("authorization_details", "depth", "fan_out", "delegates", "unattested"),
    ),
}


@pytest.mark.parametrize(("above", "more", "expected"), BEYOND.values(), ids=BEYOND.keys())
def test_what_a_human_has_to_approve_is_named(
    above: dict[str, object], more: dict[str, object], expected: tuple[str, ...]
) -> None:
    assert root(**above).beyond(wanted(SEARCH, **more)) == expected


def test_what_was_approved_may_exceed_its_parent_in_details_and_delegability() -> None:
    above = root(depth=0, fan_out=0, delegates=(), unattested=False)
    more: dict[str, object] = {"depth": 2, "fan_out": 5, "delegates": (CI_ALL,), "unattested": True}
    made = child(above, OTHER, approval="apr_1", **more)
    assert (made.covers, made.approval) == ((APPROVED,), "apr_1")
    assert (made.bounds.depth, made.bounds.fan_out, made.delegates, made.bounds.unattested) == (2, 5, (CI_ALL,), True)
    kept = child(above, SEARCH, approval="apr_1")
    assert (kept.covers, kept.delegates, kept.bounds.unattested) == ((0,), (), True)


def test_no_approval_outlasts_the_parent_or_passes_a_ceiling() -> None:
    above = root()
    late = child(above, OTHER, approval="apr_1", ttl=timedelta(hours=1))
    assert late.expires_at == above.expires_at
    for more in ({"depth": MAX_DEPTH}, {"fan_out": MAX_FAN_OUT + 1}, {"ttl": MAX_TTL * 2}, {"delegates": ("",)}):
        with pytest.raises(InvalidRequestError):
            child(above, OTHER, approval="apr_1", **more)


@pytest.mark.parametrize("more", [{"depth": 3}, {"fan_out": 4}])
def test_nobody_is_further_from_the_human_than_the_ceiling(more: dict[str, object]) -> None:
    deep = replace(root(depth=1), level=MAX_DEPTH - 1)
    assert child(deep).level == MAX_DEPTH
    with pytest.raises(InvalidRequestError, match="hops from the human"):
        child(deep, depth=1)
    assert root().beyond(wanted(SEARCH, **more)) != ()


@pytest.mark.parametrize("approval", [None, "apr_1"])
def test_nobody_holds_a_child_by_a_token_alone(approval: str | None) -> None:
    with pytest.raises(DelegateError):
        child(root(), approval=approval, bearer="search")
    assert child(root(), jkt="k").binding.by_token
