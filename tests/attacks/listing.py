"""A pytest plugin that prints the attack ids of the collected tests, one a line."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Print each id once."""
    ids = {str(i) for item in items for mark in item.iter_markers("attack") for i in mark.args}
    for attack in sorted(ids):
        print(f"attack {attack}")  # noqa: T201 - what the plugin is for
