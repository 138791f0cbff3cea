"""Deciding with a real login: a human approves one request at their terminal, as strongly as is configured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.live.test_working import Desk, desk

STRONG = "urn:test:two-factors"
NARROW, WIDE = ("-r", "search:paths=/v1/a"), ("-r", "search:paths=/v1/b")

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Sit at a desk, logged in with a password; approvals take two factors."""
    with desk(tmp_path_factory.mktemp("desk"), f'acr = ["{STRONG}"]') as found:
        found.told("login")
        yield found


@contextmanager
def as_(at: Desk, login: str, acr: str) -> Iterator[None]:
    """Let somebody sit at the browser meanwhile, and log in so."""
    before = at.terminal.login, at.terminal.acr
    at.terminal.login, at.terminal.acr = login, acr
    try:
        yield
    finally:
        at.terminal.login, at.terminal.acr = before


def asked(at: Desk) -> dict[str, Any]:
    """Open a task as Alice, and ask for more than it holds."""
    opened = at.told("open", "brief", *NARROW, "--depth", "1", "--fan-out", "1")
    item: dict[str, Any] = at.told("ask", "wide", "-g", opened["grant"], *WIDE, "--ttl", "2m")
    assert (item["approver"], item["acr"]) == (f"{at.terminal.issuer}#alice", [STRONG])
    return item


def decide(at: Desk, item: dict[str, Any], verdict: str = "approve", *more: str) -> tuple[int, str]:
    """Decide at the terminal; return exit code and complaint."""
    code, _, err = at.terminal.run(verdict, item["approval"], "--digest", item["digest"], *more)
    return code, err


def test_the_human_logs_in_for_this_request_and_it_goes_on(at: Desk) -> None:
    item = asked(at)
    with as_(at, "alice", STRONG):
        code, err = decide(at, item)
    assert code == 0, err
    shown = next(one for one in at.told("approvals", "--all")["approvals"] if one["approval"] == item["approval"])
    assert (shown["state"], shown["decided_by"]) == ("approved", {"sub": item["approver"], "acr": STRONG})
    made = at.told("delegate", "-g", item["parent"], "--approval", item["approval"])
    assert made["authorization_details"][0]["paths"] == ["/v1/b"]
    code, _, err = at.terminal.run("delegate", "-g", item["parent"], "--approval", item["approval"])
    assert (code, "used before" in err) == (1, True)
    at.told("open", "and on", *NARROW)  # the login that is kept is not touched


@pytest.mark.parametrize(
    ("login", "acr", "says"),
    [("alice", "urn:test:password", "log in again with urn:test:two-factors"), ("bob", STRONG, "somebody else")],
)
def test_neither_a_weaker_login_nor_another_human_decides(at: Desk, login: str, acr: str, says: str) -> None:
    item = asked(at)
    with as_(at, login, acr):
        code, err = decide(at, item)
    assert (code, says in err) == (1, True), err
    code, err = decide(at, item, "approve", "--as-owner")
    shown = next(one for one in at.told("approvals")["approvals"] if one["approval"] == item["approval"])
    assert shown["state"] == "pending"


def test_denying_takes_any_login_of_theirs(at: Desk) -> None:
    item = asked(at)
    code, err = decide(at, item, "deny")
    assert code == 0, err
    code, _, err = at.terminal.run("delegate", "-g", item["parent"], "--approval", item["approval"])
    assert (code, "a human refused this" in err) == (1, True)
