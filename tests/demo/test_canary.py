from __future__ import annotations

import base64
import json

import pytest

from examples.demo import canary

SECRET = "srch_7f1-Kq9.Zx/81Lm+3vQ"


@pytest.mark.parametrize("encoding", canary.ENCODINGS)
def test_a_secret_is_found_in_each_encoding(encoding: str) -> None:
    text = b"before " + canary.encode(SECRET, encoding) + b" after"
    assert canary.leaked({"search": SECRET}, [text]) == {"search": 1}


@pytest.mark.parametrize("shift", range(3))
def test_a_secret_is_found_inside_a_longer_base64_text(shift: int) -> None:
    text = base64.b64encode(b"x" * shift + SECRET.encode() + b"tail")
    assert canary.leaked({"search": SECRET}, [text]) == {"search": 1}


def test_binary_that_a_json_writer_escaped_is_read_as_binary() -> None:
    text = json.dumps({"text": canary.encode(SECRET, "gzip").decode("latin-1")}).encode()
    assert canary.leaked({"search": SECRET}, [text]) == {"search": 1}


def test_nothing_is_found_where_nothing_is() -> None:
    assert canary.leaked({"search": SECRET}, [b"srch_0000", SECRET[:-1].encode()]) == {}


def test_each_output_with_the_secret_counts() -> None:
    assert canary.leaked({"search": SECRET}, [SECRET.encode(), b"", SECRET.encode()]) == {"search": 2}
