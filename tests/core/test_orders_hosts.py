"""Hosts: names and what is below them, against a matcher written another way."""

from __future__ import annotations

from time import process_time

from hypothesis import given
from hypothesis import strategies as st

from remit.core import orders
from tests.core.drawn import below_host, host_patterns, hosts


def matches(pattern: str, host: str) -> bool:
    """Return what a pattern means, label by label from the right."""
    mine, theirs = pattern.split(".")[::-1], host.split(".")[::-1]
    if mine[-1] != "*":
        return mine == theirs
    return len(theirs) >= len(mine) and theirs[: len(mine) - 1] == mine[:-1]


@given(host_patterns(), hosts(0))
def test_a_host_is_part_of_what_matches_it(pattern: str, host: str) -> None:
    assert orders.HOSTS.le((host,), (pattern,)) == matches(pattern, host)


@given(host_patterns(), host_patterns())
def test_a_pattern_is_part_of_another_when_all_its_hosts_are(left: str, right: str) -> None:
    lower = [left.replace("*", label) for label in ("a", "b", "zz", "a.b", "zz.zz.zz")]
    assert orders.HOSTS.le((left,), (right,)) == all(matches(right, host) for host in lower)


@given(st.data(), host_patterns(), hosts())
def test_what_is_below_a_pattern_permits_nothing_that_it_does_not(data: st.DataObject, wide: str, host: str) -> None:
    narrow = data.draw(below_host(wide))
    assert orders.HOSTS.le((narrow,), (wide,))
    assert matches(wide, host) or not matches(narrow, host)


def test_each_host_needs_one_that_covers_it() -> None:
    read = orders.HOSTS.parse("hosts", ["*.b.example", "a.example", "a.example"])
    assert read == ("*.b.example", "a.example")
    assert orders.HOSTS.le(("x.b.example", "a.example"), read)
    assert not orders.HOSTS.le(("x.b.example", "b.example"), read)
    assert not orders.HOSTS.le(("xb.example",), read)
    assert orders.HOSTS.dump(read) == ["*.b.example", "a.example"]


def test_many_deep_hosts_are_compared_within_the_bound_of_a_message() -> None:
    deep = tuple(f"{'a.' * 100}{number}.example" for number in range(orders.MAX_ITEMS))
    began = process_time()
    assert not orders.HOSTS.le(deep, tuple(f"*.{host}" for host in deep))
    assert process_time() - began < 0.05  # 256 hosts of 100 labels: some 5 ms, and no product of both lists
