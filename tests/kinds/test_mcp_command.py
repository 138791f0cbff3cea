"""Resources of the kind mcp that are commands."""

from __future__ import annotations

from typing import Any

import pytest

from remit.core import scope
from remit.core.secret import Secret
from remit.errors import InvalidRequestError
from remit.kinds.mcp import KIND
from remit.ports import Resource
from tests.support.kinds import NOTHING_LENT, register

register()
BOUND = scope.parse([{"type": "mcp", "resource": "gh", "actions": ["tools/call"], "tools": "any"}])


def check(destination: str, secret: str | None = None, **settings: Any) -> None:
    KIND.check(
        Resource("gh", "mcp", destination, BOUND, None, settings),
        None if secret is None else Secret(secret),
        NOTHING_LENT,
    )


def test_a_command_has_a_name_and_nothing_else() -> None:
    check("mcp+stdio:gh")
    assert KIND.is_command("mcp+stdio:gh")
    assert not KIND.is_command("mcp+https://gh.test")
    for destination in ("mcp+stdio:", "mcp+stdio://gh", "mcp+stdio:GH", "mcp+stdio:gh/x", "mcp+stdio:gh\n"):
        with pytest.raises(InvalidRequestError):
            check(destination)
    with pytest.raises(InvalidRequestError):
        check("mcp+stdio:gh", "a-key-of-16-characters-0123")
    with pytest.raises(InvalidRequestError):
        check("mcp+stdio:gh", provider="github")
