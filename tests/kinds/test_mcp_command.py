"""Resources of the kind mcp: what may be set, and those that are commands."""

from __future__ import annotations

from typing import Any

import pytest

from remit.core import scope
from remit.core.secret import Secret
from remit.errors import InvalidRequestError
from remit.kinds.mcp import KIND
from remit.ports import Resource
from remit.ports.kind import GatewayAccess
from tests.support.kinds import NOTHING_LENT, register

register()
BOUND = scope.parse([{"type": "mcp", "resource": "gh", "actions": ["tools/call"], "tools": "any"}])


def check(destination: str, secret: str | None = None, **settings: Any) -> None:
    KIND.check(
        Resource("gh", "mcp", destination, BOUND, None, settings),
        None if secret is None else Secret(secret),
        NOTHING_LENT,
    )


def test_a_command_has_a_name_and_perhaps_what_starts_it() -> None:
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
    reaches = [{"type": "http", "resource": "github", "actions": ["GET"], "paths": ["/**"]}]
    check("mcp+stdio:gh", command=["npx", "server", ""])
    check("mcp+stdio:gh", command=["npx"], reaches=reaches)
    nothing: list[Any] = [[], {}, [{"type": "nothing"}], "api"]
    wrong: list[dict[str, Any]] = [
        *({"command": words} for words in ("npx", [], [""], ["a", 1], ["a\0"], {"a": 1}, None)),
        *({"command": ["a"], "reaches": each} for each in nothing),
        {"reaches": reaches},
    ]
    for settings in wrong:
        with pytest.raises(InvalidRequestError):
            check("mcp+stdio:gh", **settings)
    access = KIND.access
    assert isinstance(access, GatewayAccess)
    assert access.hosts(Resource("gh", "mcp", "mcp+stdio:gh", BOUND, None, {})) == {}


def test_a_server_takes_bearers_and_connections_of_humans_and_nothing_that_is_neither() -> None:
    check("mcp+https://gh.test/mcp", bearer=True)
    check("mcp+https://gh.test/mcp", oauth={}, bearer=True)
    for wrong in ({"bearer": "yes"}, {"bearer": 1}, {"oauth": True}, {"bearers": True}):
        with pytest.raises(InvalidRequestError):
            check("mcp+https://gh.test/mcp", **wrong)
    with pytest.raises(InvalidRequestError, match="no secret here, and no setting but"):
        check("mcp+stdio:gh", bearer=True)
