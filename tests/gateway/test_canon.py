"""One canonical form of targets, queries and bodies."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from remit.errors import InvalidRequestError, TooLargeError
from remit.gateway import canon
from remit.gateway.fronts.path import read_target


@pytest.mark.parametrize(
    ("raw", "resource", "path", "query"),
    [
        (b"/api", "api", "/", None),
        (b"/api/", "api", "/", None),
        (b"/api/a/b", "api", "/a/b", None),
        (b"/api/a/b/", "api", "/a/b/", None),
        (b"/api/a%20b", "api", "/a%20b", None),
        (b"/api/caf%C3%A9", "api", "/caf%C3%A9", None),
        (b"/api/a:b@c,d=e", "api", "/a:b@c,d=e", None),
        (b"/api/v1beta/models/gemini:generateContent", "api", "/v1beta/models/gemini:generateContent", None),
        (b"/api/.well-known/x", "api", "/.well-known/x", None),
        (b"/api/a%2Bb", "api", "/a%2Bb", None),
        (b"/api/x?", "api", "/x", b""),
        (b"/api/x?a=b&c", "api", "/x", b"a=b&c"),
        (b"/my.api-1_2/x", "my.api-1_2", "/x", None),
    ],
)
def test_a_canonical_target_is_taken_apart(raw: bytes, resource: str, path: str, query: bytes | None) -> None:
    assert read_target(raw) == canon.RequestTarget(resource, path, query)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"/",
        b"//api",
        b"/API/x",
        b"/api//x",
        b"/api/x//",
        b"/api/*",
        b"/api/x#y",
        b"/api/x?a;b",
        b"/api/x?a=%4",
        b"/api/x?\\",
        b"/api/%61",
        b"/api/%c3%a9",
        b"/api/%FF",
        b"/api/%2F",
        b"/api/%25",
        b"/api/%3F",
        b"/api/%23",
        b"/api/%3B",
        b"/api/%7F",
        b"/api/%E2%80%AE",
        b"/api/%EF%BB%BF",
        b"/api/..;a",
        b"/api/a;b",
        b"/api/a;",
        b"/api/a;b=c/d",
        b"/api/v1/items/7;jsessionid=1",
        b"/api/caf%C3%A9;x",
        b"/api/a%CD%BEb",
        b"/api/;a",
        b"/api/.%20",
        b"/api/\xc3\xa9",
    ],
)
def test_anything_else_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        read_target(raw)


def test_a_query_of_too_many_arguments_is_refused() -> None:
    with pytest.raises(InvalidRequestError):
        canon.query_pairs(b"&".join(b"a%d=" % index for index in range(canon.MAX_PAIRS + 1)))


def test_leaves_are_named_by_where_they_stand() -> None:
    body = canon.json_body(b'{"a":{"b":1,"c":[]},"d":["x",{"e":null}],"f":true}')
    assert canon.leaves(body) == {
        "body.a.b": "1",
        "body.a.c": "[]",
        "body.d[0]": '"x"',
        "body.d[1].e": "null",
        "body.f": "true",
    }


@pytest.mark.parametrize("body", [b"{}", b"[]", b"1", b'"x"', b"null"])
def test_a_body_without_inside_is_one_leaf(body: bytes) -> None:
    assert canon.leaves(canon.json_body(body)) == {"body": body.decode()}


@pytest.mark.parametrize("key", ["a.b", "a[0]", "", "a b", "\u00e9"])
def test_a_name_that_looks_like_a_path_is_refused(key: str) -> None:
    with pytest.raises(InvalidRequestError):
        canon.leaves({key: 1})


def test_a_body_of_too_many_leaves_is_too_large() -> None:
    with pytest.raises(TooLargeError):
        canon.leaves([0] * (canon.MAX_LEAVES + 1))


def test_a_body_is_written_in_utf_8() -> None:
    assert canon.json_bytes(canon.json_body('{"a": "\u00e9"}'.encode())) == '{"a":"\u00e9"}'.encode()


BOMBS = {
    "small lists in one": b"[" + b",".join([b'{"a":[1,2,3]}'] * 18_000) + b"]",
    "names": b"{" + b",".join(b'"%d":1' % index for index in range(30_000)) + b"}",
    "one name": b"{" + b",".join([b'"a":1'] * 40_000) + b"}",
    "brackets": b"[" * 250_000,
    "brackets that close": b"[" + b",".join([b"[[[[[[]]]]]]"] * 1_000) + b"]",
    "objects": b'{"a":' * 50_000,
    "strings": b"[" + b",".join([b'""'] * 60_000) + b"]",
    "strings of quotes and commas": b"[" + b",".join([rb'"\\\",[{"'] * 25_000) + b"]",
    "quotes": b'"' * 250_000,
    "quotes behind commas": b"," * 2_000 + b'"' * 250_000,
    "after what is no JSON": rb"[\"" + b"1," * 100_000,
    "values at the bound": b"[" + b",".join([b"1"] * (canon.MAX_LEAVES + 1)) + b"]",
    "a deep name": b'{"' + b"n" * 100 + b'":{"' + b'":{"'.join([b"n" * 100] * 12) + b'":1' + b"}" * 13,
    "a long number": b"1" * 250_000,
    "long numbers": b"[" + b",".join([b"7" * 4_300] * 58) + b"]",
    "a long exponent": b"1e" + b"9" * 250_000,
    "depth": b"[" * (canon.MAX_DEPTH + 1) + b"]" * (canon.MAX_DEPTH + 1),
}


@pytest.mark.attack("DOS-07")
@pytest.mark.parametrize("form", BOMBS)
def test_a_body_is_bounded_before_much_is_made_of_it(form: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises((TooLargeError, InvalidRequestError)):
            canon.leaves(canon.json_body(BOMBS[form]))
        made = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert made < 2_500_000


@pytest.mark.attack("DOS-07")
def test_a_body_of_too_many_values_is_told_the_bound() -> None:
    with pytest.raises(TooLargeError, match=f"more than {canon.MAX_LEAVES} values"):
        canon.json_body(BOMBS["small lists in one"])
    with pytest.raises(TooLargeError, match=f"more than {canon.MAX_CONTAINERS} objects"):
        canon.json_body(BOMBS["brackets"])


@pytest.mark.parametrize(
    "text", ["a,b" * 20_000, '[{"' * 20_000, '\\",' * 20_000, "\\" * 20_001, '\\\\",[' * 9_000, "," * 2_000 + '"']
)
def test_text_that_looks_like_structure_is_only_text(text: str) -> None:
    value = {"prompt": text, "more": [text, "x"]}
    assert canon.json_body(json.dumps(value).encode()) == value


def test_a_body_of_just_as_many_values_as_are_judged_is_read() -> None:
    value = [{"a": "x,y"}] * canon.MAX_LEAVES
    assert len(canon.leaves(canon.json_body(json.dumps(value).encode()))) == canon.MAX_LEAVES


@pytest.mark.parametrize("text", ["1e400", "-1e400", "NaN", "Infinity"])
def test_a_number_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        canon.json_body(f"[{text}]".encode())


def test_a_light_body_is_small_and_has_few_values() -> None:
    assert not canon.heavy(b'{"a":' + b"x" * 8_000 + b"}")
    assert canon.heavy(b"x" * 8_193)
    assert canon.heavy(b"[" + b"1," * 65 + b"1]")


def test_a_target_that_was_read_is_not_read_again() -> None:
    raw = b"/search/v1/search?q=revenue"
    assert read_target(raw) is read_target(raw)


def test_a_host_has_one_reading_or_is_refused() -> None:
    longest = b"a." * (canon.MAX_HOST // 2) + b"b"
    for raw in (b"registry.example", b"X-1.Example", b"localhost", b"127.1", longest, b"a" * 63):
        assert canon.host(raw) == raw.decode().lower()
    odd = [
        b"",
        b".",
        b"a.",
        b".a",
        b"a..b",
        b"a\0.b",
        b"a\n",
        b"a b",
        b"a@b",
        b"a:1",
        b"a_b",
        b"*.a",
        b"[::1]",
        b"a%2eb",
    ]
    for raw in (*odd, b"b" + longest, b"a" * 64, b"\xe9.a", "\u0661.a".encode()):
        with pytest.raises(InvalidRequestError):
            canon.host(raw)
