"""Details: what is read, what is refused, and the laws of ``<=`` and ``permits``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remit.core import orders, scope
from remit.core.scope import Access, Detail, Field, detail_le
from remit.errors import ConflictError, InvalidRequestError, RemitError, UnknownDetailError
from tests.core.drawn import Raw, above_or_beside, accesses, below, details, read
from tests.core.oracle import permits, permitting

SEARCH: Raw = {"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/v1/**"]}
ISSUES: Raw = {
    "type": "calls",
    "resource": "github",
    "actions": ["tools/call"],
    "tools": {"create_issue": {"repo": "acme/app"}},
}
REVENUE: Raw = {"type": "postgres", "resource": "warehouse", "actions": ["select"], "tables": ["sales.revenue"]}


def one(raw: Raw, **more: object) -> Detail:
    """Read one detail with some fields changed."""
    return scope.parse_detail({**raw, **more})


# -- laws -----------------------------------------------------------------------------------------------------------


@given(details())
def test_every_detail_is_part_of_itself(raw: Raw) -> None:
    assert detail_le(read(raw), read(raw))


@given(st.data())
def test_narrowing_is_accepted_over_any_number_of_hops(data: st.DataObject) -> None:
    raw = data.draw(details())
    chain = [raw]
    for _ in range(3):
        chain.append(data.draw(below(chain[-1])))
        assert detail_le(read(chain[-1]), read(chain[-2])), (chain[-1], chain[-2])
        assert detail_le(read(chain[-1]), read(raw))


@given(st.data())
def test_part_of_a_part_is_part_of_the_whole(data: st.DataObject) -> None:
    drawn = [read(data.draw(st.one_of(details(("http",)), st.just(SEARCH)))) for _ in range(3)]
    for a in drawn:
        for b in drawn:
            for c in drawn:
                assert not (detail_le(a, b) and detail_le(b, c)) or detail_le(a, c)


@given(st.data())
def test_widening_is_refused_in_every_field(data: st.DataObject) -> None:
    raw = data.draw(details())
    name, wider = data.draw(above_or_beside(raw))
    assert not detail_le(read(wider), read(raw)), name


@settings(max_examples=300)
@given(st.data())
def test_what_a_part_permits_the_whole_permits(data: st.DataObject) -> None:
    parent = data.draw(details(("http", "calls")))
    child = data.draw(st.one_of(below(parent), details(("http", "calls")), above_or_beside(parent).map(lambda w: w[1])))
    access = data.draw(accesses(child))
    if detail_le(read(child), read(parent)) and permits(read(child), access):
        assert permits(read(parent), access)


@settings(max_examples=300)
@given(st.data())
def test_details_that_are_part_of_each_other_permit_the_same(data: st.DataObject) -> None:
    left = data.draw(details(("http", "calls")))
    right = data.draw(below(left))
    access = data.draw(accesses(left))
    if detail_le(read(left), read(right)):
        assert permits(read(left), access) == permits(read(right), access)


def test_the_generator_reaches_what_the_laws_speak_of() -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=300, database=None, derandomize=True)
    @given(st.data())
    def draw(data: st.DataObject) -> None:
        parent = data.draw(details(("http", "calls")))
        child = data.draw(below(parent))
        access = data.draw(accesses(child))
        permitted = permits(read(child), access)
        seen["permitted"] += permitted
        seen["refused"] += not permitted
        seen["permitted with arguments"] += permitted and bool(access.args)
        seen["strictly narrower"] += not detail_le(read(parent), read(child))
        seen["equivalent"] += detail_le(read(parent), read(child))

    draw()
    floors = {"permitted": 50, "refused": 50, "permitted with arguments": 25, "strictly narrower": 60, "equivalent": 15}
    assert {name: seen[name] for name, floor in floors.items() if seen[name] < floor} == {}


@given(st.lists(details(), min_size=1, max_size=4))
def test_writing_and_reading_give_the_same_scope_and_the_same_bytes(raw: list[Raw]) -> None:
    read_once = scope.parse(raw)
    written = scope.dump(read_once)
    again = scope.parse(json.loads(json.dumps(written)))
    assert again == read_once
    assert scope.dump(again) == written
    assert scope.digest(again) == scope.digest(read_once)


@given(details())
def test_a_detail_in_normal_form_can_be_hashed(raw: Raw) -> None:
    assert hash(read(raw)) == hash(read(raw))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["any", "/a", "GET"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["any", "exact", "one_of", "at_most", "path", "query.q", "x"]), inner, max_size=3
        )
    ),
)


@settings(max_examples=300)
@given(st.data())
def test_any_json_in_a_field_is_read_back_to_itself_or_refused(data: st.DataObject) -> None:
    raw = data.draw(details())
    field = data.draw(st.sampled_from(sorted({*raw, "columns", "args", "tools", "other"})))
    hostile = {**raw, field: data.draw(JSON)}
    try:
        detail = scope.parse_detail(hostile)
    except UnknownDetailError:
        return
    assert scope.parse(scope.dump((detail,))) == (detail,)


# -- reading --------------------------------------------------------------------------------------------------------

WRONG: dict[str, object] = {
    "no list": {"type": "http"},
    "no details": [],
    "too many details": [SEARCH] * 65,
    "a detail that is no object": ["http"],
    "no type": [{"resource": "search"}],
    "a type that is no text": [{**SEARCH, "type": ["http"]}],
    "an unknown type": [{**SEARCH, "type": "smtp"}],
    "no resource": [{"type": "http", "actions": ["GET"], "paths": ["/"]}],
    "a resource in upper case": [{**SEARCH, "resource": "Search"}],
    "a resource with a line end": [{**SEARCH, "resource": "search\n"}],
    "an unknown field": [{**SEARCH, "regex": ".*"}],
    "a field of another type": [{**SEARCH, "tables": ["a.b"]}],
    "a missing field": [{"type": "http", "resource": "search", "actions": ["GET"]}],
    "a null field": [{**SEARCH, "ttl": None}],
    "a key for a table that is not listed": [{**REVENUE, "columns": {"hr.staff": ["name"]}}],
}


@pytest.mark.parametrize("raw", WRONG.values(), ids=WRONG.keys())
def test_what_is_not_known_is_refused(raw: object) -> None:
    with pytest.raises(UnknownDetailError):
        scope.parse(raw)


def test_a_refusal_names_the_field() -> None:
    with pytest.raises(UnknownDetailError, match="`regex` is not a field of a detail of type `http`"):
        one(SEARCH, regex=".*")
    with pytest.raises(UnknownDetailError, match="`paths` is missing"):
        scope.parse_detail({"type": "http", "resource": "search", "actions": ["GET"]})


def test_a_detail_gives_its_fields_by_kind() -> None:
    detail = one(SEARCH, ttl=5)
    assert (detail.texts("actions"), detail.number("ttl"), detail.get("args")) == (("GET",), 5, ())
    assert (detail.texts("ttl"), detail.number("uses"), detail.number("paths"), detail.get("uses")) == (
        (),
        None,
        None,
        None,
    )


def test_a_plugin_contributes_a_table_and_no_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"principals": Field(scope.TYPES["http"]["actions"].order, required=True)}
    monkeypatch.setitem(scope._TYPES, "ssh", table)
    wide, narrow = (
        scope.parse([{"type": "ssh", "resource": "bastion", "principals": p}])[0] for p in (["A", "B"], ["A"])
    )
    assert detail_le(narrow, wide)
    assert not detail_le(wide, narrow)
    assert scope.dump((narrow,))[0]["principals"] == ["A"]


def test_an_svid_lives_an_hour_at_most_and_has_no_audience_unless_it_is_named() -> None:
    mesh = scope.parse_detail({"type": "spiffe", "resource": "mesh", "actions": ["x509"]})
    assert scope.dump((mesh,))[0] == {
        "type": "spiffe",
        "resource": "mesh",
        "actions": ["x509"],
        "audiences": [],
        "ttl": 3_600,
    }
    with pytest.raises(UnknownDetailError):
        scope.parse_detail({"type": "spiffe", "resource": "mesh", "actions": ["x509"], "ttl": 3_601})


def test_an_svid_is_not_used_through_the_gateway() -> None:
    mesh = scope.parse_detail({"type": "spiffe", "resource": "mesh", "actions": ["x509"]})
    assert not permits(mesh, Access("spiffe", "mesh", "x509"))


# -- covering -------------------------------------------------------------------------------------------------------


def test_a_detail_of_another_type_or_resource_covers_nothing() -> None:
    assert not detail_le(one(SEARCH), one(SEARCH, resource="other"))
    assert not detail_le(one(SEARCH, resource="github"), one(ISSUES))


def test_two_details_do_not_cover_together_what_neither_covers_alone() -> None:
    parents = scope.parse([SEARCH, {**SEARCH, "actions": ["POST"], "paths": ["/v2"]}])
    assert scope.cover(one(SEARCH, actions=["GET", "POST"]), parents) is None
    assert scope.cover(one(SEARCH, actions=["POST"], paths=["/v2"]), parents) == 1


def test_absent_in_the_child_and_present_in_the_parent_is_wider() -> None:
    assert not detail_le(one(SEARCH), one(SEARCH, ttl=60))
    assert detail_le(one(SEARCH, ttl=60), one(SEARCH))


def test_a_table_without_columns_in_the_parent_may_be_read_whole() -> None:
    parent = one(REVENUE, tables=["sales.revenue", "sales.orders"], columns={"sales.revenue": ["amount"]})
    assert detail_le(one(REVENUE, tables=["sales.orders"]), parent)
    assert not detail_le(one(REVENUE), parent)
    assert detail_le(one(REVENUE, columns={"sales.revenue": ["amount"]}), parent)


# -- permitting -----------------------------------------------------------------------------------------------------


def get(path: str, **more: Any) -> Access:
    """Return an access by GET."""
    return Access(**{"resource": "search", "action": "GET", "path": path, **more})


def test_an_access_is_permitted_by_type_resource_action_path_and_arguments() -> None:
    detail = one(SEARCH, args={"query.q": "x"})
    args = {"query.q": '"x"'}
    assert permits(detail, get("/v1/search", args=args))
    assert not permits(detail, get("/v1/search", args=args, resource="other"))
    assert not permits(detail, get("/v1/search", args=args, action="POST"))
    assert not permits(detail, get("/v2/search", args=args))
    assert not permits(detail, get("/v1/search"))


def test_without_args_query_and_body_must_be_empty() -> None:
    assert permits(one(SEARCH), get("/v1/search"))
    assert not permits(one(SEARCH), get("/v1/search", args={"query.q": '"x"'}))


def test_a_tool_call_is_permitted_by_its_name_and_its_arguments() -> None:
    call = Access("github", "tools/call", path="create_issue", args={"repo": '"acme/app"'})
    assert permits(one(ISSUES), call)
    assert not permits(one(ISSUES), Access("github", "tools/call", path="create_issue", args={"repo": '"acme/pay"'}))
    assert not permits(one(ISSUES), Access("github", "tools/call", path="close", args={"repo": '"acme/app"'}))


def test_a_database_is_not_used_access_by_access() -> None:
    assert not permits(one(REVENUE), Access("warehouse", "select"))


def test_the_first_detail_that_permits_is_the_one_that_counts() -> None:
    both = scope.parse([{**SEARCH, "paths": ["/v2"]}, SEARCH])
    assert permitting(both, get("/v1/a")) == 1
    assert permitting(both, get("/v3")) is None


def test_a_name_is_lower_case_and_bounded() -> None:
    assert scope.check_name("ware-house.1") == "ware-house.1"
    for name in ("", "Ware", "a" * 64, "-a", "a/b", None):
        with pytest.raises(InvalidRequestError):
            scope.check_name(name)


def test_what_is_shown_of_a_scope_is_what_it_holds_for_the_resources_named() -> None:
    one = {"type": "http", "resource": "a", "actions": ["GET"], "paths": ["/x"]}
    held = scope.parse([one, {**one, "resource": "b"}])
    assert json.loads(scope.shown(held, {"a"})) == scope.dump(held[:1])


def test_the_size_of_a_scope_is_that_of_its_details_and_no_less_than_their_text() -> None:
    path = "/" + "a" * 500
    narrow, wide = (read({"type": "http", "resource": "a", "actions": ["GET"], "paths": ["/" + i]}) for i in ("b", "c"))
    long = read({"type": "http", "resource": "a", "actions": ["GET"], "paths": [path], "uses": 3})
    assert scope.size((narrow, wide)) == scope.size((narrow,)) + scope.size((wide,))
    assert scope.size((long,)) > len(path) > scope.size((narrow,))


# -- tables that are registered -------------------------------------------------------------------------------------

TABLE: dict[str, Field] = {
    "actions": Field(orders.among("look", "take"), required=True, label="may"),
    "drawers": Field(orders.PATHS),
    "ttl": Field(orders.SECONDS, label="each key for"),
}


@pytest.fixture
def _types_as_before() -> Iterator[None]:
    """Forget what a test registers: other tests of this process read all types that there are."""
    before = dict(scope._TYPES)
    yield
    scope._TYPES.clear()
    scope._TYPES.update(before)


@pytest.mark.usefixtures("_types_as_before")
def test_a_table_is_registered_once_and_describes_what_is_read() -> None:
    scope.register("cabinet", TABLE)
    scope.register("cabinet", dict(TABLE))
    (detail,) = scope.parse([{"type": "cabinet", "resource": "desk", "actions": ["look"], "drawers": ["/top"]}])
    assert detail.texts("drawers") == ("/top",)
    assert scope.json_schema("cabinet") == {
        "type": "object",
        "required": ["type", "resource", "actions"],
        "additionalProperties": False,
        "properties": {
            "type": {"const": "cabinet"},
            "resource": {"type": "string", "pattern": "^[a-z0-9][a-z0-9._-]{0,62}$"},
            **{name: row.order.schema for name, row in TABLE.items()},
        },
    }


@pytest.mark.usefixtures("_types_as_before")
def test_a_field_is_called_what_its_table_says_or_by_its_name() -> None:
    scope.register("cabinet", TABLE)
    cabinet = {"type": "cabinet"}
    assert [scope.label(cabinet, name) for name in ("ttl", "drawers", "else")] == ["each key for", "drawers", "else"]
    assert scope.label({"type": "unheard-of"}, "ttl") == scope.label({}, "ttl") == "ttl"


OWN = replace(orders.PATHS, le=lambda child, parent: child is not parent)
NOT_TABLES: dict[str, tuple[str, dict[str, Field], type[RemitError]]] = {
    "a name that is none": ("Cabinet", TABLE, InvalidRequestError),
    "actions that may be absent": ("cabinet", {**TABLE, "actions": Field(orders.METHODS)}, InvalidRequestError),
    "actions that are no set": (
        "cabinet",
        {**TABLE, "actions": Field(orders.PATHS, required=True)},
        InvalidRequestError,
    ),
    "an order of its own": ("cabinet", {**TABLE, "drawers": Field(OWN)}, InvalidRequestError),
    "a field that others compare otherwise": ("cabinet", {**TABLE, "paths": Field(orders.METHODS)}, ConflictError),
    "a name that is known with other fields": ("http", TABLE, ConflictError),
}


@pytest.mark.usefixtures("_types_as_before")
@pytest.mark.parametrize(("name", "table", "error"), NOT_TABLES.values(), ids=NOT_TABLES.keys())
def test_a_table_that_could_weaken_what_is_known_is_not_registered(
    name: str, table: dict[str, Field], error: type[RemitError]
) -> None:
    before = dict(scope.TYPES)
    with pytest.raises(error):
        scope.register(name, table)
    assert dict(scope.TYPES) == before
