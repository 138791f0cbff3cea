"""Families of refresh tokens: what counts, what was spent is known, and no family grows without end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from remit.core.refresh import GRACE, MAX_LIVE, MAX_SPENT, RefreshFamily

FAMILY = RefreshFamily("rfc_1", "grt_1", "spiffe://prod.test/agent", None, "d0")


def turn(family: RefreshFamily, shown: str, fresh: str, now: float = 0.0, *, bound: bool = True) -> RefreshFamily:
    found = family.turn(shown, fresh, now, bound=bound)
    assert found is not None
    return found


def test_turning_spends_the_token_that_counted() -> None:
    turned = turn(FAMILY, "d0", "d1")
    assert (turned.current, turned.spent, turned.known, turned.rev) == ("d1", ("d0",), ("d0", "d1"), 2)
    assert (turned.id, turned.grant, turned.client, turned.audience) == ("rfc_1", "grt_1", FAMILY.client, None)
    assert FAMILY.known == ("d0",)


@given(st.integers(min_value=0, max_value=3 * MAX_SPENT))
def test_the_newest_tokens_are_known_and_the_oldest_forgotten(turns: int) -> None:
    family = FAMILY
    for number in range(1, turns + 1):
        family = turn(family, family.current, f"d{number}")
    assert family.known == tuple(f"d{number}" for number in range(max(0, turns - MAX_SPENT), turns + 1))
    assert family.rev == turns + 1


def test_two_processes_that_show_one_token_at_once_both_go_on() -> None:
    family = turn(turn(FAMILY, "d0", "one"), "d0", "two", GRACE)
    family = turn(turn(family, "one", "one-2", 5.0), "two", "two-2", 500.0)
    assert {*family.beside, family.current} == {"one-2", "two-2"}
    assert family.turn("d0", "x", 501.0, bound=True) is None


def test_who_shows_a_token_late_did_not_get_the_answer_and_nobody_else_is_to_have_it() -> None:
    family = turn(turn(FAMILY, "d0", "lost"), "d0", "d1", GRACE + 1)
    assert (family.current, family.beside) == ("d1", ())
    assert family.turn("lost", "x", GRACE + 2, bound=True) is None  # a thief's, or a client that has gone on


def test_once_an_answer_was_used_the_token_before_it_tells_of_theft() -> None:
    family = turn(turn(FAMILY, "d0", "d1"), "d1", "d2")
    assert family.turn("d0", "x", 0.0, bound=True) is None
    assert turn(family, "d1", "d3").beside == ("d2",)


def test_without_a_key_a_token_counts_once() -> None:
    assert turn(FAMILY, "d0", "d1", bound=False).turn("d0", "x", 0.0, bound=False) is None


def test_no_more_than_a_few_count_at_a_time() -> None:
    family = turn(FAMILY, "d0", "0")
    for number in range(1, 3 * MAX_LIVE):
        family = turn(family, "d0", str(number))
    assert len({*family.beside, family.current}) == MAX_LIVE
    assert family.turn("0", "x", 0.0, bound=True) is None
    assert turn(family, family.beside[0], "x").current == "x"
