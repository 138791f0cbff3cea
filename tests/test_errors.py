"""The exception tree: one table, facts on each class, nothing said that is unsafe for a caller."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from remit import errors
from remit.errors import RemitError

GOLDEN = Path(__file__).parent / "vectors" / "errors.txt"
OAUTH = re.compile(r"[a-z_]+")  # RFC 6749 error codes are printable ASCII without quotes; ours are plainer still


def tree(kind: type[RemitError] = RemitError, level: int = 0) -> Iterator[tuple[int, type[RemitError]]]:
    """Yield every class with its depth below RemitError, in the order of the file."""
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield level, child
            yield from tree(child, level + 1)


def table() -> list[str]:
    """Return the table as it should be: depth, name, code, status, oauth."""
    return [f"{'  ' * level}{kind.__name__} {kind.code} {kind.status} {kind.oauth}" for level, kind in tree()]


KINDS: list[type[RemitError]] = [RemitError, *(kind for _, kind in tree())]
NAMES = [kind.__name__ for kind in KINDS]


def test_the_table_is_the_one_that_was_agreed() -> None:
    assert table() == GOLDEN.read_text(encoding="utf-8").splitlines()


def test_no_two_classes_share_a_code() -> None:
    codes = {kind.code for kind in KINDS}
    assert len(codes) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_each_class_says_one_lower_case_sentence_by_default(kind: type[RemitError]) -> None:
    detail = kind().detail
    assert detail == (kind.__doc__ or "").split("\n", 1)[0]
    assert detail[:1].islower()
    assert not detail.endswith(".")
    assert not any(name in detail for name in NAMES)


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_each_class_has_facts_that_fit_the_wire(kind: type[RemitError]) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", kind.code)
    assert 400 <= kind.status <= 599
    assert OAUTH.fullmatch(kind.oauth)


def test_an_error_carries_what_its_surfaces_show() -> None:
    wide = {"type": "http"}
    error = RemitError("too much", help="ask for less", offending=[wide], enough=wide, retry_after=3)
    assert (error.detail, error.help, error.offending) == ("too much", "ask for less", (wide,))
    assert (error.enough, error.retry_after, str(error)) == (wide, 3, "too much")


def test_an_error_without_words_has_no_help_and_nothing_offending() -> None:
    error = RemitError()
    assert (error.help, error.offending, error.enough, error.retry_after) == (None, (), None, None)
