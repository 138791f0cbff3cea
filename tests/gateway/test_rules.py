"""The compiled rules permits just what the scope permits."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remit import catalog
from remit.core import scope
from remit.core.scope import Access
from remit.gateway.authorize import compile_rules
from tests.core import oracle
from tests.gateway.rig import http, permitting

SEGMENTS = ["a", "b", "a.b", ".a", "a+b", "(a)", "%20", "$", "a^"]
WORDS = [word for word in SEGMENTS if "^" not in word]

patterns = st.builds(
    lambda parts, end: "/" + "/".join(parts) + end,
    st.lists(st.sampled_from([*WORDS, "*"]), min_size=1, max_size=3),
    st.sampled_from(["", "/", "/**"]),
)
patterns = st.one_of(patterns, st.sampled_from(["/", "/**"]))
paths = st.builds(
    lambda parts, end: "/" + "/".join(parts) + end,
    st.lists(st.sampled_from(WORDS), max_size=4),
    st.sampled_from(["", "/"]),
).map(lambda path: path.replace("//", "/"))
constraints = st.sampled_from(["any", "x", {"one_of": ["x", "y"]}, {"at_most": 3}, {"path": "/a/*"}])
names = st.sampled_from(["query.q", "query.n", "header.h", "body.a", "body.a.b", "body"])
arguments = st.one_of(
    st.just("any"),
    st.none(),
    st.dictionaries(names, constraints, max_size=3).filter(
        lambda named: not any(b.startswith(f"{a}.") for a in named for b in named)
    ),
)
given_args = st.dictionaries(
    st.sampled_from(["query.q", "query.n", "header.h", "body.a", "body.a.b", "body.c"]),
    st.sampled_from(['"x"', '"y"', '"2"', '"4"', "2", '"/a/b"', '"/a/../b"', "null"]),
    max_size=3,
)


@st.composite
def scopes(draw: st.DrawFn) -> scope.Scope:
    """Draw a scope on two resources."""
    raw = []
    for _ in range(draw(st.integers(1, 4))):
        args = draw(arguments)
        raw.append(
            {
                "type": "http",
                "resource": draw(st.sampled_from(["api", "api", "other"])),
                "actions": draw(st.lists(st.sampled_from(["GET", "POST"]), min_size=1, max_size=2)),
                "paths": draw(st.lists(patterns, min_size=1, max_size=3)),
                **({} if args is None else {"args": args}),
            }
        )
    return scope.parse(raw)


@settings(max_examples=2000)
@given(scopes(), st.sampled_from(["GET", "POST"]), paths, given_args)
def test_the_matcher_agrees_with_the_law(grant: scope.Scope, action: str, path: str, args: dict[str, str]) -> None:
    access = Access("api", action, path, args=args)
    assert permitting(compile_rules(grant, "api"), access) == oracle.permitting(grant, access)


def test_the_law_is_met_by_accesses_that_are_permitted_too() -> None:
    grant = scope.parse([http(paths=["/a/*"], args={"query.q": "x"})])
    access = Access("api", "GET", "/a/b", args={"query.q": '"x"'})
    assert permitting(compile_rules(grant, "api"), access) == oracle.permitting(grant, access) == 0


def test_details_of_other_types_and_resources_are_not_compiled() -> None:
    grant = scope.parse(
        [
            {"type": "postgres", "resource": "api", "actions": ["select"], "tables": ["a.b"]},
            {"type": "http", "resource": "api", "actions": ["GET"], "paths": ["/**"]},
        ]
    )
    assert permitting(compile_rules(grant, "api"), Access("api", "GET", "/x")) == 1


WIDE = {
    "long": [f"/a/{n:04}{'b' * 1000}" for n in range(960)],
    "of any segments": [f"/*/*/*/x{n}" for n in range(960)],
    "that carry others": [f"/batch/x{n}/**" for n in range(960)],
}


@pytest.mark.attack("DOS-09")
@pytest.mark.parametrize("kind", WIDE)
def test_a_request_is_compared_with_any_number_of_patterns_at_the_cost_of_its_own_path(kind: str) -> None:
    raw = [http(actions=["GET", "POST"], paths=WIDE[kind][at : at + 240], args="any") for at in range(0, 960, 240)]
    grant = scope.parse(raw)
    target = "/batch/" + "/".join(["aaa"] * 2_000)
    start = time.thread_time()
    rules = compile_rules(grant, "api")
    for _ in range(20):
        [rule.covers("GET", target) for rule in rules]
        catalog.named(None, "POST", target, WIDE[kind])
    assert time.thread_time() - start < 0.5
