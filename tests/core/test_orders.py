"""The orders: arguments as a closed world, bounds at their edges."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from remit.core import orders
from remit.core.orders import args_permit, digest, json_object, json_text
from remit.errors import UnknownDetailError

# -- fields ---------------------------------------------------------------------------------------------------------

BAD: list[tuple[orders.Order, list[object]]] = [
    (orders.AT_MOST, [0, -1, True, 1.0, "1", 2**53, None]),
    (orders.SECONDS, [0, -1, True, 10**9 + 1, 2**31, 2**63]),
    (orders.seconds(3_600), [0, -1, True, 3_601]),
    (orders.AUDIENCES, [None, "https://a", [""], ["a b"], ["\u00e9"], ["a" * 513], [1], ["a"] * 257]),
    (orders.METHODS, ["GET", [], ["get"], ["GET "], [1], ["G" * 21], ["GET"] * 257]),
    (orders.PATHS, ["/a", [], [1], ["a"], ["/a"] * 257]),
    (orders.HOSTS, [[], ["*"], ["*.com"], ["a.*.example"], ["a"], ["A.example"], ["a.example."], ["a..example"]]),
    (
        orders.HOSTS,
        [["127.0.0.1"], ["10.1"], ["0x7f.1"], ["[::1]"], ["a_b.example"], ["a.example:443"], ["\u00fc.example"]],
    ),
    (
        orders.HOSTS,
        [[f"{'a' * 64}.example"], ["-a.example"], ["a-.example"], [".".join(["a"] * 130)], ["a.example\n"], [1]],
    ),
    (orders.TABLES, [["revenue"], ["a.b.c"], ["a.b; drop"], ["a.*"], [""]]),
    (orders.COLUMNS, [{}, [], {"a.b": []}, {"a.b": ["*"]}, {1: ["x"]}, {"": ["x"]}]),
    (orders.TOOLS, ["all", [], {"": {}}, {"a\n": {}}, {1: {}}, {"a": 1}, {"t" * 1025: {}}]),
    (orders.URIS, ["**", [1], ["*"], ["/a"], ["a:b"], ["://a"], ["A://b"], ["a://b/../c"], ["a://b//c"], ["a://*x"]]),
    (orders.URIS, [["a://:/b"], ["a://b/%61"], ["a://b?c"], ["a://b/**/c"], ["a://" + "b" * 1024], ["a://b"] * 257]),
    (orders.among("one"), [["two"], ["one", "two"], ["one.*"]]),
]
BAD_FIELDS = [(order, value) for order, values in BAD for value in values]


@pytest.mark.parametrize(("order", "value"), BAD_FIELDS)
def test_a_value_of_another_shape_is_refused(order: orders.Order, value: object) -> None:
    with pytest.raises(UnknownDetailError):
        order.parse("field", value)


def test_a_number_is_at_most_another() -> None:
    assert orders.AT_MOST.le(1, 1)
    assert not orders.AT_MOST.le(2, 1)
    assert orders.AT_MOST.dump(orders.AT_MOST.parse("ttl", 2**53 - 1)) == 2**53 - 1


def test_a_ttl_can_be_added_to_an_instant() -> None:
    most = orders.SECONDS.parse("ttl", 10**9)
    assert isinstance(most, int)
    assert (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=most)).year == 2057


def test_sets_are_kept_sorted_and_once() -> None:
    assert orders.METHODS.parse("actions", ["POST", "GET", "GET"]) == ("GET", "POST")


EVERY = [
    orders.AT_MOST,
    orders.PATHS,
    orders.HOSTS,
    orders.ARGS,
    orders.TOOLS,
    orders.PROMPTS,
    orders.URIS,
    orders.METHODS,
    orders.TABLES,
    orders.COLUMNS,
]


@pytest.mark.parametrize("order", EVERY)
def test_a_form_that_is_not_normal_is_never_part_of_anything(order: orders.Order) -> None:
    assert not order.le(None, ())
    assert not order.le((), None)


def test_a_form_that_is_not_normal_is_written_as_the_least() -> None:
    written = [order.dump(None) for order in (orders.PATHS, orders.COLUMNS, orders.TOOLS)]
    assert written == [[], {}, {}]


def test_each_pattern_is_part_of_one_single_pattern() -> None:
    assert orders.PATHS.le(("/a/b", "/c"), ("/a/*", "/c"))
    assert not orders.PATHS.le(("/a/b", "/d"), ("/a/*", "/c"))


def test_no_audience_is_part_of_every_set_of_audiences() -> None:
    none, one = orders.AUDIENCES.parse("audiences", []), orders.AUDIENCES.parse("audiences", ["https://a"])
    assert orders.AUDIENCES.dump(none) == []
    assert orders.AUDIENCES.le(none, one)
    assert not orders.AUDIENCES.le(one, none)


def test_columns_compare_as_sets() -> None:
    assert orders.COLUMNS.le(("x",), ("x", "y"))
    assert not orders.COLUMNS.le(("x", "z"), ("x", "y"))


def test_columns_and_tools_are_written_as_they_were_read() -> None:
    columns = {"a.b": ["x", "y"]}
    assert orders.COLUMNS.dump(orders.COLUMNS.parse("columns", columns)) == columns
    tools = {"close": "any", "open": {"n": {"at_most": 3}, "free": "any"}}
    assert orders.TOOLS.dump(orders.TOOLS.parse("tools", tools)) == tools


def test_fewer_tools_with_narrower_arguments_are_part_of_more() -> None:
    def tools(raw: Mapping[str, object]) -> orders.Value:
        return orders.TOOLS.parse("tools", raw)

    wide = tools({"open": "any", "close": {"n": {"at_most": 3}}})
    assert orders.TOOLS.le(tools({"open": {}}), wide)
    assert orders.TOOLS.le(tools({"close": {"n": 3}}), wide)
    assert not orders.TOOLS.le(tools({"close": {"n": 4}}), wide)
    assert not orders.TOOLS.le(tools({"delete": {}}), wide)


def test_any_tool_is_the_top_and_no_tool_is_part_of_all() -> None:
    some = orders.TOOLS.parse("tools", {"open": {}})
    assert orders.TOOLS.le(some, orders.ANY)
    assert not orders.TOOLS.le(orders.ANY, some)
    assert orders.TOOLS.dump(orders.TOOLS.parse("tools", "any")) == "any"
    assert orders.TOOLS.le(orders.TOOLS.parse("tools", {}), some)


@pytest.mark.parametrize(
    ("narrow", "wide"),
    [
        ("repo://acme/app", "repo://acme/*"),
        ("repo://acme/app/issues/1", "repo://acme/**"),
        ("repo://acme", "repo://*"),
        ("repo://acme/app", "repo://**"),
        ("file:///etc/hosts", "file:///etc/*"),
        ("file:///etc/hosts", "file://**"),
        ("repo://acme/**", "**"),
    ],
)
def test_a_uri_is_part_of_a_pattern_of_its_scheme_and_place(narrow: str, wide: str) -> None:
    inner, outer = (orders.URIS.parse("resources", [uri]) for uri in (narrow, wide))
    assert orders.URIS.le(inner, outer)
    assert not orders.URIS.le(outer, inner)


@pytest.mark.parametrize(
    ("one", "other"),
    [("file:///a/b", "file://a/b"), ("repo://acme/app", "git://acme/app"), ("repo://acme", "repo://acme/")],
)
def test_uris_that_differ_are_no_part_of_each_other(one: str, other: str) -> None:
    left, right = (orders.URIS.parse("resources", [uri]) for uri in (one, other))
    assert not orders.URIS.le(left, right)
    assert not orders.URIS.le(right, left)


# -- arguments ------------------------------------------------------------------------------------------------------


def http(raw: object) -> orders.Value:
    """Read the arguments of an http detail."""
    return orders.ARGS.parse("args", raw)


def tool(raw: object) -> orders.Value:
    """Read the arguments of a tool."""
    value = orders.TOOLS.parse("tools", {"t": raw})
    assert isinstance(value, tuple)
    return value[0][1]


BAD_ARGS: list[object] = [
    7,
    ["query.q"],
    {"q": "x"},
    {"cookie.x": "y"},
    {"querys.q": "y"},
    {"bodyguard": "y"},
    {1: "x"},
    {"query.": 1.5},
    {"query.é": "x"},
    {"query.a b": "x"},
    {"query.q": 5},
    {"query.q": True},
    {"query.q": None},
    {"query.q": {"exact": 5}},
    {"query.q": ["x"]},
    {"query.q": {}},
    {"query.q": {"exact": "x", "at_most": 1}},
    {"query.q": {"regex": ".*"}},
    {"query.q": {"one_of": []}},
    {"query.q": {"one_of": "xy"}},
    {"query.q": {"one_of": ["x"] * 257}},
    {"query.q": {"at_most": True}},
    {"query.q": {"at_most": -1}},
    {"query.q": {"at_most": 2**53}},
    {"query.q": {"at_most": "5"}},
    {"query.q": {"path": "a"}},
    {"query.q": "x" * 1_025},
    {"body.a": 1.5},
    {"body.a": 2**53},
    {"body.a": {"exact": {"any": "x"}}},
    {"header.X-Account": "x"},
    {"body": "any", "body.a": 1},
    {"body.a": "any", "body.a.b": 1},
    {"body.a": 1, "body.a[0]": 1},
    {"body.a.b[0].c": 1, "body.a": 1},
    {f"query.k{i}": "any" for i in range(257)},
]


@pytest.mark.parametrize("raw", BAD_ARGS, ids=[str(i) for i in range(len(BAD_ARGS))])
def test_arguments_of_another_shape_are_refused(raw: object) -> None:
    with pytest.raises(UnknownDetailError):
        http(raw)


GOOD_ARGS: list[object] = [
    "any",
    {},
    {"query.q": "any", "query.limit": {"at_most": 0}, "header.x-account": {"exact": "any"}},
    {"body": "any"},
    {"body[0].id": {"exact": 1}, "body[1]": {"one_of": ["x", False, None]}},
    {"query.next": {"path": "/a/*/**"}},
]


@pytest.mark.parametrize("raw", GOOD_ARGS, ids=[str(i) for i in range(len(GOOD_ARGS))])
def test_arguments_are_written_as_values_that_read_the_same(raw: object) -> None:
    assert http(orders.ARGS.dump(http(raw))) == http(raw)


def test_a_bare_value_means_exactly_it() -> None:
    assert http({"body.n": 1}) == http({"body.n": {"exact": 1}}) == http({"body.n": {"one_of": [1]}})
    assert http({"body.n": 1}) != http({"body.n": True})
    assert http({"body.n": 1}) != http({"body.n": "1"})


def permitted(raw: object, **args: object) -> bool:
    """Whether http arguments are met by values given by name, `__` for a dot."""
    return args_permit(http(raw), {name.replace("__", "."): json_text(value) for name, value in args.items()})


def test_named_arguments_must_be_present_unless_any() -> None:
    assert permitted({"query.q": "x", "query.page": "any"}, query__q="x")
    assert not permitted({"query.q": "x", "query.page": "any"}, query__page="1")


def test_unnamed_arguments_are_refused() -> None:
    assert not permitted({"query.q": "any"}, query__q="x", query__other="y")
    assert not permitted({"body.a": "any"}, body__b=1)
    assert permitted("any", query__q="x", body__b=1)


def test_a_form_that_is_no_arguments_permits_nothing() -> None:
    assert not args_permit(None, {})


def test_a_free_inner_node_frees_what_is_inside_it() -> None:
    free = http({"body.items": "any"})
    assert args_permit(free, {"body.items[0].id": "1", "body.items": "[]", "body.items[1]": '"x"'})
    assert not args_permit(free, {"body.items2": "1"})
    assert not args_permit(free, {"body.other[0]": "1"})


def test_an_inner_node_that_is_bound_frees_nothing() -> None:
    bound = http({"body.items": {"exact": "x"}})
    assert not args_permit(bound, {"body.items": '"x"', "body.items.more": "1"})


NUMBERS_ON_THE_WIRE = {
    "0": True,
    "20": True,
    "21": False,
    "-1": False,
    "020": False,
    "+5": False,
    "5.0": False,
    "": False,
}


@pytest.mark.parametrize(("text", "fits"), NUMBERS_ON_THE_WIRE.items())
def test_at_most_in_a_query_reads_one_spelling_of_a_number(text: str, fits: bool) -> None:  # noqa: FBT001 - a case
    assert permitted({"query.limit": {"at_most": 20}}, query__limit=text) == fits


@pytest.mark.parametrize("value", ["5", 5.0, 21, -1, True, None, [5], {"n": 5}, 10**17])
def test_at_most_in_a_body_takes_whole_numbers_only(value: object) -> None:
    assert not permitted({"body.n": {"at_most": 20}}, body__n=value)


def test_at_most_in_a_query_takes_text_only() -> None:
    """A reader that gave a number or a list where a query has text must not slip through."""
    assert not permitted({"query.limit": {"at_most": 20}}, query__limit=205)
    assert not permitted({"query.limit": {"at_most": 20}}, query__limit=["5"])


def test_a_tool_argument_named_like_a_query_holds_numbers() -> None:
    limit = tool({"query.limit": {"at_most": 5}})
    assert args_permit(limit, {"query.limit": "5"})
    assert not args_permit(limit, {"query.limit": '"5"'})


@pytest.mark.parametrize("value", ["/a/../b", "/a/*", "/b", "a", 5, "/a//", "/%2e"])
def test_a_path_argument_is_a_literal_canonical_path(value: object) -> None:
    assert permitted({"body.path": {"path": "/a/**"}}, body__path="/a/b")
    assert not permitted({"body.path": {"path": "/a/**"}}, body__path=value)


def test_one_of_permits_its_values_alone() -> None:
    assert permitted({"body.n": {"one_of": [1, "x"]}}, body__n="x")
    assert not permitted({"body.n": {"one_of": [1, "x"]}}, body__n="1")


def le(child: object, parent: object) -> bool:
    """Whether http arguments are part of others."""
    return orders.ARGS.le(http(child), http(parent))


def test_a_child_may_not_drop_what_its_parent_requires() -> None:
    assert not le({}, {"query.q": "x"})
    assert le({}, {"query.q": "any"})


def test_a_child_may_not_name_what_its_parent_does_not() -> None:
    assert not le({"query.q": "x", "query.other": "y"}, {"query.q": "x"})
    assert le({"query.q": "x"}, "any")
    assert not le("any", {"query.q": "any"})
    assert le("any", "any")


CONSTRAINTS_LE = [
    ({"exact": "x"}, "any", True),
    ("any", {"exact": "x"}, False),
    ({"exact": 5}, {"at_most": 5}, True),
    ({"exact": 6}, {"at_most": 5}, False),
    ({"exact": -1}, {"at_most": 5}, False),
    ({"one_of": [1, 2]}, {"one_of": [1, 2, 3]}, True),
    ({"one_of": [1, 4]}, {"one_of": [1, 2, 3]}, False),
    ({"at_most": 4}, {"at_most": 5}, True),
    ({"at_most": 6}, {"at_most": 5}, False),
    ({"at_most": 0}, {"one_of": [0]}, False),
    ({"path": "/a/*"}, {"path": "/a/**"}, True),
    ({"path": "/**"}, {"path": "/a/**"}, False),
    ({"exact": "/a/b"}, {"path": "/a/*"}, True),
    ({"exact": "/a/*"}, {"path": "/a/*"}, False),
    ({"path": "/a"}, {"exact": "/a"}, False),
    ({"exact": "x"}, {"exact": "X"}, False),
]


@pytest.mark.parametrize(("child", "parent", "part"), CONSTRAINTS_LE)
def test_a_constraint_is_part_of_another(child: object, parent: object, part: bool) -> None:  # noqa: FBT001 - a case
    assert le({"body.x": child}, {"body.x": parent}) == part


def test_a_value_may_be_one_of_many_and_a_path_is_looked_at_as_one_however_often_it_is_compared() -> None:
    many = {"one_of": [f"/a/{n}" for n in range(200)]}
    assert le({"body.x": many}, {"body.x": {"one_of": [*many["one_of"], 7]}})
    assert not le({"body.x": {"one_of": [*many["one_of"], 8]}}, {"body.x": {"one_of": [*many["one_of"], 7]}})
    for _ in range(2):
        assert le({"body.x": many}, {"body.x": {"path": "/a/*"}})
        assert not le({"body.x": many}, {"body.x": {"path": "/b/*"}})


def test_numbers_on_the_wire_and_in_a_body_do_not_compare() -> None:
    text, number = ("at_most_text", "5"), ("at_most", "5")
    assert orders.constraint_le(text, text)
    assert not orders.constraint_le(text, number)
    assert not orders.constraint_le(number, text)


def test_a_kind_that_is_not_known_is_met_by_nothing() -> None:
    assert not orders.constraint_le(("one_of", "1"), ("unheard-of", "1"))
    assert not orders.constraint_le(("unheard-of", "1"), ("one_of", "1"))


def test_one_value_has_one_text() -> None:
    assert json_text({"b": 1, "a": "é"}) == '{"a":"\\u00e9","b":1}'


def test_members_whose_text_is_known_are_written_in_their_place() -> None:
    assert json_object({"c": [1], "a": "x"}, b='{"n":0}') == '{"a":"x","b":{"n":0},"c":[1]}'
    assert json_object({}) == "{}"


def test_a_digest_of_text_is_its_sha_256_in_base64url_without_padding() -> None:
    assert digest("abc") == "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0"  # FIPS 180-2, appendix B.1
    assert digest("\ud800") != digest("?")  # half a surrogate pair is no reason to fail
