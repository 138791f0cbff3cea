from __future__ import annotations

import pytest

from remit.policies import sets
from remit.policies.sets import Named, doubts, named

ISSUER = "https://idp.example.com"
TEXT = """// Group::"in a comment"
@id("one")
permit (
  principal in Group::"analysts", // Resource::"later"
  action,
  resource
) when { [Resource::"search", Resource :: "nothing"].contains(resource) && context.purpose == "of Group::\\"x\\"" };

@id("two")
forbid (principal == Human::"https://idp.example.com#ada", action, resource == Resource::"nothing");
"""


def entities(text: str) -> list[Named]:
    found, problems = sets.read({"main.cedar": text})
    assert problems == ()
    assert found is not None
    return list(named(found.policies))


def test_what_policies_name_is_found_where_it_stands_and_not_in_strings_or_comments() -> None:
    assert [(str(one), one.line) for one in entities(TEXT)] == [
        ('Group::"analysts"', 4),
        ('Resource::"search"', 7),
        ('Resource::"nothing"', 7),
        (f'Human::"{ISSUER}#ada"', 10),
        ('Resource::"nothing"', 10),
    ]


def test_what_is_named_and_is_not_there_is_told() -> None:
    assert [str(one) for one in doubts(entities(TEXT), [ISSUER], ["search"])] == [
        'main.cedar:4: `Group::"analysts"` is nobody: an id is the issuer, `#`, and its name there',
        'main.cedar:7: there is no resource for `Resource::"nothing"`',
        'main.cedar:10: there is no resource for `Resource::"nothing"`',
    ]


@pytest.mark.parametrize(
    ("name", "known", "told"),
    [
        (f"{ISSUER}#analysts", [ISSUER], False),
        (f"{ISSUER}#analysts", None, False),
        (f"{ISSUER}/#analysts", [ISSUER], True),  # compared as text
        ("https://other.example#analysts", [], True),
        ("unix://laptop#1000", [], False),
        ("analysts", None, True),
    ],
)
def test_a_group_is_of_an_issuer_of_humans(name: str, known: list[str] | None, told: bool) -> None:  # noqa: FBT001 - a table
    policy = f'@id("a") permit (principal in Group::"{name}", action, resource);'
    assert bool(list(doubts(entities(policy), known, None))) is told


def test_resources_that_are_not_known_are_no_reason_to_doubt() -> None:
    assert list(doubts(entities('@id("a") permit (principal, action, resource == Resource::"x");'), None, None)) == []
