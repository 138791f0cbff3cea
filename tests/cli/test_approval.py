"""Deciding at a terminal: the exact request is shown, a person says yes, and the right proof is brought."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from remit.cli import approval, connect
from remit.cli.entry import run
from remit.core.scope import parse
from remit.core.secret import Secret
from remit.core.task import Wanted
from remit.sdk import Bounds, Client, asking, detail
from tests.broker.world import SEARCH
from tests.sdk.plane import Served


class Terminal(io.StringIO):
    """What a person types."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def client(plane: Served) -> Iterator[Client]:
    with Client(plane.place) as found:
        yield found


def asked(client: Client, **more: Any) -> asking.Asked:
    """Let an agent ask for another path."""
    task = client.task("draft", grants=[detail("search", paths=["/v1/a"])], bounds=Bounds("5m", 1, 2))
    wide = [detail("search", paths=["/v1/b"])]
    return client.run(asking.ask_for(task.id, task.details, wide, Bounds(**more), "wide"))


def state(client: Client, item: asking.Asked) -> str:
    return str(client.run(asking.approval(item.id))["state"])


@pytest.mark.parametrize(
    ("typed", "code", "becomes"), [("y\n", 0, "approved"), ("n\n", 1, "pending"), ("", 130, "pending")]
)
def test_a_person_sees_the_request_and_says_yes(
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    typed: str,
    code: int,
    becomes: str,
) -> None:
    item = asked(client, ttl=60)
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    assert run(["approve", item.id]) == code
    shown = capsys.readouterr().out
    assert item.digest in shown
    assert "beyond: search · GET · /v1/b" in shown
    assert "approve this?" in shown
    assert state(client, item) == becomes


def test_without_a_person_the_digest_says_what_was_seen(client: Client) -> None:
    item = asked(client)
    assert run(["deny", item.id]) == 2
    assert run(["deny", item.id, "--digest", "else"]) == 1
    assert state(client, item) == "pending"
    assert run(["deny", item.id, "--digest", item.digest]) == 0
    assert state(client, item) == "denied"


@pytest.mark.parametrize("verdict", ["approve", "deny"])
@pytest.mark.parametrize(
    ("more", "options", "said"),
    [
        ({}, ["--digest", "else"], "this is not the request that was shown"),
        ({}, ["--digest", "d" * 43, "--as-owner"], "`https://idp.test#ann` decides on this"),
        ({"state": "approved"}, ["--digest", "d" * 43], "this was decided before"),
        ({"state": "lapsed"}, ["--digest", "d" * 43], "nobody decided in time"),
    ],
)
def test_nobody_logs_in_for_a_decision_that_cannot_be_made(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    verdict: str,
    more: dict[str, object],
    options: list[str],
    said: str,
) -> None:
    def login(**_: object) -> Secret:
        raise AssertionError("a login was opened")

    monkeypatch.setattr(approval, "id_token", login)
    monkeypatch.setattr(approval, "talk", lambda _: {**DOCUMENT, "state": "pending", **more})
    assert run([verdict, "apr_1", *options]) == 1
    told = capsys.readouterr().err
    assert said in told
    assert "help: " in told


DOCUMENT = {"approval": "apr_1", "digest": "d" * 43, "acr": ["urn:mfa"], "approver": "https://idp.test#ann"}
PROOFS: dict[str, tuple[dict[str, object], str | None]] = {
    "a human of an issuer": ({}, "token"),
    "one who may log in as they like": ({"acr": []}, "token"),
    "the owner": ({"approver": "unix://host#1000", "acr": []}, None),
}


