"""What the authority asks of the supervisor, and is told by it: one packet a message, descriptors beside it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from itertools import count

import msgspec

from remit.errors import UnavailableError

MAX_PACKET = 64 * 1024  # bytes
MAX_LINKS = 4  # descriptors beside one


class Start(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Start a worker of a role."""

    order: int
    role: str


class Kill(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Kill a worker, and start it ``again`` or not; carried out when it is reaped."""

    order: int
    name: str
    pid: int
    again: bool


class Tell(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Tell how the processes are."""

    order: int


class Ready(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The authority serves: from now on it is started again when it crashes."""


class Ending(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The authority is about to end: nobody is started any more."""


class ProcessState(msgspec.Struct, frozen=True):
    """A process, for status and the doctor."""

    name: str
    pid: int | None  # None: it died, and is about to be started again
    since: float  # seconds since the epoch
    restarts: int
    walls: tuple[str, ...]


class ProcessesState(msgspec.Struct, frozen=True, tag=True):
    """All processes, the supervisor first; ``lacks`` are lines on what this kernel cannot hold workers to."""

    processes: tuple[ProcessState, ...]
    lacks: tuple[str, ...]


class Started(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A worker was started, for the first time or, with ``order`` 0, again; our ends of its links come along."""

    order: int
    name: str
    role: str
    pid: int


class Ended(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A worker is dead and reaped: with an exit status, or minus the number of a signal."""

    name: str
    pid: int
    status: int


class Done(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """An order was carried out; not so where there is an ``error``, which says why, and a ``help`` what to do."""

    order: int
    error: str = ""
    state: ProcessesState | None = None
    help: str | None = None


class Stop(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """End, cleanly: the supervisor was told to."""


class Reload(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """SIGHUP came."""


Order = Start | Kill | Tell | Ready | Ending
Report = Started | Ended | Done | Stop | Reload
encode = msgspec.msgpack.Encoder().encode
read_order = msgspec.msgpack.Decoder(Order).decode
_read_report = msgspec.msgpack.Decoder(Report).decode


class Worker(msgspec.Struct, frozen=True):
    """A worker that lives, or did, and our ends of its link, non-blocking."""

    name: str
    role: str
    pid: int
    links: tuple[socket.socket, ...]


class Supervision:
    """The authority's end: it asks for workers, and is told of each that starts, also of those that start again."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        started: Callable[[Worker], None],
        ended: Callable[[Ended], None],  # its links are at their end, too
        stop: Callable[[], None],
        reload: Callable[[], None],
    ) -> None:
        """Take the socket of the authority's context; call this in its loop."""
        self._sock, self._loop = sock, asyncio.get_running_loop()
        self._started, self._ended, self._stop, self._reload = started, ended, stop, reload
        self._numbers, self._asked = count(1), dict[int, asyncio.Future[Done | Worker]]()
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._read)

    def ready(self) -> None:
        """Say that the authority serves."""
        self._sock.send(encode(Ready()))

    def ending(self) -> None:
        """Say that the authority is about to end: it has as long for that as if it had been told to."""
        self._sock.send(encode(Ending()))

    async def start(self, role: str) -> Worker:
        """Start one more worker of a role; return it once ``started`` was called with it. UnavailableError."""
        number = next(self._numbers)
        worker = await self._ask(number, Start(number, role))
        assert isinstance(worker, Worker)  # noqa: S101 - of ``Done`` only errors come
        return worker

    async def kill(self, worker: Worker, *, again: bool = True) -> None:
        """Kill a worker; return when it is dead and reaped. Then it is started ``again``, under its name, or not."""
        number = next(self._numbers)
        await self._ask(number, Kill(number, worker.name, worker.pid, again))

    async def state(self) -> ProcessesState:
        number = next(self._numbers)
        done = await self._ask(number, Tell(number))
        assert isinstance(done, Done)  # noqa: S101 - no worker was asked for
        assert done.state is not None  # noqa: S101 - it was asked for
        return done.state

    async def _ask(self, number: int, order: Order) -> Done | Worker:
        self._asked[number] = self._loop.create_future()
        try:
            self._sock.send(encode(order))
            answer = await self._asked[number]
        finally:
            del self._asked[number]
        if isinstance(answer, Done) and answer.error:
            raise UnavailableError(answer.error, help=answer.help)
        return answer

    def _read(self) -> None:
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._sock, MAX_PACKET, MAX_LINKS)
            except BlockingIOError:
                return
            if not data:
                os._exit(1)  # the supervisor is dead, and nobody may outlive it
            self._told(_read_report(data), descriptors)

    def _told(self, report: Report, descriptors: list[int]) -> None:
        match report:
            case Started(order, name, role, pid):
                links = tuple(socket.socket(fileno=descriptor) for descriptor in descriptors)
                for link in links:
                    link.setblocking(False)
                worker = Worker(name, role, pid, links)
                self._started(worker)
                self._answer(order, worker)
            case Ended():
                self._ended(report)
            case Done(order):
                self._answer(order, report)
            case Stop():
                self._stop()
            case Reload():
                self._reload()

    def _answer(self, order: int, answer: Done | Worker) -> None:
        future = self._asked.get(order)
        if future is not None and not future.done():
            future.set_result(answer)
