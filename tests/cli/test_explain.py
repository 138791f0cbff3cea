from __future__ import annotations

import pytest

from remit.cli.entry import run


def test_words_that_are_neither_are_a_misuse(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", "-g", "grt_1", "GET", "search"]) == 2
    assert "write `METHOD /RESOURCE/PATH`, or one detail" in capsys.readouterr().err
