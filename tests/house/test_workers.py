"""The suite shares itself out among workers as it is meant to."""

from __future__ import annotations

import pytest


def test_a_file_is_one_workers_as_its_fixtures_are_its_own(request: pytest.FixtureRequest) -> None:
    grouped = getattr(request.config.option, "loadgroup", False)
    assert request.node.nodeid.endswith(f"@{request.node.nodeid.partition('::')[0]}") is bool(grouped)
