from __future__ import annotations

import pytest

from remit.errors import InvalidRequestError
from remit.identity import claims

NESTED = {"a": {"b/c": {"~": 1}}, "https://remit.test/groups": ["x"], "l": [{"b": 1}], "": 2}


@pytest.mark.parametrize("name", ["groups", "https://remit.test/groups", "/kubernetes.io/namespace", "/a/b~1c/~0"])
def test_a_claim_is_named_plainly_or_by_a_pointer(name: str) -> None:
    assert claims.check_name(name, "it") == name


@pytest.mark.parametrize("name", [None, 7, "", "/", "/a/", "//a", "/a~2b", "/a~", "a\n", "x" * 201])
def test_what_names_no_claim_is_refused(name: object) -> None:
    with pytest.raises(InvalidRequestError, match="it is not the name of a claim"):
        claims.check_name(name, "it")


def test_a_pointer_enters_objects_and_nothing_else() -> None:
    assert claims.find(NESTED, "/a/b~1c/~0") == 1
    assert claims.find(NESTED, "https://remit.test/groups") == ["x"]
    for name in ("/a/b", "/l/0/b", "/a/b~1c/~0/x", "missing", "/missing/x"):
        assert claims.find(NESTED, name) is None


def test_a_value_is_compared_as_the_text_that_json_writes() -> None:
    assert [claims.plain(value) for value in ("a", 7, True, False)] == ["a", "7", "true", "false"]
    for value in (None, 1.5, [], ["a"], {"a": 1}):
        assert claims.plain(value) is None
