"""What comparing scopes can cost: bounded by what may be asked for, and paid once."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.core import scope
from remit.core.scope import Detail, detail_le
from remit.errors import UnknownDetailError
from tests.core.drawn import Raw, below, details
from tests.core.test_scope import ISSUES, REVENUE, SEARCH


def wide_scope(items: int, details: int) -> list[Raw]:
    """Return details with so many items together: type, resource and a method each, else paths of a segment."""
    each, rest = divmod(items, details)
    sizes = [each + (number < rest) - 3 for number in range(details)]
    return [{**SEARCH, "paths": [f"/d{d}-{n}" for n in range(size)]} for d, size in enumerate(sizes)]


@pytest.mark.attack("DOS-09")
def test_the_items_of_a_scope_that_is_asked_for_are_bounded_over_all_its_details() -> None:
    assert len(scope.parse(wide_scope(1_024, 8))) == 8
    with pytest.raises(UnknownDetailError, match="more than 1,024 items"):
        scope.parse(wide_scope(1_025, 8))


COSTLY: dict[str, Raw] = {
    "paths": {**SEARCH, "paths": [f"/{n}" for n in range(200)]},
    "paths of many segments": {**SEARCH, "paths": [f"/{n}" + "/a" * 199 for n in range(4)]},
    "values of an argument": {**SEARCH, "args": {"query.q": {"one_of": [str(n) for n in range(200)]}}},
    "arguments": {**SEARCH, "args": {f"query.q{n}": "any" for n in range(200)}},
    "a long path in an argument": {**SEARCH, "args": {f"query.q{n}": {"path": "/a" * 200} for n in range(4)}},
    "methods": {**SEARCH, "actions": ["A" + chr(65 + n // 26) + chr(65 + n % 26) for n in range(200)]},
    "tables": {**REVENUE, "tables": [f"a.b{n}" for n in range(200)]},
    "columns": {**REVENUE, "columns": {"sales.revenue": [f"c{n}" for n in range(200)]}},
    "tools": {**ISSUES, "tools": {f"t{n}": {} for n in range(200)}},
    "arguments of tools": {**ISSUES, "tools": {f"t{n}": {f"a{m}": 1 for m in range(20)} for n in range(10)}},
    "audiences": {"type": "spiffe", "resource": "mesh", "actions": ["jwt"], "audiences": [f"a{n}" for n in range(200)]},
}


@pytest.mark.attack("DOS-09")
@pytest.mark.parametrize("kind", COSTLY)
def test_each_kind_of_item_counts(kind: str) -> None:
    scope.parse([COSTLY[kind]])
    with pytest.raises(UnknownDetailError, match="more than 1,024 items"):
        scope.parse([{**COSTLY[kind], "resource": f"r{n}"} for n in range(6)])


@pytest.mark.attack("DOS-09")
def test_details_of_one_type_and_resource_are_few() -> None:
    more = [{**SEARCH, "resource": "other"}, {**REVENUE, "resource": "search"}]
    assert len(scope.parse([*[SEARCH] * 16, *more])) == 18
    with pytest.raises(UnknownDetailError, match="at most 16 details"):
        scope.parse([*[SEARCH] * 17, *more])


def test_a_scope_that_was_accepted_under_wider_bounds_is_read_as_it_is() -> None:
    many = [{**SEARCH, "paths": [f"/{n}" for n in range(256)]}] * 64
    assert len(scope.read(many)) == 64
    with pytest.raises(UnknownDetailError):
        scope.read([SEARCH] * 65)


@given(st.data())
def test_what_covers_each_detail_is_the_first_that_alone_covers_it(data: st.DataObject) -> None:
    parent = data.draw(st.lists(details(), min_size=1, max_size=4))
    child = [data.draw(st.one_of(below(raw), details())) for raw in parent]
    narrow, wide = scope.read(child), scope.read(parent)
    found = scope.covering(narrow, wide)
    assert found == tuple(
        next((index for index, held in enumerate(wide) if detail_le(detail, held)), None) for detail in narrow
    )
    assert found == tuple(scope.cover(detail, wide) for detail in narrow)


WORST = {
    "paths": (
        [{**SEARCH, "paths": [f"/{d}/{n}/a/b" for n in range(57)] + ["/z/z/z/z/z"]} for d in range(16)],
        [{**SEARCH, "paths": ["/*/*/*/*", *(f"/*/*/*/x{n}" for n in range(57))]} for _ in range(16)],
    ),
    "values": (
        [{**SEARCH, "args": {"query.q": {"one_of": [f"/{n}/a/b" for n in range(57)] + ["z"]}}} for _ in range(16)],
        [{**SEARCH, "args": {"query.q": {"path": "/*/*/*"}}} for _ in range(16)],
    ),
    "arguments": (
        [{**SEARCH, "args": {f"query.q{n}": {"at_most": 3} for n in range(57)} | {"query.z": "x"}} for _ in range(16)],
        [{**SEARCH, "args": {f"query.q{n}": {"at_most": 4} for n in range(57)} | {"query.z": "y"}} for _ in range(16)],
    ),
    "tools": (
        [{**ISSUES, "tools": {f"t{n}": {} for n in range(57)} | {"z": "any"}} for _ in range(16)],
        [{**ISSUES, "tools": {f"t{n}": {} for n in range(57)} | {"z": {}}} for _ in range(16)],
    ),
}


@pytest.mark.attack("DOS-09")
@pytest.mark.parametrize("kind", WORST)
def test_the_worst_comparison_that_can_be_asked_for_is_short(kind: str) -> None:
    """Each of a child's details fails at its last item, with each of its parent's: nobody can ask for more."""
    child, parent = (scope.parse(raw) for raw in WORST[kind])
    took = []
    for _ in range(5):
        start = time.thread_time()
        assert [scope.cover(detail, parent) for detail in child] == [None] * 16
        took.append(time.thread_time() - start)
    assert min(took) < 0.05


@pytest.mark.attack("DOS-09")
@pytest.mark.parametrize("kind", WORST)
def test_the_worst_comparison_yields_after_slices_that_are_short(kind: str) -> None:
    child, parent = (scope.parse(raw) for raw in WORST[kind])
    longest, slices = [], 0
    for _ in range(5):
        scope.COMPARED.clear()
        steps, took, slices = scope.comparing(child, parent), [0.0], 0
        ended = None
        while ended is None:
            start = time.thread_time()
            ended = next(steps, True)
            took.append(time.thread_time() - start)
            slices += 1
        longest.append(max(took))
        assert scope.COMPARED[child, parent] == (None,) * 16
    assert slices > 4
    assert min(longest) < 0.02  # 1 to 2 ms on a calm machine; the design allows 5


def test_no_more_comparisons_are_kept_than_may_be() -> None:
    parent = scope.parse([SEARCH])
    for uses in range(1, 2 * scope.KEPT):
        assert scope.covering(scope.parse([{**SEARCH, "uses": uses}]), parent) == (0,)
        assert len(scope.COMPARED) <= scope.KEPT


def test_what_is_written_with_its_defaults_has_as_many_items() -> None:
    for raw in (wide_scope(1_024, 8), [COSTLY["audiences"]], [COSTLY["arguments"]]):
        assert scope.parse(scope.dump(scope.parse(raw)))


@pytest.mark.attack("DOS-09")
def test_what_was_compared_once_is_not_compared_again(monkeypatch: pytest.MonkeyPatch) -> None:
    scope.COMPARED.clear()
    child, parent = scope.parse([{**SEARCH, "uses": 77}]), scope.parse([SEARCH])
    compared = []

    def less(detail: Detail, held: Detail) -> bool:
        compared.append((detail, held))
        return True

    monkeypatch.setattr(scope, "detail_le", less)
    assert scope.covering(child, parent) == scope.covering(child, scope.parse([SEARCH])) == (0,)
    assert len(compared) == 1


@pytest.mark.parametrize("kind", WORST)
def test_what_takes_many_slices_to_compare_is_answered_as_detail_by_detail(kind: str) -> None:
    wide, narrow = (scope.parse(raw) for raw in WORST[kind])
    parent = (*narrow[:15], wide[0])
    scope.COMPARED.clear()
    found = scope.covering(wide, parent)
    assert (found[0], found) == (15, tuple(scope.cover(detail, parent) for detail in wide))
