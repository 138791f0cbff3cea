"""The local ceiling: within the bound of each resource, or refused with what was too much."""

from __future__ import annotations

from dataclasses import replace

from remit.core import scope
from remit.core.policy import Decision, Problem, Question, joined, within_bounds
from remit.core.task import Subject

BOUND = scope.parse([{"type": "postgres", "resource": "w", "actions": ["select"], "tables": ["a.b", "a.c"]}])
NARROW = scope.parse([{"type": "postgres", "resource": "w", "actions": ["select"], "tables": ["a.b"]}])
WIDE = scope.parse([{"type": "postgres", "resource": "w", "actions": ["delete"], "tables": ["a.b"]}])
FOREIGN = scope.parse([{"type": "postgres", "resource": "x", "actions": ["select"], "tables": ["a.b"]}])


def ask(wanted: scope.Scope) -> Question:
    return Question(Subject("unix://h#1", "local-uid"), "why", wanted, {"w": BOUND})


def test_what_is_within_the_bounds_is_allowed() -> None:
    decision = within_bounds(ask(NARROW))
    assert (decision.allowed, decision.offending) == (True, ())


def test_what_is_wider_is_named() -> None:
    decision = within_bounds(ask(NARROW + WIDE))
    assert (decision.allowed, decision.offending) == (False, WIDE)
    assert decision.reasons == ("wider than the bound of `w`",)


def test_an_unknown_resource_is_named() -> None:
    decision = within_bounds(ask(FOREIGN))
    assert (decision.allowed, decision.reasons) == (False, ("there is no resource `x`",))


def test_without_policies_nobody_else_opens_anything() -> None:
    for sub in ("https://idp.test#ann", "spiffe://prod.test/agent"):
        decision = within_bounds(replace(ask(NARROW), subject=Subject(sub, "urn:mfa")))
        assert (decision.allowed, decision.offending) == (False, ())
        assert "but the owner of this state" in decision.reasons[0]


def test_a_problem_says_where_it_is_as_compilers_do() -> None:
    assert str(Problem("a.cedar", 3, "no such action")) == "a.cedar:3: no such action"
    assert str(Problem("a.cedar", 0, "cannot be read")) == "a.cedar: cannot be read"
    assert str(Problem("", 0, "there is no policy")) == "there is no policy"


def test_what_is_decided_on_in_parts_is_allowed_when_all_parts_are() -> None:
    yes = [
        Decision(True, (reason, "`all` permits it"), version="v1") for reason in ("`a` permits it", "`b` permits it")
    ]
    assert joined(yes) == Decision(True, ("`a` permits it", "`all` permits it", "`b` permits it"), (), "v1")


def test_of_what_is_decided_on_in_parts_all_is_told_that_is_too_much_and_nothing_else() -> None:
    yes = Decision(True, ("`yes` permits it",), version="v1")
    wide, foreign = (Decision(False, ("too much", str(part)), part, "v1") for part in (WIDE, FOREIGN))
    assert joined([yes, wide, yes]) == wide
    assert joined([wide, yes, foreign]) == Decision(False, ("too much", str(WIDE), str(FOREIGN)), WIDE + FOREIGN, "v1")
