"""When a connection to an upstream is used again: what one request leaves on it, no other meets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing

import pytest

from remit.errors import RemitError, UpstreamError
from remit.gateway.dialling import offers
from remit.gateway.quota import DescriptorBudget
from remit.gateway.response import Delivery, ResponsePlan, TaskTurns
from remit.gateway.target import static
from remit.gateway.upstream import MAX_INTERIM, Pool, UpstreamConnection
from remit.gateway.websocket import Opening
from tests.gateway.playbook import Line
from tests.gateway.test_target import shape

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HINT = b"HTTP/1.1 103 Early Hints\r\n\r\n"


class NoDelivery(Delivery):
    """Takes a body and keeps nothing of it."""

    def __init__(self) -> None: ...

    def take(self, payload: bytes, *, done: bool) -> None: ...

    def flush(self) -> None: ...

    def later(self, step: Callable[[], None]) -> None: ...


class RecordingReceiver:
    """Takes a response; ``read`` says whether nothing of the request can be unread."""

    def __init__(self, method: str = "GET", *, read: bool = True) -> None:
        self.method = method
        self.grant: str | None = None
        self.opening: Opening | None = None
        self.read = read
        self.statuses: list[int] = []
        self.failed: RemitError | None = None

    def on_head(self, plan: ResponsePlan, whole: bytes | None) -> tuple[Delivery | None, bool]:  # noqa: ARG002 - not here
        self.statuses.append(plan.status)
        return NoDelivery(), self.read

    def on_switch(self, plan: ResponsePlan) -> Delivery:
        raise NotImplementedError

    def on_end(self) -> None: ...

    def on_failure(self, error: RemitError) -> None:
        self.failed = error

    def on_writable(self, *, writable: bool) -> None: ...


class Full(Line):
    """A transport that has not written everything."""

    def get_write_buffer_size(self) -> int:
        return 1


def kept(receiver: RecordingReceiver, *said: bytes, line: Line | None = None) -> bool:
    """Have a connection say something, and tell whether it is used again."""
    with closing(asyncio.new_event_loop()) as loop:  # in which nothing is due
        turns = TaskTurns(loop)
    pool = Pool(static(shape(), None), offers(), DescriptorBudget(9).of("task"), 0.0, lambda: False, turns)
    upstream = UpstreamConnection(pool)
    upstream.connection_made(line or Line())
    upstream.begin(receiver, b"")
    for data in said:
        upstream.data_received(data)
    return pool.take() is upstream


def test_a_connection_is_used_again_after_a_whole_answer() -> None:
    assert kept(RecordingReceiver(), OK)
    assert kept(RecordingReceiver(), b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert kept(RecordingReceiver(), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    "said",
    [
        OK + b"x",
        OK.replace(b"1.1", b"1.0"),
        OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"),
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\n\r\n",
        HINT + OK,
    ],
)
def test_it_is_not_where_bytes_follow_or_may_follow_the_answer(said: bytes) -> None:
    assert not kept(RecordingReceiver(), said)
    assert not kept(RecordingReceiver(), *(bytes([byte]) for byte in said))


def test_it_is_not_after_a_head_request() -> None:
    assert not kept(RecordingReceiver("HEAD"), OK[:-2])


def test_it_is_not_where_something_of_the_request_may_be_unread() -> None:
    assert not kept(RecordingReceiver("POST", read=False), OK)


def test_it_is_not_where_the_answer_came_before_the_request_was_out() -> None:
    assert not kept(RecordingReceiver("POST"), OK, line=Full())


@pytest.mark.attack("HTT-11")
@pytest.mark.parametrize("cut", [1, 7, 5_000])
def test_interim_answers_are_bounded_however_they_come(cut: int) -> None:
    for count, failed in ((MAX_INTERIM, False), (MAX_INTERIM + 1, True)):
        said = HINT * count + OK
        receiver = RecordingReceiver()
        kept(receiver, *(said[at : at + cut] for at in range(0, len(said), cut)))
        assert isinstance(receiver.failed, UpstreamError) == failed
        assert receiver.statuses == ([] if failed else [200])


def test_interim_heads_without_an_end_are_bounded() -> None:
    receiver = RecordingReceiver()
    kept(receiver, HINT + b"HTTP/1.1 103 E\r\nA: " + b"x" * 40_000)
    assert isinstance(receiver.failed, UpstreamError)


def test_a_connection_on_which_bytes_follow_an_empty_answer_is_not_used_again() -> None:
    empty = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    assert kept(RecordingReceiver(), empty)
    assert not kept(RecordingReceiver(), empty + b"x")
