from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import uvloop

from remit.errors import AttenuationError, InvalidRequestError, RemitError, TooLargeError, UnavailableError
from remit.run import handover
from remit.run.host import send_async

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        yield left, right


def test_a_message_arrives_as_it_was_sent(pair: Pair) -> None:
    handover.send(pair[0], {"open": {"ttl": 5}})
    assert handover.receive(pair[1]) == ({"open": {"ttl": 5}}, [])


def test_a_descriptor_arrives_open_and_is_not_inherited(pair: Pair) -> None:
    reader, writer = os.pipe()
    handover.send(pair[0], {}, [writer])
    heard = handover.receive(pair[1])
    assert heard is not None
    os.write(heard[1][0], b"x")
    assert (os.read(reader, 1), os.get_inheritable(heard[1][0])) == (b"x", False)
    for descriptor in (reader, writer, *heard[1]):
        os.close(descriptor)


def test_the_end_of_the_other_side_is_no_message(pair: Pair) -> None:
    pair[0].close()
    assert handover.receive(pair[1]) is None


@pytest.mark.parametrize("raw", [b"{", b"[1]", b"7", b"\xff", b'"open"', b"[" * 100_000])
def test_what_is_not_a_json_object_is_refused(pair: Pair, raw: bytes) -> None:
    pair[0].send(raw)
    with pytest.raises(InvalidRequestError):
        handover.receive(pair[1])


def test_a_message_that_is_too_large_is_not_sent(pair: Pair) -> None:
    with pytest.raises(TooLargeError):
        handover.send(pair[0], {"purpose": "x" * handover.MAX_MESSAGE})


def test_a_packet_that_is_too_large_is_refused(pair: Pair) -> None:
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    pair[0].send(b'{"a": "' + b"x" * handover.MAX_MESSAGE + b'"}')
    with pytest.raises(TooLargeError):
        handover.receive(pair[1])


def test_descriptors_of_a_refused_message_are_closed(pair: Pair) -> None:
    reader, writer = os.pipe()
    socket.send_fds(pair[0], [b"not json"], [writer])
    os.close(writer)
    with pytest.raises(InvalidRequestError):
        handover.receive(pair[1])
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_a_socket_that_lingers_is_closed_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
        client.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                client.send(b"x" * 65_536)
        handover.discard([client.detach()])  # would take an hour
        accepted.close()


def test_discarding_takes_what_is_no_socket_too() -> None:
    reader, writer = os.pipe()
    handover.discard([writer, writer])
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_an_error_keeps_its_class_and_its_words() -> None:
    offending = [{"type": "http", "resource": "search"}]
    sent = handover.problem(AttenuationError("too wide", help="ask for less", offending=offending))
    with pytest.raises(AttenuationError, match="too wide") as raised:
        handover.raise_problem(sent)
    assert (raised.value.help, list(raised.value.offending)) == ("ask for less", offending)


def test_an_error_of_an_unknown_code_is_an_error_still() -> None:
    with pytest.raises(UnavailableError):
        handover.raise_problem({"error": {"code": "from-the-future", "detail": "no"}})


def test_an_answer_without_an_error_raises_nothing() -> None:
    handover.raise_problem({"ready": True})


@pytest.mark.parametrize("junk", [7, "x", [], {"offending": 7}, {"offending": [1]}])
def test_a_malformed_error_is_an_error_still(junk: object) -> None:
    with pytest.raises(RemitError):
        handover.raise_problem({"error": junk})


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_sending_waits_for_room(pair: Pair, loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    pair[0].setblocking(False)
    many = 64

    async def main() -> int:
        async def sender() -> None:
            for _ in range(many):
                await send_async(pair[0], {"fill": "x" * 60_000})

        sending = asyncio.create_task(sender())
        heard = [await asyncio.to_thread(handover.receive, pair[1]) for _ in range(many)]
        await sending
        return sum(item is not None for item in heard)

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(main()) == many


def test_more_descriptors_than_are_due_are_not_taken(pair: Pair) -> None:
    reader, writer = os.pipe()
    handover.send(pair[0], {}, [writer, writer])
    os.close(writer)
    with pytest.raises(InvalidRequestError):
        handover.receive(pair[1], 1)
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_sending_to_somebody_who_left_is_no_error(pair: Pair) -> None:
    pair[1].close()
    asyncio.run(send_async(pair[0], {"ready": True}))
