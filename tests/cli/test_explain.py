from __future__ import annotations

import pytest
import typer

from remit.cli.explain import asked_about


def test_words_that_are_neither_are_a_misuse() -> None:
    with pytest.raises(typer.BadParameter, match="METHOD"):
        asked_about(["GET", "search"], None)
