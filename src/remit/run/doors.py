"""Accepting on listening sockets that somebody else may hold as well.

Whether accept() waits is a flag of the open file description. A run that passes its sockets and keeps duplicates may
clear it, take each connection first, or shut the socket down; so nothing of this is left to the broker's loop. A thread
for each such run accepts, and whatever is done to its sockets holds up that run alone.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

Deliver = Callable[[socket.socket], None]

WAITING = 64  # accepted connections that the loop has not yet seen
PAUSE = 0.05  # seconds: somebody else took the connection, or there is no descriptor left
PRESS = 0.1  # seconds between two attempts to get the thread out of accept()

_LATER = frozenset({errno.EAGAIN, errno.ECONNABORTED, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_SHUT = select.EPOLLHUP | select.EPOLLRDHUP | select.EPOLLERR
_NO_LINGER = struct.pack("ii", 0, 0)


class Doors:
    """The listening sockets of one run, and the thread that accepts on them; made and closed in the running loop."""

    def __init__(self, broken: Callable[[], None]) -> None:
        """Accept on nothing yet; ``broken`` is called in the loop when a socket has stopped listening."""
        self._loop = asyncio.get_running_loop()
        self._broken = broken
        self._doors: dict[int, tuple[socket.socket, Deliver]] = {}
        self._adopted: set[asyncio.Task[None]] = set()
        self._waiting = threading.Semaphore(WAITING)
        self._ended = threading.Event()
        self._epoll: select.epoll | None = None  # there is one as long as there is a thread
        self._wake = -1
        self._then: list[Callable[[], None]] = []

    def add(self, sock: socket.socket, deliver: Deliver) -> None:
        """Call ``deliver`` in the loop with each connection; the listening socket is closed with the others."""
        sock.setblocking(False)
        self._doors[sock.fileno()] = (sock, deliver)
        if self._epoll is None:
            self._start()
        assert self._epoll is not None  # noqa: S101 - narrows the type
        self._epoll.register(sock, select.EPOLLIN | select.EPOLLRDHUP)

    async def serve(self, factory: Callable[[], asyncio.BaseProtocol], sock: socket.socket) -> Doors:
        """Serve a stream socket as ``create_server`` would."""
        self.add(sock, lambda connection: self._adopt(factory, connection))
        return self

    def close(self) -> None:
        """Stop accepting on all of them."""
        if self._ended.is_set():
            return
        self._ended.set()
        if self._epoll is not None:
            os.eventfd_write(self._wake, 1)
            self._press()

    def when_gone(self, then: Callable[[], None]) -> None:
        """Call back when the thread has ended: a run can put that off, until it has ended itself."""
        if self._epoll is None:
            then()
        else:
            self._then.append(then)

    async def gone(self) -> None:
        """Wait until the thread has ended."""
        ended = asyncio.Event()
        self.when_gone(ended.set)
        await ended.wait()

    # -- in the loop --------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._epoll, self._wake = select.epoll(), os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)
        try:
            threading.Thread(target=self._watch, args=(self._epoll,), name="remit-doors", daemon=True).start()
        except RuntimeError:
            self._finish()
            raise

    def _press(self) -> None:
        """Get the thread out of accept(). A run that listens again at once may keep it there for a while."""
        if self._epoll is None:
            return
        for sock, _ in self._doors.values():
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._loop.call_later(PRESS, self._press)

    def _deliver(self, deliver: Deliver, connection: socket.socket) -> None:
        self._waiting.release()
        if self._ended.is_set():
            connection.close()
        else:
            deliver(connection)

    def _adopt(self, factory: Callable[[], asyncio.BaseProtocol], connection: socket.socket) -> None:
        task = self._loop.create_task(self._connected(factory, connection))
        self._adopted.add(task)
        task.add_done_callback(self._adopted.discard)

    async def _connected(self, factory: Callable[[], asyncio.BaseProtocol], connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(factory, connection)
        except OSError:
            connection.close()

    def _finish(self) -> None:
        if self._epoll is not None:
            self._epoll.close()
            os.close(self._wake)
            self._epoll = None
        for sock, _ in self._doors.values():
            sock.close()
        self._doors.clear()
        for then in self._then:
            then()

    # -- in the thread ------------------------------------------------------------------------------------------

    def _watch(self, epoll: select.epoll) -> None:
        while not self._ended.is_set():
            for descriptor, events in epoll.poll():
                door = self._doors.get(descriptor)
                if door is not None and not self._ended.is_set():
                    self._answer(epoll, events, *door)
        try:
            self._loop.call_soon_threadsafe(self._finish)
        except RuntimeError:  # the loop has ended before
            self._finish()

    def _answer(self, epoll: select.epoll, events: int, sock: socket.socket, deliver: Deliver) -> None:
        try:
            connection = _accepted(sock, events)
        except OSError as error:
            if error.errno in _LATER:
                self._ended.wait(PAUSE)
            else:
                epoll.unregister(sock)
                self._tell(self._broken)
            return
        # a connection inherits how long close() may wait; it is ours alone from here on
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._waiting.acquire()
        if not self._tell(self._deliver, deliver, connection):
            connection.close()

    def _tell(self, callback: Callable[..., None], *arguments: object) -> bool:
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *arguments)
            return True
        return False


def _accepted(sock: socket.socket, events: int) -> socket.socket:
    if events & _SHUT:  # of which accept() on a unix socket says EAGAIN, for ever
        raise OSError(errno.EINVAL, "the socket does not listen any more")
    return sock.accept()[0]
