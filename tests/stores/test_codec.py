from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.core import scope
from remit.core.request import Binding, Bounds
from remit.core.task import Change, Grant, Lease, LeaseState, Plan, Posture, Revocation, Subject, TaskHeader
from remit.errors import IntegrityError, InvalidRequestError, UnknownDetailError
from remit.ports import Resource
from remit.stores import codec
from remit.testing.samples import NOW, RESOURCE, SCOPE, lease, opening

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
INSTANT = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds
WHOLE = st.integers(0, 2**31)
MAP = st.dictionaries(TEXT, TEXT, max_size=3)


def settled(grant: Grant) -> Grant:
    """Return a grant whose parts say what its other fields say."""
    bounds = replace(grant.bounds, ttl=grant.expires_at - grant.opened_at)
    identity = None if grant.binding.identity is None else grant.agent
    return replace(grant, bounds=bounds, binding=replace(grant.binding, identity=identity))


HEADS = st.builds(
    TaskHeader, TEXT, WHOLE, TEXT, st.builds(Subject, TEXT, TEXT, st.none() | INSTANT, st.lists(TEXT).map(tuple),
        st.lists(TEXT).map(tuple), st.none() | TEXT), TEXT,
    INSTANT, INSTANT, st.booleans(),
)  # fmt: skip
BOUNDS = st.builds(Bounds, st.none(), WHOLE, WHOLE, st.booleans(), st.lists(TEXT).map(tuple), st.booleans())
BINDINGS = st.builds(
    Binding,
    *(st.none() | TEXT for _ in range(3)),
    st.lists(st.tuples(TEXT, TEXT)).map(tuple),
    st.none() | TEXT,
)
GRANTS = st.builds(
    Grant, TEXT, st.none() | TEXT, TEXT, st.sampled_from([SCOPE, SCOPE[:1], SCOPE[1:]]),
    st.lists(WHOLE, max_size=3).map(tuple), WHOLE, BOUNDS, INSTANT, INSTANT, BINDINGS,
    st.builds(Posture, TEXT, TEXT, TEXT), st.booleans(), TEXT, st.none() | TEXT, st.none() | TEXT, st.none() | WHOLE,
    st.none() | TEXT,
).map(settled)  # fmt: skip
PLANS = st.builds(Plan, TEXT, st.sampled_from(SCOPE), MAP, INSTANT, st.sampled_from(Revocation))
LEASES = st.builds(
    Lease, TEXT, TEXT, PLANS, st.sampled_from(LeaseState), INSTANT, st.none() | MAP, st.booleans(), st.none() | TEXT,
    WHOLE, st.none() | INSTANT, st.booleans(),
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | WHOLE | TEXT, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner)
)
RESOURCES = st.builds(
    Resource, TEXT, TEXT, TEXT, st.sampled_from([(), SCOPE, SCOPE[2:]]), st.none() | TEXT, st.dictionaries(TEXT, JSON)
)


@given(HEADS)
def test_a_head_reads_back_exactly(head: TaskHeader) -> None:
    assert codec.read_head(codec.head_bytes(head)) == head


@given(GRANTS)
def test_a_grant_reads_back_exactly(grant: Grant) -> None:
    assert codec.read_grant(codec.grant_bytes(grant)) == grant


@given(LEASES)
def test_a_lease_reads_back_exactly(lease: Lease) -> None:
    assert codec.read_lease(codec.lease_bytes(lease)) == lease


@given(RESOURCES)
def test_a_resource_reads_back_exactly(resource: Resource) -> None:
    assert codec.read_resource(codec.resource_bytes(resource)) == resource


def test_reading_restores_types_and_not_just_equal_values() -> None:
    found = codec.read_lease(codec.lease_bytes(replace(lease("l", "g"), receipt={"a": "b"})))
    assert type(found.state) is LeaseState
    assert type(found.plan.revocation) is Revocation
    assert found.plan.issue_by.tzinfo is UTC


@pytest.mark.parametrize("kind", [TaskHeader, Grant, Bounds, Binding, Lease, Plan, Resource, Change])
def test_the_strategies_know_every_field(kind: type) -> None:
    known = {TaskHeader: 8, Grant: 17, Bounds: 6, Binding: 5, Lease: 11, Plan: 5, Resource: 6, Change: 5}
    assert len(fields(kind)) == known[kind], "teach the strategies above the new field"


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"id": 7}', b"\xff", b'{"plan": 3}', b'{"plan": {}, "scope": 1}']
)
def test_what_is_no_row_is_refused(data: bytes) -> None:
    for read in (codec.read_head, codec.read_grant, codec.read_lease, codec.read_resource):
        with pytest.raises(IntegrityError):
            read(data)


def test_a_stored_scope_of_an_unknown_type_is_refused() -> None:
    data = codec.grant_bytes(opening().grants[0]).replace(b'"type":"sample-tools"', b'"type":"xyz"')
    with pytest.raises(IntegrityError):
        codec.read_grant(data)


@pytest.mark.parametrize("odd", ["\ud800", object(), {1: 2}.keys()])
def test_a_value_that_json_cannot_hold_is_refused_and_not_changed(odd: object) -> None:
    with pytest.raises(InvalidRequestError):
        codec.resource_bytes(replace(RESOURCE, settings={"odd": odd}))


def test_a_grant_of_before_clients_were_kept_is_read_as_one_of_none() -> None:
    [grant] = opening().grants
    stored = codec.grant_bytes(replace(grant, client=None)).replace(b',"client":null', b"")
    assert b"client" not in stored
    assert codec.read_grant(stored) == replace(grant, client=None)


def test_rows_can_be_read_with_any_tool() -> None:
    text = codec.grant_bytes(opening().grants[0]).decode()
    assert '"paths":["/v1/*/items","/v2/**"]' in text
    assert f'"opened_at":"{NOW.isoformat()[:-6]}Z"' in text


def test_what_was_accepted_under_wider_bounds_is_read_back_and_can_be_narrowed() -> None:
    """A start must not fall over, or end, what an earlier version let in; only what is asked for is bounded."""
    detail = {"type": "http", "resource": "search", "actions": ["GET"], "paths": [f"/v1/{n}" for n in range(256)]}
    many = scope.read([detail] * 64)
    with pytest.raises(UnknownDetailError):
        scope.parse([detail] * 64)
    [grant] = opening().grants
    read = codec.read_grant(codec.grant_bytes(replace(grant, scope=many)))
    assert read.scope == many
    assert scope.covering(scope.parse([{**detail, "paths": ["/v1/7"]}]), read.scope) == (0,)


def test_a_detail_of_a_kind_that_is_gone_says_so() -> None:
    stored = codec.resource_bytes(RESOURCE).replace(b'"type":"sample-requests"', b'"type":"gone"')
    with pytest.raises(IntegrityError, match="stored detail") as caught:
        codec.read_resource(stored)
    assert "[kinds]" in (caught.value.help or "")
