"""A secret is seen where it is revealed, and nowhere else."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback
from dataclasses import asdict, dataclass

import pytest

from remit.core.secret import WHOLE, Secret
from remit.errors import InvalidRequestError

TEXT = "hunter2-canary"


def test_reveal_returns_the_text() -> None:
    assert Secret(TEXT).reveal() == TEXT


def test_named_parts_are_bytes_by_name() -> None:
    assert Secret({"user": "ann", "key": b"\xff"}).parts() == {"user": b"ann", "key": b"\xff"}
    assert Secret(TEXT).parts() == {WHOLE: TEXT.encode()}


@pytest.mark.parametrize("value", [b"\xff" + TEXT.encode(), {"user": TEXT}])
def test_what_is_not_one_text_is_not_revealed_as_one(value: bytes | dict[str, str]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        Secret(value).reveal()
    assert TEXT not in "".join(traceback.format_exception(caught.value))


@dataclass
class _Holding:
    secret: Secret


SHOWN = {
    "repr": repr,
    "str": str,
    "format": lambda secret: f"{secret}",
    "format with a width": lambda secret: f"{secret:>80}",
    "percent": lambda secret: "%s %r" % (secret, secret),  # noqa: UP031 - one of the ways to print
    "in a list": lambda secret: str([secret]),
    "in a dataclass": lambda secret: repr(_Holding(secret)),
    "in a log record": lambda secret: logging.LogRecord("x", 10, "x", 1, "%s", (secret,), None).getMessage(),
    "in an exception": lambda secret: "".join(traceback.format_exception(ValueError(secret))),
    "its attributes": lambda secret: repr(getattr(secret, "__dict__", "")),
}


@pytest.mark.parametrize("show", SHOWN.values(), ids=SHOWN.keys())
def test_no_way_of_printing_shows_it(show: object) -> None:
    assert callable(show)
    assert TEXT not in show(Secret(TEXT))


def test_it_is_not_pickled_or_copied() -> None:
    for take in (pickle.dumps, copy.copy, copy.deepcopy, lambda secret: asdict(_Holding(secret))):
        with pytest.raises(TypeError, match="serialisable"):
            take(Secret(TEXT))


def test_it_is_not_written_as_json() -> None:
    with pytest.raises(TypeError) as caught:
        json.dumps({"value": Secret(TEXT)})
    assert TEXT not in str(caught.value)


def test_it_equals_another_secret_of_the_same_text_only() -> None:
    assert Secret(TEXT) == Secret(TEXT)
    assert Secret(TEXT) != Secret("other")
    assert Secret("é") == Secret("é")
    assert Secret("\ud800") != Secret("é")
    assert Secret(TEXT) != TEXT
    assert Secret({"user": TEXT}) == Secret({"user": TEXT})
    assert Secret({"user": TEXT}) != Secret({"name": TEXT})
    assert Secret({"user": TEXT}) != Secret(TEXT)


def test_it_has_no_hash() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(Secret(TEXT))
