from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.core.scope import Detail, detail_le, parse_detail
from remit.errors import UnknownDetailError
from remit.kinds.postgres.plan import Power, lower

Right = tuple[str, str | None, str]

TABLES = ["s.a", "s.b", "t.a"]
COLUMNS = ["x", "y", "z"]


def _detail(**fields: object) -> Detail:
    return parse_detail({"type": "postgres", "resource": "w", **fields})


def _rights(detail: Detail) -> set[Right]:
    """Spell out what PostgreSQL would permit: each verb on each column; None is the whole table and columns to come."""
    spelt: set[Right] = set()
    for power in lower(detail):
        columns: list[str | None] = [*COLUMNS, None] if power.columns is None else list(power.columns)
        spelt |= {(f"{power.schema}.{power.table}", column, verb) for column in columns for verb in power.verbs}
    return spelt


@st.composite
def _details(draw: st.DrawFn) -> Detail:
    tables = draw(st.lists(st.sampled_from(TABLES), min_size=1, unique=True))
    actions = draw(st.lists(st.sampled_from(["select", "insert", "update"]), min_size=1, unique=True))
    limited = draw(st.lists(st.sampled_from(tables), unique=True))
    columns = {table: draw(st.lists(st.sampled_from(COLUMNS), min_size=1, unique=True)) for table in limited}
    return _detail(tables=tables, actions=actions, **({"columns": columns} if columns else {}))


@given(_details(), _details())
def test_a_narrower_detail_has_no_more_rights_at_the_database(child: Detail, parent: Detail) -> None:
    if detail_le(child, parent):
        assert _rights(child) <= _rights(parent)
    if _rights(child) <= _rights(parent):
        assert detail_le(child, parent)  # and the scope refuses nothing that would be the same


@given(_details())
def test_that_property_meets_covered_pairs(parent: Detail) -> None:
    """Two drawn details seldom cover each other; a detail and its own first table always do."""
    table = parent.texts("tables")[0]
    columns = next((power.columns for power in lower(parent) if f"{power.schema}.{power.table}" == table), None)
    narrowed = {"columns": {table: list(columns)}} if columns else {}
    child = _detail(tables=[table], actions=[parent.texts("actions")[0]], **narrowed)
    assert detail_le(child, parent)
    assert _rights(child) <= _rights(parent)


def test_tables_verbs_and_columns_are_taken_over_as_they_are() -> None:
    detail = _detail(actions=["update", "select"], tables=["Sales.Revenue", "s.b"], columns={"s.b": ["y", "x"]})
    assert lower(detail) == (
        Power("Sales", "Revenue", ("SELECT", "UPDATE"), None),
        Power("s", "b", ("SELECT", "UPDATE"), ("x", "y")),
    )


def test_columns_cannot_limit_delete() -> None:
    with pytest.raises(UnknownDetailError, match="cannot limit `delete`"):
        lower(_detail(actions=["delete"], tables=["s.a"], columns={"s.a": ["x"]}))
    assert lower(_detail(actions=["delete"], tables=["s.a"])) == (Power("s", "a", ("DELETE",), None),)


def test_a_detail_of_another_type_is_refused() -> None:
    with pytest.raises(UnknownDetailError):
        lower(parse_detail({"type": "http", "resource": "w", "actions": ["GET"], "paths": ["/"]}))
