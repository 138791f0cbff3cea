"""The kind of hosts that a run reaches itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from remit.core import scope
from remit.core.secret import Secret
from remit.errors import InvalidRequestError
from remit.kinds.egress import KIND, hosts
from remit.ports import Resource
from remit.ports.kind import TunnelAccess

NOTHING_LENT: Any = None
scope.register(KIND.name, KIND.table)
BOUND = scope.parse([{"type": "egress", "resource": "npm", "hosts": ["registry.example"]}])
NPM = Resource("npm", "egress", "egress:registry.example", BOUND, None, {})


def test_a_detail_needs_no_actions_and_covers_one_that_names_them() -> None:
    named = scope.parse([{"type": "egress", "resource": "npm", "actions": ["connect"], "hosts": ["registry.example"]}])
    assert named == BOUND


def test_a_destination_says_the_widest_bound() -> None:
    assert hosts("egress:a.example,*.b.example") == {"hosts": ["a.example", "*.b.example"]}


def test_a_resource_takes_no_secret() -> None:
    with pytest.raises(InvalidRequestError, match="secret"):
        KIND.check(NPM, Secret("npm_0123456789abcdef"), NOTHING_LENT)


@pytest.mark.parametrize("host", ["else.example", "x.registry.example", "*.registry.example"])
def test_a_bound_has_no_host_that_the_destination_does_not_list(host: str) -> None:
    bound = scope.parse([{"type": "egress", "resource": "npm", "hosts": ["registry.example", host]}])
    with pytest.raises(InvalidRequestError, match="does not list"):
        KIND.check(replace(NPM, bound=bound), None, NOTHING_LENT)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"inject": {"header": "X-Key"}}, "`inject` is not a setting"),
        ({"at": "router.example/base"}, "host"),
        ({"at": "me@router.example"}, "destination"),
        ({"at": "router.example\0.registry.example"}, "text"),
        ({"at": 443}, "at"),
        ({"private": "yes"}, "private"),
    ],
)
def test_settings_are_looked_at_when_the_resource_is_added(settings: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        KIND.check(replace(NPM, settings=settings), None, NOTHING_LENT)


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({}, ("a.example", 443, False)),
        ({"private": True}, ("a.example", 443, True)),
        ({"at": "router.example"}, ("router.example", 443, False)),
        ({"at": "router.example:8443", "private": True}, ("router.example", 8443, True)),
        ({"at": "127.0.0.1:8443"}, ("127.0.0.1", 8443, True)),
        ({"at": "[::1]:8443"}, ("::1", 8443, True)),
        ({"at": "localhost"}, ("localhost", 443, True)),
        ({"at": "127.0.0.1:8443", "private": False}, ("127.0.0.1", 8443, False)),
    ],
)
def test_a_host_is_where_it_is_or_where_the_resource_says(
    settings: dict[str, object], place: tuple[str, int, bool]
) -> None:
    assert isinstance(KIND.access, TunnelAccess)
    assert KIND.access.place(replace(NPM, settings=settings), "a.example") == place
