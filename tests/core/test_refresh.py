"""Families of refresh tokens: one counts, what was spent is known, and no family grows without end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from remit.core.refresh import MAX_SPENT, RefreshFamily

FAMILY = RefreshFamily("rfc_1", "grt_1", "spiffe://prod.test/agent", None, "d0")


def test_turning_spends_the_token_that_counted() -> None:
    turned = FAMILY.rotate("d1")
    assert (turned.current, turned.spent, turned.known, turned.rev) == ("d1", ("d0",), ("d0", "d1"), 2)
    assert (turned.id, turned.grant, turned.client, turned.audience) == ("rfc_1", "grt_1", FAMILY.client, None)
    assert FAMILY.known == ("d0",)


@given(st.integers(min_value=0, max_value=3 * MAX_SPENT))
def test_the_newest_tokens_are_known_and_the_oldest_forgotten(turns: int) -> None:
    family = FAMILY
    for number in range(1, turns + 1):
        family = family.rotate(f"d{number}")
    assert family.known == tuple(f"d{number}" for number in range(max(0, turns - MAX_SPENT), turns + 1))
    assert family.rev == turns + 1
