"""Events fetched from a transmitter: acknowledged when they are taken, and asked for ever later while it is away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from remit.errors import AudienceError, InvalidRequestError, RemitError, TokenError, UnavailableError
from remit.sessions.delivery import LONGEST, MAX_EVENTS, PERIOD, Poller, bearer
from tests.identity.issuing import Clock

URL = "https://transmitter.test/poll"


@dataclass
class FakeTransmitter:
    """A transmitter's queue, and what it was asked."""

    waiting: dict[str, str] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[httpx.Headers] = field(default_factory=list)
    answers: list[Callable[[], httpx.Response]] = field(default_factory=list)  # instead of the queue
    page: int = MAX_EVENTS

    def __call__(self, request: httpx.Request) -> httpx.Response:
        assert (request.method, str(request.url)) == ("POST", URL)
        asked = json.loads(request.content)
        self.asked.append(asked)
        self.headers.append(request.headers)
        if self.answers:
            return self.answers.pop(0)()
        for name in (*asked.get("ack", ()), *asked.get("setErrs", ())):
            self.waiting.pop(name, None)
        sets = dict(list(self.waiting.items())[: self.page])
        return httpx.Response(200, json={"sets": sets, "moreAvailable": len(self.waiting) > len(sets)})


@dataclass
class EventTaker:
    """Who takes events."""

    taken: list[str] = field(default_factory=list)
    errors: dict[str, RemitError] = field(default_factory=dict)

    async def __call__(self, token: str) -> None:
        if token in self.errors:
            raise self.errors[token]
        self.taken.append(token)


@dataclass
class Polling:
    """Both, and the clock."""

    transmitter: FakeTransmitter = field(default_factory=FakeTransmitter)
    taker: EventTaker = field(default_factory=EventTaker)
    clock: Clock = field(default_factory=Clock)
    token: Path | None = None

    def __post_init__(self) -> None:
        transport = httpx.MockTransport(self.transmitter)
        self.poll = Poller(URL, self.token, lambda: transport, self.clock, self.taker)

    def round(self) -> None:
        """Let it be time, and make a round."""
        self.clock.now += LONGEST
        asyncio.run(self.poll.round())


def test_what_waits_is_taken_and_then_acknowledged() -> None:
    polling = Polling(FakeTransmitter({"a": "token-a", "b": "token-b"}))
    polling.round()
    assert polling.taker.taken == ["token-a", "token-b"]
    assert polling.transmitter.asked == [
        {"maxEvents": MAX_EVENTS, "returnImmediately": True},
        {"maxEvents": MAX_EVENTS, "returnImmediately": True, "ack": ["a", "b"]},
    ]
    assert polling.transmitter.waiting == {}
    polling.round()
    assert polling.transmitter.asked[2:] == [{"maxEvents": MAX_EVENTS, "returnImmediately": True}]


def test_all_pages_are_fetched_in_one_round() -> None:
    polling = Polling(FakeTransmitter({str(n): f"token-{n}" for n in range(5)}, page=2))
    polling.round()
    assert sorted(polling.taker.taken) == [f"token-{n}" for n in range(5)]
    assert polling.transmitter.waiting == {}


def test_what_is_no_event_is_refused_by_name_and_does_not_hold_up_the_others() -> None:
    polling = Polling(FakeTransmitter({"a": "1", "b": "2", "c": "3", "d": "4"}))
    polling.taker.errors = {"1": AudienceError(), "2": TokenError("no"), "3": InvalidRequestError("bad")}
    polling.round()
    assert polling.taker.taken == ["4"]
    said = polling.transmitter.asked[1]
    assert said["ack"] == ["d"]
    assert {name: why["err"] for name, why in said["setErrs"].items()} == {
        "a": "invalid_audience",
        "b": "invalid_request",
        "c": "invalid_request",
    }
    assert all(why["description"] for why in said["setErrs"].values())


def test_what_cannot_be_taken_now_is_neither_acknowledged_nor_refused() -> None:
    polling = Polling(FakeTransmitter({"a": "1", "b": "2"}))
    polling.taker.errors = {"2": UnavailableError("no keys")}
    polling.round()
    assert polling.transmitter.waiting == {"a": "1", "b": "2"}
    del polling.taker.errors["2"]
    polling.round()
    assert polling.transmitter.asked[1]["ack"] == ["a"]
    assert polling.transmitter.waiting == {}
    assert polling.taker.taken == ["1", "2"]


