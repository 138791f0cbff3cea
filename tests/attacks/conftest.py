"""The gallery: the cases on record, and what ``pending.toml`` says of those that no test walks yet."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Gallery:
    """The cases by id, and the reasons of the pending and the residual ones."""

    ids: frozenset[str]
    pending: dict[str, str]
    residual: dict[str, str]


@pytest.fixture(scope="session")
def gallery() -> Gallery:
    """Return the gallery as its two files have it."""
    cases = json.loads((HERE / "attacks.json").read_text(encoding="utf-8"))
    listed = tomllib.loads((HERE / "pending.toml").read_text(encoding="utf-8"))
    ids = frozenset(case["id"] for case in cases)
    return Gallery(ids, listed.get("pending", {}), listed.get("residual", {}))
