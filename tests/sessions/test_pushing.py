"""Events delivered to a receiver: in order, each until it is taken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import httpx
import pytest

from remit.errors import UnavailableError
from remit.ports.events import PendingEvent
from remit.sessions.delivery import FINAL, LONGEST, Pusher
from tests.identity.issuing import Clock

URL = "https://receiver.test/events"


@dataclass
class Pushing:
    """A receiver, and what is to be told."""

    answers: list[Callable[[], httpx.Response]] = field(default_factory=list)
    waiting: dict[str, str] = field(default_factory=lambda: {"1": "set-1", "2": "set-2", "3": "set-3"})
    got: list[str] = field(default_factory=list)
    clock: Clock = field(default_factory=Clock)
    full: bool = False  # what was told cannot be noted

    def __post_init__(self) -> None:
        transport = httpx.MockTransport(self._answer)
        self.push = Pusher(URL, None, lambda: transport, self.clock, self._untold, self._told)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        assert (request.method, str(request.url)) == ("POST", URL)
        assert request.headers["content-type"] == "application/secevent+jwt"
        answer = self.answers.pop(0)() if self.answers else httpx.Response(202)
        if answer.is_success:
            self.got.append(request.content.decode())
        return answer

    async def _untold(self) -> Sequence[PendingEvent]:
        return [PendingEvent(jti, text) for jti, text in sorted(self.waiting.items())[:2]]

    async def _told(self, place: str) -> None:
        if self.full:
            raise UnavailableError
        del self.waiting[place]

    def round(self) -> None:
        """Let it be time, and make a round."""
        self.clock.now += LONGEST
        asyncio.run(self.push.round())


def test_all_is_told_in_order() -> None:
    pushing = Pushing()
    pushing.round()
    assert pushing.got == ["set-1", "set-2", "set-3"]
    assert pushing.waiting == {}
    pushing.round()
    assert len(pushing.got) == 3


def _raise(error: Exception) -> httpx.Response:
    raise error


@pytest.mark.parametrize(
    "answer",
    [
        lambda: httpx.Response(500),
        lambda: httpx.Response(401),
        lambda: httpx.Response(429),
        lambda: httpx.Response(302),
        lambda: httpx.Response(400),
        lambda: httpx.Response(400, json=["err"]),
        lambda: httpx.Response(400, json={"err": 1}),
        lambda: httpx.Response(400, json={"err": "authentication_failed"}),
        lambda: httpx.Response(400, json={"err": "invalid_key"}),  # it has not seen a rotation yet
        lambda: httpx.Response(400, json={"err": "access_denied"}),
        lambda: _raise(httpx.ConnectError("no")),
        lambda: _raise(OSError("no")),
    ],
)
def test_what_is_not_taken_is_told_again_later_and_nothing_overtakes_it(
    answer: Callable[[], httpx.Response], caplog: pytest.LogCaptureFixture
) -> None:
    pushing = Pushing([lambda: httpx.Response(202), answer])
    pushing.round()
    assert pushing.got == ["set-1"]
    assert "signals cannot be sent" in caplog.text
    asyncio.run(pushing.push.round())  # too early
    assert pushing.got == ["set-1"]
    pushing.round()
    assert pushing.got == ["set-1", "set-2", "set-3"]


@pytest.mark.parametrize("err", sorted(FINAL))
def test_what_is_refused_for_good_is_told_to_the_log_and_left(err: str, caplog: pytest.LogCaptureFixture) -> None:
    pushing = Pushing([lambda: httpx.Response(400, json={"err": err, "description": "no"})])
    pushing.round()
    assert pushing.got == ["set-2", "set-3"]
    assert f"refuses a signal for good: {err}" in caplog.text
    assert "set-1" not in caplog.text


def test_what_was_taken_and_could_not_be_noted_is_told_again() -> None:
    pushing = Pushing(full=True)
    pushing.round()
    assert pushing.got == ["set-1"]
    pushing.full = False
    pushing.round()
    assert pushing.got == ["set-1", "set-1", "set-2", "set-3"]
