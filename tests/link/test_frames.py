"""A socket of a link: what is said together is sent together, and a peer that dies or does not read harms nobody."""

from __future__ import annotations

import asyncio
import socket

import pytest

from remit.link import frames
from remit.link.frames import SLICE, FramedSocket, FrameReader, frame
from tests.broker.world import run


class End:
    """One end, what it took, and how often it ended."""

    def __init__(self, most: int = 1_000) -> None:
        self.socket = FramedSocket("a test", most, self._take, self._over)
        self.took, self.ended, self._changed = list[bytes](), 0, asyncio.Event()

    def _take(self, data: bytes) -> None:
        self.took.append(data)
        self._changed.set()

    def _over(self) -> None:
        self.ended += 1
        self._changed.set()

    async def changed(self) -> None:
        self._changed.clear()
        async with asyncio.timeout(5):
            await self._changed.wait()


async def joined(most: int = 1_000) -> tuple[End, socket.socket]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    end = End(most)
    await end.socket.open(ours)
    return end, theirs


def test_what_is_said_in_one_turn_is_sent_in_one_write_after_what_is_sent_now() -> None:
    async def body() -> None:
        end, theirs = await joined()
        with theirs:
            end.socket.say(b"one")
            end.socket.say(b"two")
            end.socket.send([b"now"])
            assert theirs.recv(1_000) == frame(b"now")
            await asyncio.sleep(0)
            assert theirs.recv(1_000) == frame(b"one") + frame(b"two")
        end.socket.close()

    run(body())


def test_what_arrives_together_is_taken_over_several_turns_of_the_loop_in_order() -> None:
    async def body() -> None:
        end, theirs = await joined()
        with theirs:
            await asyncio.get_running_loop().sock_sendall(theirs, b"".join(frame(b"%d" % i) for i in range(100)))
            await end.changed()
            assert 1 < len(end.took) <= SLICE // 2_048 + 1
            while len(end.took) < 100:
                await end.changed()
            assert end.took == [b"%d" % i for i in range(100)]
            await asyncio.get_running_loop().sock_sendall(theirs, frame(b"more"))
            await end.changed()
            assert end.took[-1] == b"more"  # it reads again
        end.socket.close()

    run(body())


def test_the_death_of_a_peer_is_the_end_and_what_is_said_then_is_lost() -> None:
    async def body() -> None:
        end, theirs = await joined()
        theirs.close()
        end.socket.send([b"x"])
        await end.changed()
        end.socket.say(b"y")
        end.socket.close()
        await asyncio.sleep(0)
        assert (end.ended, end.socket.lost) == (1, True)

    run(body())


def test_a_peer_that_does_not_read_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(frames, "MAX_UNREAD", 1 << 20)

    async def body() -> None:
        end, theirs = await joined()
        with theirs:
            for _ in range(40):
                end.socket.send([b"x" * 65_536])
                assert not end.socket.lost or end.ended == 1
            assert end.socket.lost
        assert "the link to a test is cut off: it does not read" in caplog.text

    run(body())


def test_one_answer_may_be_longer_than_what_a_peer_may_leave_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_UNREAD", 1 << 20)

    async def body() -> None:
        end, theirs = await joined()
        with theirs:
            end.socket.send([b"x" * (1 << 21)])
            reader, found = FrameReader(1 << 22), list[bytes]()
            while not found:
                found = reader.feed(await asyncio.get_running_loop().sock_recv(theirs, 65_536))
            assert len(found[0]) == 1 << 21
        end.socket.close()

    run(body())
