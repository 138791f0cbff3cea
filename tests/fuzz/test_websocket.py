"""Whatever bytes come as frames: they are refused, or what goes on is what an independent reader makes of them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

from remit.errors import InvalidRequestError, RemitError, UpstreamError
from remit.gateway.patterns import LeakError, SecretPatterns
from remit.gateway.websocket import MessageStream, WebSocket

SECRET = b"rmt-k-3f1c0a9be7d24856-Q"
PATTERNS = SecretPatterns([SECRET])

payloads = st.one_of(
    st.text(alphabet="ab\x03{", max_size=30).map(str.encode),
    st.sampled_from([SECRET, SECRET[:9], SECRET[9:], b"\x03\xe8"]),
)
usual = st.tuples(st.sampled_from([0x1, 0x2, 0x81, 0x82, 0x0, 0x80, 0x89, 0x8A, 0x88]), payloads, st.just(0))
odd = st.tuples(st.integers(0, 255), payloads, st.integers(0, 3))
frames = st.lists(st.one_of(usual, usual, usual, odd), max_size=8)
cuts = st.lists(st.integers(0, 400), max_size=5)


def written(listed: list[tuple[int, bytes, int]], *, mask: bool) -> bytes:
    """Write frames; a fault of 1 is a wrong mask, of 2 a length in too many bytes, of 3 one too few bytes."""
    out = b""
    for first, data, fault in listed:
        masked = 0x80 if mask != (fault == 1) else 0
        size = bytes([masked | 126, 0, len(data)]) if fault == 2 else bytes([masked | len(data)])
        frame = bytes([first]) + size + (bytes(4) if masked else b"") + data
        out += frame[:-1] if fault == 3 else frame
    return out


def plain(listed: list[tuple[int, bytes, int]]) -> bool:
    """Whether two readers agree: ours refuses a part, a length in too many bytes, text not of UTF-8."""
    return all(fault < 2 and (data.isascii() or first & 0x0F not in {0x0, 0x1}) for first, data, fault in listed)


def pieces(data: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut for cut in at if cut < len(data)), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def messages(data: bytes, side: Side) -> tuple[list[tuple[Opcode, bytes]], bool]:
    """Return the messages and control frames that websockets reads in bytes, and whether it refuses what follows."""
    reader = Protocol(side, state=State.OPEN, max_size=None)
    reader.receive_data(data)
    found: list[tuple[Opcode, bytes]] = []
    begun: tuple[Opcode, bytes] | None = None
    for event in reader.events_received():
        assert isinstance(event, Frame)
        if event.opcode in {Opcode.PING, Opcode.PONG, Opcode.CLOSE}:
            found.append((event.opcode, bytes(event.data)))
            continue
        begun = (begun[0], begun[1] + event.data) if begun is not None else (event.opcode, bytes(event.data))
        if event.fin:
            found.append(begun)
            begun = None
    return found, reader.parser_exc is not None and not isinstance(reader.parser_exc, EOFError)


def ended(came: list[tuple[Opcode, bytes]]) -> bool:
    """Whether the last is a `Close`: within a message one reader refuses it."""
    return bool(came) and came[-1][0] is Opcode.CLOSE


def through(stream: MessageStream, data: list[bytes]) -> tuple[bytes, RemitError | None]:
    out = b""
    try:
        for piece in data:
            for frame in stream.steps(piece):
                out += frame
    except RemitError as error:
        return out, error
    return out, None


@settings(max_examples=600)
@given(frames, cuts)
def test_what_a_client_says_is_refused_or_goes_on_as_it_is(listed: list[tuple[int, bytes, int]], at: list[int]) -> None:
    data = written(listed, mask=True)
    socket = WebSocket(PATTERNS, None)
    out, error = through(socket.sent.stream, pieces(data, at))
    said, refused = messages(data, Side.SERVER)
    came, odd = messages(out, Side.SERVER)
    assert not odd or any(first & 0x0F == Opcode.CLOSE for first, _, _ in listed)  # which may be within a message
    assert came[: len(said)] == said[: len(came)]
    assert len(came) <= len(said) + ended(came)
    assert error is None or isinstance(error, InvalidRequestError)
    if refused:
        assert error is not None or socket.sent.stream.closed
    elif plain(listed):
        assert (error, came) == (None, said)


@settings(max_examples=600)
@given(frames, cuts)
def test_no_message_of_an_upstream_holds_the_key_and_every_other_goes_on(
    listed: list[tuple[int, bytes, int]], at: list[int]
) -> None:
    data = written(listed, mask=False)
    socket = WebSocket(PATTERNS, None)
    out, error = through(socket.heard, pieces(data, at))
    said, refused = messages(data, Side.CLIENT)
    came, odd = messages(out, Side.CLIENT)
    assert not odd
    assert all(SECRET not in text for _, text in came)
    assert came[: len(said)] == said[: len(came)]
    assert len(came) <= len(said) + ended(came)
    assert error is None or isinstance(error, UpstreamError)
    if not refused and not isinstance(error, LeakError) and plain(listed):
        assert (error, came) == (None, said)


@pytest.mark.parametrize("mask", [True, False])
@settings(max_examples=600)
@given(st.binary(max_size=80), cuts)
def test_any_bytes_are_refused_or_go_on_as_frames(mask: bool, data: bytes, at: list[int]) -> None:  # noqa: FBT001
    socket = WebSocket(PATTERNS, PATTERNS)
    stream = socket.sent.stream if mask else socket.heard
    out, error = through(stream, pieces(data, at))
    came, odd = messages(out, Side.SERVER if mask else Side.CLIENT)
    assert not odd
    said, _ = messages(data, Side.SERVER if mask else Side.CLIENT)
    assert came[: len(said)] == said[: len(came)]
    assert len(came) <= len(said) + ended(came)
    assert error is None or isinstance(error, InvalidRequestError if mask else UpstreamError)
