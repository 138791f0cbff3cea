"""Accepting and reading on sockets that somebody else may hold, or may have filled, as well.

Whether accept() waits is a flag of the open file description. A run that passes its sockets and keeps duplicates may
clear it, take each connection first, or shut the socket down. And what it passes may take as long to close as it likes:
SO_LINGER is the run's to set, and a unix socket may hold such a one in its queue. So nothing of this is left to the
broker's loop. A thread for each hand-over accepts, receives descriptors, and closes; what is done to it holds up the
runs that were launched through it, and nobody else's.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from remit.errors import InvalidRequestError, RemitError
from remit.ports.runs import Places, RunListener
from remit.process import kernel
from remit.run import handover
from remit.run.handover import Message

Deliver = Callable[[socket.socket], None]
Heard = tuple[Message, list[int]]  # a message, and the descriptors that came with it

WAITING = 64  # accepted connections that the loop has not yet seen
PAUSE = 0.05  # seconds: somebody else took the connection, or there is no descriptor left
PATIENCE = 30.0  # seconds for each message of a launcher until its run is ready
PRESS = 0.1  # seconds before, and between, attempts to get the thread out of accept()

_LATER = frozenset({errno.EAGAIN, errno.ECONNABORTED, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_SHUT = select.EPOLLHUP | select.EPOLLRDHUP | select.EPOLLERR
_NO_LINGER = struct.pack("ii", 0, 0)
_PASSED_ON = (16, 34, 76)  # SO_PASSCRED, SO_PASSSEC, SO_PASSPIDFD: the last makes a descriptor of each message


class Acceptor:
    """The sockets of one hand-over, and the thread that works on them; made and closed in the running loop.

    ``peer`` is the launcher's connection, not blocking; it is the thread's to close. What the thread has accepted or
    received belongs to it until the loop takes it, and the loop takes nothing once it has closed it. ``broken`` is
    called in the loop when a socket has stopped listening. RuntimeError when no thread can be started.
    """

    def __init__(self, broken: Callable[[], None], peer: socket.socket) -> None:
        self._loop, self._broken, self._peer = asyncio.get_running_loop(), broken, peer
        self._due = 0  # descriptors that may come with the next message
        self._waiter: asyncio.Future[Heard | RemitError | None] | None = None
        self._parcel: list[int] = []  # came with the last message
        self._listening: dict[int, tuple[socket.socket, Deliver]] = {}
        self._held = threading.Lock()  # of the sockets, while one is shut down or closed: their numbers are used again
        self._accepted: set[socket.socket] = set()
        self._rubbish: deque[int] = deque()
        self._adopted: set[asyncio.Task[None]] = set()
        self._waiting = threading.Semaphore(WAITING)
        self._ended = threading.Event()
        self._over = threading.Event()
        self._then: list[Callable[[], None]] = []
        self._epoll, self._wake = select.epoll(), os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)
        try:
            threading.Thread(target=self._watch, name="remit-acceptor", daemon=True).start()
        except RuntimeError:
            self._finish()
            raise

    def add(self, sock: socket.socket, deliver: Deliver) -> None:
        """Call ``deliver`` in the loop with each connection; the listening socket is closed with the others."""
        sock.setblocking(False)
        self._listening[sock.fileno()] = (sock, deliver)
        self._epoll.register(sock, select.EPOLLIN | select.EPOLLRDHUP)

    async def serve(self, factory: Callable[[], asyncio.BaseProtocol], sock: socket.socket) -> Acceptor:
        """Serve a stream socket as ``create_server`` would; one of the unix family takes no descriptors from now on."""
        if sock.family == socket.AF_UNIX:
            kernel.refuse_descriptors(sock)
        self.add(sock, lambda connection: self._adopt(factory, connection))
        return self

    async def heard(self, due: int = 0) -> Heard:
        """Return the next message of the launcher with its descriptors, no more than ``due``.

        Raises what ``handover.receive`` does, and InvalidRequestError when none comes in time. More descriptors than
        are due never become ours: the kernel drops them in the thread.
        """
        first, self._due = self._waiter is None, due
        self._waiter = self._loop.create_future()
        (self._epoll.register if first else self._epoll.modify)(self._peer, select.EPOLLIN | select.EPOLLONESHOT)
        try:
            async with asyncio.timeout(PATIENCE):
                heard = await self._waiter
        except TimeoutError:
            raise InvalidRequestError("the launcher took too long") from None
        if heard is None:
            raise InvalidRequestError("the launcher went away")
        if isinstance(heard, RemitError):
            raise heard
        self._parcel = []
        return heard

    def put_away(self, descriptors: Iterable[int]) -> None:
        """Have descriptors of unknown origin closed in the thread."""
        self._rubbish.extend(descriptors)
        self._rouse()

    def close(self) -> None:
        if self._ended.is_set():
            return
        self._ended.set()
        self._rouse()
        self._loop.call_later(PRESS, self._press)  # who has shut a listener down cannot hand it over anew

    def leave(self) -> None:
        """Close the launcher's connection, too."""
        self.close()
        self._over.set()
        self._rouse()

    def when_gone(self, then: Callable[[], None]) -> None:
        """Call back when the thread has ended: a run can put that off, until it has ended itself."""
        if self._epoll.closed:
            then()
        else:
            self._then.append(then)

    async def gone(self) -> None:
        ended = asyncio.Event()
        self.when_gone(ended.set)
        await ended.wait()

    def _rouse(self) -> None:
        if not self._epoll.closed:
            os.eventfd_write(self._wake, 1)

    def _press(self) -> None:
        """Get the thread out of accept(). A run that listens again at once may keep it there for a while."""
        with self._held:
            for sock, _ in self._listening.values():
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            if self._listening:
                self._loop.call_later(PRESS, self._press)

    def _deliver(self, deliver: Deliver, connection: socket.socket) -> None:
        self._waiting.release()
        if not self._ended.is_set():
            self._accepted.discard(connection)
            deliver(connection)

    def _answer_waiter(self, heard: Heard | RemitError | None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(heard)

    def _report(self) -> None:
        if not self._over.is_set():
            self._broken()

    def _adopt(self, factory: Callable[[], asyncio.BaseProtocol], connection: socket.socket) -> None:
        async def connected() -> None:
            try:
                await self._loop.connect_accepted_socket(factory, connection)
            except OSError:
                connection.close()

        task = self._loop.create_task(connected())
        self._adopted.add(task)
        task.add_done_callback(self._adopted.discard)

    def _finish(self) -> None:
        self._epoll.close()
        os.close(self._wake)
        for then in self._then:
            then()

    def _watch(self) -> None:
        """Work as the thread; what follows runs in it."""
        while not self._over.is_set():
            for descriptor, events in self._epoll.poll():
                self._tidy()
                listening = self._listening.get(descriptor)
                if listening is not None:
                    self._answer(events, *listening)
                elif descriptor == self._peer.fileno() and not self._over.is_set():
                    self._hear()
        self._tidy()
        self._close_listening()
        handover.discard([*self._rubbish, *self._parcel])
        with suppress(OSError):
            self._peer.shutdown(socket.SHUT_RDWR)
            while self._peer.recv(1):  # closed with something unread, it would have its peer lose the last answer
                pass
        self._peer.close()
        if not self._tell(self._finish):  # the loop has ended before
            self._finish()

    def _tidy(self) -> None:
        """Close what is to be closed, before anything more is let in."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        while self._rubbish:
            handover.discard([self._rubbish.popleft()])
        if self._ended.is_set():
            for descriptor in self._listening:
                with suppress(OSError):  # one that has stopped listening was taken out
                    self._epoll.unregister(descriptor)
            self._close_listening()

    def _close_listening(self) -> None:
        with self._held:
            sockets = [sock.detach() for sock, _ in self._listening.values()]
            self._listening.clear()
        handover.discard([*sockets, *(connection.detach() for connection in self._accepted)])
        self._accepted.clear()

    def _answer(self, events: int, sock: socket.socket, deliver: Deliver) -> None:
        listens = not events & _SHUT  # else accept() on a unix socket says EAGAIN, for ever
        try:
            connection = sock.accept()[0] if listens else None
        except OSError as error:
            if error.errno in _LATER:
                self._ended.wait(PAUSE)
                return
            connection = None
        if connection is None:
            self._epoll.unregister(sock)
            self._tell(self._report)
        elif not _ours(connection):
            connection.close()
        else:
            self._accepted.add(connection)
            self._waiting.acquire()
            self._tell(self._deliver, deliver, connection)

    def _hear(self) -> None:
        heard: Heard | RemitError | None
        try:
            heard = handover.receive(self._peer, self._due)
        except BlockingIOError:
            self._epoll.modify(self._peer, select.EPOLLIN | select.EPOLLONESHOT)
            return
        except RemitError as error:
            heard = error
        except OSError:
            heard = None
        self._parcel = heard[1] if isinstance(heard, tuple) else []
        self._tell(self._answer_waiter, heard)

    def _tell(self, callback: Callable[..., None], *arguments: object) -> bool:
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *arguments)
            return True
        return False


def _ours(connection: socket.socket) -> bool:
    """Undo what a connection inherited; False for a stream into which somebody may have put descriptors.

    It is ours alone from here on, but somebody else's listener has made it.
    """
    with suppress(OSError):  # refused by our own filter where runs' filters refuse to set it
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    if connection.family != socket.AF_UNIX:
        return True
    for option in _PASSED_ON:
        with suppress(OSError):  # this kernel has no such option
            connection.setsockopt(socket.SOL_SOCKET, option, 0)
    return connection.type != socket.SOCK_STREAM or not kernel.takes_descriptors(connection)


async def bound(acceptor: Acceptor, wanted: Sequence[RunListener]) -> tuple[list[socket.socket], Places]:
    """Return the sockets of the wanted listeners, each checked to be what was asked for, and where they listen."""
    message, descriptors = await acceptor.heard(len(wanted))
    sockets = list[socket.socket]()
    for descriptor in descriptors:
        try:
            sockets.append(socket.socket(fileno=descriptor))
        except OSError:  # not a socket at all: the count will not match
            acceptor.put_away([descriptor])
    try:
        return sockets, _places(message, wanted, sockets)
    except BaseException:
        acceptor.put_away([sock.detach() for sock in sockets])
        raise


def _places(message: Message, wanted: Sequence[RunListener], sockets: Sequence[socket.socket]) -> Places:
    if message.get("bound") != [listener.name for listener in wanted] or len(sockets) != len(wanted):
        raise InvalidRequestError("other listeners were bound than was asked for")
    return {item.name: _place(item, sock) for item, sock in zip(wanted, sockets, strict=True)}


def _place(listener: RunListener, sock: socket.socket) -> int | str:
    """Return where a socket listens; it must be the family and kind that its listener has, and on loopback.

    Other protocols of the internet family than TCP close as they like: SMC waits for what was not sent.
    """
    inet = listener.path is None
    family, protocol = (socket.AF_INET, socket.IPPROTO_TCP) if inet else (socket.AF_UNIX, 0)
    kind = socket.SOCK_SEQPACKET if listener.kind == "launch" else socket.SOCK_STREAM
    listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if (sock.family, sock.type, sock.proto) != (family, kind, protocol) or not listening:
        raise InvalidRequestError(f"`{listener.name}` is not the listener that was asked for")
    name = sock.getsockname()
    if inet and name[0] != "127.0.0.1":
        raise InvalidRequestError(f"`{listener.name}` is not bound to loopback")
    return int(name[1]) if inet else str(name)