def test_an_acknowledgement_that_may_be_lost_is_sent_again() -> None:
    polling = Polling(FakeTransmitter({"a": "1"}))
    polling.transmitter.answers = [
        lambda: httpx.Response(200, json={"sets": {"a": "1"}}),
        lambda: httpx.Response(503),
    ]
    polling.round()
    polling.round()
    assert [asked.get("ack") for asked in polling.transmitter.asked] == [None, ["a"], ["a"]]


def _raise(error: Exception) -> httpx.Response:
    raise error


@pytest.mark.parametrize(
    "answer",
    [
        lambda: httpx.Response(500),
        lambda: httpx.Response(401),
        lambda: httpx.Response(302, headers={"location": "https://other.test"}),
        lambda: httpx.Response(200, content=b"no json"),
        lambda: httpx.Response(200, json=[]),
        lambda: httpx.Response(200, json={}),
        lambda: httpx.Response(200, json={"sets": {"a": 1}}),
        lambda: httpx.Response(200, json={"sets": {str(n): "t" for n in range(MAX_EVENTS + 1)}}),
        lambda: _raise(httpx.ConnectError("no")),
        lambda: _raise(httpx.ReadTimeout("no")),
        lambda: _raise(OSError("no")),
    ],
)
def test_an_answer_that_is_no_good_is_told_to_the_log_and_tried_later(
    answer: Callable[[], httpx.Response], caplog: pytest.LogCaptureFixture
) -> None:
    polling = Polling(FakeTransmitter({"a": "1"}, answers=[answer]))
    polling.round()
    assert "signals cannot be fetched" in caplog.text
    assert polling.taker.taken == []
    asyncio.run(polling.poll.round())  # too early
    assert len(polling.transmitter.asked) == 1
    polling.round()
    assert polling.taker.taken == ["1"]


def test_it_is_asked_regularly_and_ever_later_while_it_is_away() -> None:
    polling = Polling()
    down = False

    def wait() -> timedelta:
        """Try now, and once more too early; return how long it waits."""
        polling.transmitter.answers = [lambda: httpx.Response(503)] if down else []
        tried, known = len(polling.transmitter.asked) + 1, polling.clock()
        asyncio.run(polling.poll.round())
        assert polling.poll.due is not None
        polling.clock.now = polling.poll.due - timedelta(microseconds=1)
        asyncio.run(polling.poll.round())  # too early
        assert len(polling.transmitter.asked) == tried
        polling.clock.now = polling.poll.due
        return polling.clock() - known

    assert wait() == PERIOD
    down = True
    waits = [wait() for _ in range(20)]
    assert waits[:3] == [PERIOD, PERIOD * 2, PERIOD * 4]
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST
    down = False
    assert wait() == PERIOD
    down = True
    assert wait() == PERIOD


# -- the token that is shown ----------------------------------------------------------------------------------------


def shown(path: Path, text: str, mode: int = 0o600) -> Path:
    """Write a token file."""
    path.touch(mode)
    path.chmod(mode)
    path.write_text(text)
    return path


def test_the_token_is_read_from_its_file_each_time(tmp_path: Path) -> None:
    path = shown(tmp_path / "token", "first\n")
    polling = Polling(token=path)
    polling.round()
    path.write_text("second")
    polling.round()
    assert [one["authorization"] for one in polling.transmitter.headers] == ["Bearer first", "Bearer second"]
    assert bearer(None) == {}


@pytest.mark.parametrize(
    ("text", "mode"), [("", 0o600), ("two words", 0o600), ("two\nlines", 0o600), ("é", 0o600), ("c4nary", 0o640)]
)
def test_a_token_file_that_is_no_good_is_not_used(tmp_path: Path, text: str, mode: int) -> None:
    polling = Polling(token=shown(tmp_path / "token", text, mode))
    polling.round()
    assert polling.transmitter.asked == []
    with pytest.raises(UnavailableError) as caught:
        bearer(tmp_path / "token")
    assert text not in caught.value.detail or not text
    with pytest.raises(UnavailableError):
        bearer(tmp_path / "absent")


def test_nothing_of_a_token_is_in_what_is_shown_of_a_poll(tmp_path: Path) -> None:
    polling = Polling(FakeTransmitter({"a": "canary-set"}), token=shown(tmp_path / "token", "canary-token"))
    polling.round()
    assert "canary" not in repr(polling.poll)
    assert timedelta(0) < PERIOD
