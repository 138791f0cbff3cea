"""Deciding with a real login: a human approves one request at their terminal, as strongly as is configured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.live.test_working import ConsentPage, consent_page

STRONG = "urn:test:two-factors"
NARROW, WIDE = ("-r", "search:paths=/v1/a"), ("-r", "search:paths=/v1/b")

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsentPage]:
    """A human logged in with a password, where approvals take two factors."""
    with consent_page(tmp_path_factory.mktemp("home"), f'acr = ["{STRONG}"]') as found:
        found.told("login")
        yield found


@contextmanager
def as_(at: ConsentPage, login: str, acr: str) -> Iterator[None]:
    """Let somebody sit at the browser meanwhile, and log in so."""
    before = at.terminal.login, at.terminal.acr
    at.terminal.login, at.terminal.acr = login, acr
    try:
        yield
    finally:
        at.terminal.login, at.terminal.acr = before


def asked(at: ConsentPage) -> dict[str, Any]:
    """Open a task as Alice, and ask for more than it holds."""
    opened = at.told("open", "brief", *NARROW, "--depth", "1", "--fan-out", "1")
    item: dict[str, Any] = at.told("ask", "wide", "-g", opened["grant"], *WIDE, "--ttl", "2m")
    assert (item["approver"], item["acr"]) == (f"{at.terminal.issuer}#alice", [STRONG])
    return item


def state(at: ConsentPage, item: dict[str, Any]) -> dict[str, Any]:
    """Return what became of a request."""
    return next(one for one in at.told("approvals", "--all")["approvals"] if one["approval"] == item["approval"])


def test_the_human_logs_in_on_the_page_of_the_request_and_it_goes_on(at: ConsentPage) -> None:
    item = asked(at)
    assert "digest" not in item
    with as_(at, "alice", STRONG):
        code, out, err = at.terminal.run("approve", item["approval"])
    assert (code, out) == (0, f"approved: {item['approval']}\n"), err
    shown = state(at, item)
    assert (shown["state"], shown["decided_by"]) == ("approved", {"sub": item["approver"], "acr": STRONG})
    made = at.told("delegate", "-g", item["parent"], "--approval", item["approval"])
    assert made["authorization_details"][0]["paths"] == ["/v1/b"]
    code, _, err = at.terminal.run("delegate", "-g", item["parent"], "--approval", item["approval"])
    assert (code, "used before" in err) == (1, True)
    at.told("open", "and on", *NARROW)  # the login that is kept is not touched


@pytest.mark.parametrize(
    ("login", "acr", "says"),
    [("alice", "urn:test:password", f"Log in again with {STRONG}."), ("bob", STRONG, "This cannot go on")],
)
def test_neither_a_weaker_login_nor_another_human_decides(at: ConsentPage, login: str, acr: str, says: str) -> None:
    item = asked(at)
    with as_(at, login, acr):
        page = at.terminal.browser().decide(item["verification_uri"], "approve")
    assert says in page.text
    code, _, err = at.terminal.run("approve", item["approval"], "--as-owner")
    assert (code, "decides on this, not the owner" in err) == (1, True)
    assert state(at, item)["state"] == "pending"


@pytest.mark.attack("OAU-08")
def test_a_login_that_anybody_can_begin_decides_nothing_at_a_real_issuer(at: ConsentPage) -> None:
    """The agent knows the public client, sends the human to the issuer with all that is asked, and has the token."""
    item = asked(at)
    digest = state(at, item)["digest"]
    browser = at.provider.browser("alice", STRONG)
    token = at.provider.tokens("alice", nonce=digest, browser=browser)["id_token"]
    said = httpx.post(f"{at.api}/v1/approvals/{item['approval']}/approve", json={"digest": digest, "id_token": token})
    assert (said.status_code, said.json()["code"]) == (403, "denied")
    assert state(at, item)["state"] == "pending"


def test_denying_takes_any_login_of_theirs(at: ConsentPage) -> None:
    item = asked(at)
    at.terminal.decision = "deny"
    try:
        code, _, err = at.terminal.run("deny", item["approval"])
    finally:
        at.terminal.decision = "approve"
    assert code == 0, err
    code, _, err = at.terminal.run("delegate", "-g", item["parent"], "--approval", item["approval"])
    assert (code, "a human refused this" in err) == (1, True)
