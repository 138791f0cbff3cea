"""What is read of an upstream's challenge, however it is written."""

from __future__ import annotations

import time

import pytest

from remit.jose.challenge import MOST, MOST_SCOPES, Challenge, read

AT = "https://mcp.test/.well-known/oauth-protected-resource/x"


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([], Challenge()),
        (["Basic realm=x"], Challenge()),
        (["Bearer"], Challenge()),
        ([f'Bearer resource_metadata="{AT}"'], Challenge(metadata=AT)),
        ([f"bearer  Scope = read, resource_metadata={AT}"], Challenge(scopes=("read",), metadata=AT)),
        ([f'Basic realm="a, b", Bearer scope="a b:c a", resource_metadata="{AT}"'], Challenge("", ("a", "b:c"), AT)),
        (['Negotiate, Bearer error="insufficient_scope"', 'DPoP error="x"'], Challenge("insufficient_scope")),
        (['Bearer error="a"', 'Bearer error="b", scope="c"'], Challenge("a", ("c",))),
        ([r'Bearer error="a\"b"'], Challenge('a"b')),
        (['Bearer realm="scope=admin, resource_metadata=x", scope=read'], Challenge(scopes=("read",))),
        (['DPoP scope="read", algs="ES256"'], Challenge()),
        (['Bearer scope="$(id) a`b <i> good"'], Challenge(scopes=("good",))),
        (['Bearer scope="unfinished'], Challenge()),
    ],
)
def test_a_challenge_is_read_as_it_is_written(lines: list[str], found: Challenge) -> None:
    assert read(lines) == found


def test_what_a_stranger_writes_costs_little() -> None:
    for line in ("a" * 60_000, "Bearer " + "a=" * 30_000, "Bearer scope=" + '"' + "\\" * 60_000, ", " * 30_000):
        began = time.thread_time()
        read([line] * 4)
        assert time.thread_time() - began < 0.02
    many = " ".join(f"s{n}" for n in range(100))
    assert len(read([f'Bearer scope="{many}"']).scopes) == MOST_SCOPES


@pytest.mark.parametrize("piece", ["a", 'a="', ',bearer a="', "a ", ", \t"])
def test_the_longest_of_what_an_upstream_says_is_read_at_once(piece: str) -> None:
    lines = [(piece * MOST)[:MOST]] * 8  # as much as a head may have
    spent = []
    for _ in range(5):
        begun = time.thread_time()
        read(lines)
        spent.append(time.thread_time() - begun)
    assert min(spent) < 0.005