@pytest.mark.parametrize("how", PROOFS)
def test_a_login_is_made_for_this_very_request_where_one_is_needed(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    more, expected = PROOFS[how]
    wanted: list[object] = []

    def id_token(**given: object) -> Secret:
        wanted.append(given)
        return Secret("token")

    monkeypatch.setattr(approval, "id_token", id_token)
    assert approval._proof({**DOCUMENT, **more}) == expected
    acr = () if "acr" in more else ("urn:mfa",)
    assert wanted == ([] if expected is None else [{"nonce": "d" * 43, "acr": acr, "fresh": True}])


def test_asking_waits_and_delegates_what_was_approved(
    plane: Served, client: Client, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = client.task("draft", grants=[detail("search", paths=["/v1/a"])], bounds=Bounds("5m", 1, 2))
    talk = connect.ask

    def decided(flow: Any) -> Any:
        """Decide as soon as something was asked, in the place of whoever sits elsewhere."""
        found = talk(flow)
        if isinstance(found, asking.Asked):
            client.run(asking.decide(found.id, "approve", found.digest))
        return found

    monkeypatch.setattr(approval, "talk", decided)
    assert run(["ask", "wide", "-g", task.id, "-r", "search:paths=/v1/b", "--wait", "20s"]) == 0
    shown = capsys.readouterr().out
    assert "approval" in shown
    made = [grant for grant in plane.broker.task_of(task.id).grants.values() if grant.approval]
    assert [grant.label for grant in made] == ["wide"]
    monkeypatch.setattr(approval, "talk", talk)
    assert run(["ask", "-g", task.id, "-r", "search:paths=/v1/c", "--wait", "0s", "--json"]) == 1
    assert "a human has not decided yet" in capsys.readouterr().err


def test_what_is_over_is_listed_when_it_is_asked_for(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["approvals", "--all"]) == 0
    assert capsys.readouterr().out == "nothing was asked\n"
    item = asked(client)
    assert run(["approvals", "--json"]) == 0
    assert f'"approval":"{item.id}"' in capsys.readouterr().out


def test_an_approval_is_shown_like_all_that_has_an_id(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    item = asked(client, ttl=60)
    assert run(["show", item.id]) == 0
    shown = capsys.readouterr().out
    assert item.digest in shown
    assert "beyond: search · GET · /v1/b" in shown
    assert run(["show", item.id, "--json"]) == 0
    assert f'"approval":"{item.id}"' in capsys.readouterr().out


def test_the_list_says_what_for_and_how_far_it_goes(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    asked(client, ttl=60)
    assert run(["approvals"]) == 0
    shown = capsys.readouterr().out
    assert "draft" in shown
    assert "search · GET · /v1/b" in shown


def test_what_a_task_that_was_closed_had_asked_for_waits_no_more(
    client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    item = asked(client, ttl=60)
    assert run(["close", str(item.document["task"]["task"])]) == 0
    capsys.readouterr()
    assert run(["approvals"]) == 0
    assert capsys.readouterr().out == "nothing waits for a decision\n"
    assert state(client, item) == "lapsed"


def test_what_a_device_or_a_browser_asks_is_neither_listed_nor_decided_on_here(
    plane: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    """RFC 8628 §5.4: its page has the code of the device; a list would have somebody approve of a stranger's."""
    wanted = Wanted(parse([SEARCH]), "", timedelta(minutes=5))
    item = plane.call(plane.broker.ask_to_open("tv", "watch", wanted))
    assert run(["approvals", "--all"]) == 0
    assert capsys.readouterr().out == "nothing was asked\n"
    for verb in ("approve", "deny"):
        assert run([verb, item.id, "--digest", item.digest]) == 1
        assert "there is no such object" in capsys.readouterr().err
    assert plane.broker.approval(item.id) == item


def test_what_a_client_asks_from_afar_is_listed_with_whom_it_names(
    plane: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = Wanted(parse([SEARCH]), "", timedelta(minutes=5))
    item = plane.call(plane.broker.ask_to_open("app", "watch", wanted, approver="https://idp.test#ann"))
    assert run(["approvals"]) == 0
    shown = capsys.readouterr().out
    for text in (item.id, "task.open", "watch", "https://idp.test#ann"):
        assert text in shown
    assert run(["approve", item.id, "--digest", item.digest, "--as-owner"]) == 1
    assert "`https://idp.test#ann` decides on this" in capsys.readouterr().err


def test_who_decides_is_said() -> None:
    assert approval._who({"approver": "https://idp.test#ann", "acr": []}) == "https://idp.test#ann"
    assert approval._who({"approver": "https://idp.test#ann", "acr": ["a", "b"]}) == "https://idp.test#ann (a or b)"
