"""One canonical form of targets, queries and bodies."""

from __future__ import annotations

import pytest

from remit.errors import InvalidRequestError, TooLargeError
from remit.gateway import canon


@pytest.mark.parametrize(
    ("raw", "resource", "path", "query"),
    [
        (b"/api", "api", "/", None),
        (b"/api/", "api", "/", None),
        (b"/api/a/b", "api", "/a/b", None),
        (b"/api/a/b/", "api", "/a/b/", None),
        (b"/api/a%20b", "api", "/a%20b", None),
        (b"/api/caf%C3%A9", "api", "/caf%C3%A9", None),
        (b"/api/a:b@c;d=e", "api", "/a:b@c;d=e", None),
        (b"/api/.well-known/x", "api", "/.well-known/x", None),
        (b"/api/a%2Bb", "api", "/a%2Bb", None),
        (b"/api/x?", "api", "/x", b""),
        (b"/api/x?a=b&c", "api", "/x", b"a=b&c"),
        (b"/my.api-1_2/x", "my.api-1_2", "/x", None),
    ],
)
def test_a_canonical_target_is_taken_apart(raw: bytes, resource: str, path: str, query: bytes | None) -> None:
    assert canon.target(raw) == canon.Target(resource, path, query)


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
        b"/api/;a",
        b"/api/.%20",
        b"/api/\xc3\xa9",
    ],
)
def test_anything_else_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        canon.target(raw)


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
