"""Deciding at a terminal: the exact request is shown, a person says yes, and the right proof is brought."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from remit.cli import approval, sdk
from remit.cli.entry import run
from remit.core.request import Bounds as GrantBounds
from remit.core.request import GrantRequest
from remit.core.scope import parse
from remit.sdk import Bounds, Client, asking, detail
from remit.sdk._wire import ApiCall, Flow
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


def request_approval(client: Client, **more: Any) -> asking.ApprovalRequest:
    """Let an agent ask for another path."""
    task = client.task("draft", grants=[detail("search", paths=["/v1/a"])], bounds=Bounds("5m", 1, 2))
    wide = [detail("search", paths=["/v1/b"])]
    return client.run(asking.ask_for(task.id, task.details, wide, Bounds(**more), "wide"))


def digest(client: Client, item: asking.ApprovalRequest) -> str:
    """Return what the terminal outside of runs is told, and who asks is not."""
    assert "digest" not in item.document
    return str(client.run(asking.approval(item.id))["digest"])


def state(client: Client, item: asking.ApprovalRequest) -> str:
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
    item = request_approval(client, ttl=60)
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    assert run(["approve", item.id]) == code
    shown = capsys.readouterr().out
    assert digest(client, item) in shown
    assert 'beyond: http search\n    actions ["GET"]\n    args "any"\n    paths ["/v1/b"]\n' in shown
    assert "approve this?" in shown
    assert state(client, item) == becomes


def test_without_a_person_the_digest_says_what_was_seen(client: Client) -> None:
    item = request_approval(client)
    assert run(["deny", item.id]) == 2
    assert run(["deny", item.id, "--digest", "else"]) == 1
    assert state(client, item) == "pending"
    assert run(["deny", item.id, "--digest", digest(client, item)]) == 0
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
    def opened(*_: object) -> None:
        raise AssertionError("a page was opened")

    monkeypatch.setattr(approval, "visit", opened)
    monkeypatch.setattr(sdk, "ask", lambda _: {**DOCUMENT, "state": "pending", **more})
    assert run([verdict, "apr_1", *options]) == 1
    told = capsys.readouterr().err
    assert said in told
    assert "help: " in told


DOCUMENT = {"approval": "apr_1", "digest": "d" * 43, "acr": ["urn:mfa"], "approver": "https://idp.test#ann"}
PAGE = "https://remit.test/approvals/apr_1"


class ScriptedBroker:
    """A broker whose human has decided by the time it is asked again."""

    def __init__(self, becomes: str, deciding: list[str]) -> None:
        self.becomes, self.deciding, self.sent = becomes, deciding, list[ApiCall]()

    def __call__(self, flow: Flow[Any]) -> Any:
        call = next(flow)
        self.sent.append(call)
        if call.path == "/v1/identity":
            return {"issuer": "https://remit.test", "humans": [], "deciding": self.deciding}
        waits = len([one for one in self.sent if one.path.startswith("/v1/approvals")]) > 1
        return {**DOCUMENT, "verification_uri": PAGE, "state": self.becomes if waits else "pending"}


@pytest.mark.attack("OAU-08")
@pytest.mark.parametrize(
    ("verdict", "becomes", "code"),
    [("approve", "approved", 0), ("approve", "consumed", 0), ("deny", "denied", 0), ("approve", "denied", 1),
     ("deny", "approved", 1), ("approve", "lapsed", 1), ("approve", "pending", 1)],
)  # fmt: skip
def test_a_human_of_an_issuer_is_sent_to_the_page_and_waited_for_and_nothing_is_posted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verdict: str, becomes: str, code: int
) -> None:
    broker, opened = ScriptedBroker(becomes, ["https://idp.test"]), list[str]()
    monkeypatch.setattr(approval, "visit", lambda url, _: opened.append(url))
    monkeypatch.setattr(sdk, "ask", broker)
    assert run([verdict, "apr_1"]) == code
    assert opened == [PAGE]
    assert {call.method for call in broker.sent} == {"GET"}
    assert capsys.readouterr().out == (f"{becomes}: apr_1\n" if code == 0 else "")


def test_where_no_client_has_a_secret_it_is_said_what_to_configure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sdk, "ask", ScriptedBroker("pending", ["https://other.test"]))
    assert run(["approve", "apr_1"]) == 1
    told = capsys.readouterr().err
    assert "nobody can log in at `https://idp.test` to decide" in told
    assert "client_secret_file" in told


def test_in_a_run_nothing_is_opened(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    told = {name: value for name, value in DOCUMENT.items() if name != "digest"}
    monkeypatch.setattr(sdk, "ask", lambda _: {**told, "state": "pending"})
    for options in ([], ["--digest", "d" * 43]):
        assert run(["approve", "apr_1", *options]) == 1
        assert "no agent decides" in capsys.readouterr().err


def test_asking_waits_and_delegates_what_was_approved(
    plane: Served, client: Client, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = client.task("draft", grants=[detail("search", paths=["/v1/a"])], bounds=Bounds("5m", 1, 2))
    ask = sdk.ask

    def decided(flow: Any) -> Any:
        """Decide as soon as something was asked, in the place of whoever sits elsewhere."""
        found = ask(flow)
        if isinstance(found, asking.ApprovalRequest):
            client.run(asking.decide(found.id, "approve", digest(client, found)))
        return found

    monkeypatch.setattr(sdk, "ask", decided)
    assert run(["ask", "wide", "-g", task.id, "-r", "search:paths=/v1/b", "--wait", "20s"]) == 0
    shown = capsys.readouterr().out
    assert "approval" in shown
    made = [grant for grant in plane.broker._tasks.task_of(task.id).grants.values() if grant.approval]
    assert [grant.label for grant in made] == ["wide"]
    monkeypatch.setattr(sdk, "ask", ask)
    assert run(["ask", "-g", task.id, "-r", "search:paths=/v1/c", "--wait", "0s", "--json"]) == 1
    assert "a human has not decided yet" in capsys.readouterr().err


def test_what_is_over_is_listed_when_it_is_asked_for(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["approvals", "--all"]) == 0
    assert capsys.readouterr().out == "nothing was asked\n"
    item = request_approval(client)
    assert run(["approvals", "--json"]) == 0
    assert f'"approval":"{item.id}"' in capsys.readouterr().out


def test_an_approval_is_shown_like_all_that_has_an_id(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    item = request_approval(client, ttl=60)
    assert run(["show", item.id]) == 0
    shown = capsys.readouterr().out
    assert digest(client, item) in shown
    assert 'beyond: http search\n    actions ["GET"]\n    args "any"\n    paths ["/v1/b"]\n' in shown
    assert run(["show", item.id, "--json"]) == 0
    assert f'"approval":"{item.id}"' in capsys.readouterr().out


def test_the_list_says_what_for_and_how_far_it_goes(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    request_approval(client, ttl=60)
    assert run(["approvals"]) == 0
    shown = capsys.readouterr().out
    assert "draft" in shown
    assert "search · GET · /v1/b" in shown


def test_what_a_task_that_was_closed_had_asked_for_waits_no_more(
    client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    item = request_approval(client, ttl=60)
    assert run(["close", str(item.document["task"]["task"])]) == 0
    capsys.readouterr()
    assert run(["approvals"]) == 0
    assert capsys.readouterr().out == "nothing waits for a decision\n"
    assert state(client, item) == "lapsed"


def test_what_a_device_or_a_browser_asks_is_neither_listed_nor_decided_on_here(
    plane: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    """RFC 8628 §5.4: its page has the code of the device; a list would have somebody approve of a stranger's."""
    wanted = GrantRequest(parse([SEARCH]), GrantBounds(timedelta(minutes=5)))
    item = plane.call(plane.broker.ask_to_open("tv", replace(wanted, purpose="watch")))
    assert run(["approvals", "--all"]) == 0
    assert capsys.readouterr().out == "nothing was asked\n"
    for verb in ("approve", "deny"):
        assert run([verb, item.id, "--digest", item.digest]) == 1
        assert "there is no such object" in capsys.readouterr().err
    assert plane.broker._approvals.get(item.id) == item


def test_what_a_client_asks_from_afar_is_listed_with_whom_it_names(
    plane: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = GrantRequest(parse([SEARCH]), GrantBounds(timedelta(minutes=5)))
    item = plane.call(
        plane.broker.ask_to_open("app", replace(wanted, purpose="watch"), approver="https://idp.test#ann")
    )
    assert run(["approvals"]) == 0
    shown = capsys.readouterr().out
    for text in (item.id, "task.open", "watch", "https://idp.test#ann"):
        assert text in shown
    assert run(["approve", item.id, "--digest", item.digest, "--as-owner"]) == 1
    assert "`https://idp.test#ann` decides on this" in capsys.readouterr().err


def test_who_decides_is_said() -> None:
    assert approval._who({"approver": "https://idp.test#ann", "acr": []}) == "https://idp.test#ann"
    assert approval._who({"approver": "https://idp.test#ann", "acr": ["a", "b"]}) == "https://idp.test#ann (a or b)"
