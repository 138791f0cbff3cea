"""The parent of all processes: it forks each anew, and has no thread, no loop, no state and no key.

The authority lives as long as it is not told to end. It asks for workers (``orders.py``); each is forked, confined,
given its listeners, and linked to the authority by a socketpair. A worker that dies is started again; when the
authority dies all workers are killed and reaped before the next authority starts.
"""

from __future__ import annotations

import logging
import math
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from remit.errors import RemitError
from remit.process import confine, forking, kernel, orders
from remit.process.confinement import Confinement, Walls
from remit.process.forking import CRASHED, Child
from remit.process.survey import survey

PATIENCE = 15.0  # seconds that the authority has to end
CALM = 60.0  # seconds after which a death is a first one again
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds before a process that died again is started again
MOST = 64  # workers
LINKS = 2  # sockets between a worker and the authority: on the second nothing waits behind a call

_LOG = logging.getLogger("remit.process")


@dataclass(frozen=True, slots=True)
class RoleContext:
    """What a process has when its main is called, in the fork."""

    name: str
    # to the authority; of the authority itself one to the supervisor, for ``orders.Supervision``
    links: tuple[socket.socket, ...]
    listeners: Mapping[str, socket.socket]


def _no_listeners(name: str) -> Mapping[str, socket.socket]:  # noqa: ARG001 - of none
    return {}


@dataclass(frozen=True, slots=True)
class ProcessRole:
    """What a process does.

    ``main`` runs in the fork; its int ends the process. What an authority returns ends the supervisor with it, what it
    raises or is killed by has it started again. ``listen`` makes the listeners of a process by its name, in the
    supervisor, once: whoever comes after it under that name has the same. A worker's are made when it is first asked
    for, by when the authority has its state to itself.
    """

    name: str
    main: Callable[[RoleContext], int]
    confinement: Confinement | None = None
    listen: Callable[[str], Mapping[str, socket.socket]] = _no_listeners


@dataclass(slots=True)
class _Process:
    name: str
    role: ProcessRole
    child: Child | None = None
    since: float = 0.0  # wall clock
    started: float = 0.0  # monotonic
    restarts: int = 0
    deaths: int = 0  # in a row
    due: float = 0.0  # when it is to be started; monotonic
    again: bool = True
    asked: int = 0  # the order that it is started by
    killers: list[int] = field(default_factory=list)  # the orders that wait for its death

    def died(self, now: float) -> None:
        """Take note of a death: at once is it started after the first, and then ever later."""
        self.deaths = 1 if now - self.started >= CALM else self.deaths + 1
        pause = 0.0 if self.deaths == 1 else min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self.deaths - 2, 16))
        self.child, self.due, self.restarts = None, now + pause, self.restarts + 1


def supervise(
    authority: ProcessRole,
    workers: Mapping[str, ProcessRole],
    walls: Walls | None = None,
    ready: Callable[[], None] = lambda: None,
    ending: Callable[[], None] = lambda: None,
) -> int:
    """Run the authority and its workers until it ends or we are told to; return the status to exit with.

    ``ready`` is called when an authority says for the first time that it serves, ``ending`` when it is to end.
    ``walls`` are those that this kernel has (``survey``). What a main needs is imported by now: children share
    its memory.
    """
    forking.prepare()
    found = survey() if walls is None else walls
    with _heard() as heard:
        return Supervisor(authority, workers, found, heard, ready, ending).run()


@contextmanager
def _heard() -> Iterator[int]:
    """Hear the signals that are meant for us: each is a byte on a descriptor."""
    reads, writes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = {number: signal.signal(number, lambda _number, _frame: None) for number in forking.SIGNALS}
    wakes = signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
    try:
        yield reads
    finally:
        signal.set_wakeup_fd(wakes)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reads)
        os.close(writes)


class Supervisor:
    """One supervision, from the first authority to the last."""

    def __init__(
        self,
        authority: ProcessRole,
        workers: Mapping[str, ProcessRole],
        walls: Walls,
        heard: int,
        ready: Callable[[], None],
        ending: Callable[[], None],
    ) -> None:
        """Read the numbers of signals from ``heard``."""
        self._when_ready, self._when_ending = ready, ending
        self._roles, self._walls, self._heard, self._since = workers, walls, heard, time.time()
        self._authority = _Process(authority.name, authority)
        self._workers: dict[str, _Process] = {}
        self._listeners = {authority.name: _numbers(authority.listen(authority.name))}
        self._orders: socket.socket | None = None  # from the authority
        self._ready = False
        self._deadline: float | None = None  # when the authority that was told to stop is killed; monotonic
        self._status: int | None = None

    def run(self) -> int:
        """Return the status to exit with, once no process is left."""
        try:
            while self._status is None:
                self._turn()
        finally:
            self._kill([self._authority, *self._workers.values()])
        return self._status

    def _turn(self) -> None:
        now = time.monotonic()
        for process in self._processes():
            if process.child is None and process.due <= now and self._deadline is None:
                self._start(process)
        if self._deadline is not None and self._deadline <= now:
            self._deadline = math.inf
            self._kill_authority()
        ready = self._polled(now)
        if self._heard in ready:
            for number in os.read(self._heard, 64):
                self._hear(number)
        if self._orders is not None and self._orders.fileno() in ready:
            self._listen(self._orders)
        for process in self._processes():
            if process.child is not None and process.child.pidfd in ready:
                self._reap(process, process.child)

    def _polled(self, now: float) -> set[int]:
        """Wait for something to happen; return the descriptors that say so."""
        poll, dues = select.poll(), [] if self._deadline is None else [self._deadline]
        poll.register(self._heard, select.POLLIN)
        if self._orders is not None:
            poll.register(self._orders, select.POLLIN)
        for process in self._processes():
            if process.child is None:
                dues += [process.due] if self._deadline is None else []  # else it is not started any more
            else:
                poll.register(process.child.pidfd, select.POLLIN)
        first = min(dues, default=math.inf)
        pause = None if first == math.inf else max(0.0, first - now) * 1000
        return {descriptor for descriptor, _ in poll.poll(pause)}

    def _start(self, process: _Process) -> None:
        of_authority = process is self._authority
        kinds = [socket.SOCK_SEQPACKET] if of_authority else [socket.SOCK_STREAM] * LINKS
        pairs = [socket.socketpair(type=kind) for kind in kinds]
        ours, theirs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        for sock in ours:
            kernel.refuse_descriptors(sock)
        links, listeners = [sock.fileno() for sock in theirs], self._listeners.get(process.name, {})
        try:
            process.child = forking.forked(
                lambda: self._main(process, links, listeners),
                (*links, *listeners.values()),
                apart=process.role.confinement is not None and self._walls.namespaces,
            )
        except OSError as error:
            if of_authority and not self._ready:
                raise
            _LOG.error("the %s cannot be started: %s", process.name, error.strerror)
            process.died(time.monotonic())
            for sock in ours:
                sock.close()
        else:
            process.since, process.started = time.time(), time.monotonic()
            self._link(process, process.child, ours)
        finally:
            for sock in theirs:
                sock.close()

    def _link(self, process: _Process, child: Child, sockets: Sequence[socket.socket]) -> None:
        """Keep our end of what we share with the authority; hand it its end of what it shares with a worker."""
        if process is self._authority:
            self._orders = sockets[0]
            self._orders.setblocking(False)
            return
        report = orders.Started(process.asked, process.name, process.role.name, child.pid)
        self._tell(report, *(sock.fileno() for sock in sockets))
        process.asked = 0
        for sock in sockets:
            sock.close()

    def _main(self, process: _Process, links: Sequence[int], listeners: Mapping[str, int]) -> int:
        """Be the process: this is the fork."""
        kernel.prctl(kernel.PR_SET_NAME, f"remit {process.name}")
        inherited = {name: socket.socket(fileno=descriptor) for name, descriptor in listeners.items()}
        context = RoleContext(process.name, tuple(socket.socket(fileno=link) for link in links), inherited)
        confine.raise_walls(process.role.confinement, self._walls)
        return process.role.main(context)

    def _hear(self, number: int) -> None:
        if number == signal.SIGHUP:
            self._tell(orders.Reload())
        elif self._authority.child is None:
            self._status = 0
        elif self._deadline is None:
            self._end_soon()
            self._tell(orders.Stop())
        else:
            self._deadline = time.monotonic()

    def _listen(self, sock: socket.socket) -> None:
        data = b""
        with suppress(ConnectionError):
            data = sock.recv(orders.MAX_PACKET)
        if not data:
            sock.close()  # the authority is about to end
            self._orders = None
            return
        match orders.read_order(data):
            case orders.Start(order, role):
                self._begin(order, role)
            case orders.Kill(order, name, pid, again):
                self._end(order, name, pid, again=again)
            case orders.Tell(order):
                self._tell(orders.Done(order, state=self._state()))
            case orders.Ready() if not self._ready:
                self._ready = True
                self._when_ready()
            case orders.Ending() if self._deadline is None:
                self._end_soon()

    def _end_soon(self) -> None:
        self._deadline = time.monotonic() + PATIENCE
        self._when_ending()

    def _begin(self, order: int, name: str) -> None:
        """Let a worker of a role begin in the next turn."""
        role = self._roles.get(name)
        if role is None or len(self._workers) >= MOST:
            self._tell(orders.Done(order, "there is no such role" if role is None else f"there are {MOST} workers"))
            return
        names = (name if number == 1 else f"{name}.{number}" for number in range(1, MOST + 1))
        free = next(each for each in names if each not in self._workers)
        if free not in self._listeners:
            try:
                self._listeners[free] = _numbers(role.listen(free))
            except RemitError as error:
                self._tell(orders.Done(order, error.detail, help=error.help))
                return
        self._workers[free] = _Process(free, role, asked=order)

    def _end(self, order: int, name: str, pid: int, *, again: bool) -> None:
        """Kill a worker, if it is still the one that is meant; for good also one that takes its place."""
        process = self._workers.get(name)
        if process is not None and not again:
            process.again = False
        if process is None or process.child is None or (again and process.child.pid != pid):
            if process is not None and not process.again:
                del self._workers[name]
            self._tell(orders.Done(order))
            return
        process.killers.append(order)
        _signal(process.child)

    def _tell(self, report: orders.Report, *descriptors: int) -> None:
        """Tell the authority; one that reads nothing for long is as good as dead."""
        if self._orders is None:
            return
        try:
            socket.send_fds(self._orders, [orders.encode(report)], descriptors)
        except BlockingIOError:
            self._kill_authority()
        except OSError:
            return  # it died, and its pidfd says so

    def _reap(self, process: _Process, child: Child) -> None:
        """Act on the death of a process."""
        status = forking.reaped(child)
        process.child = None
        self._end_strays()
        if process is self._authority:
            self._authority_died(status)
            return
        self._tell(orders.Ended(process.name, child.pid, status))
        for order in process.killers:
            self._tell(orders.Done(order))
        process.killers.clear()
        if process.again:
            process.died(time.monotonic())
        else:
            del self._workers[process.name]

    def _authority_died(self, status: int) -> None:
        """Leave nobody alive who was linked to it; end with it where it meant to, or has never served."""
        self._kill(self._workers.values())
        self._workers.clear()
        if self._orders is not None:
            self._orders.close()
            self._orders = None
        meant = status >= 0 and status != CRASHED
        if meant or self._deadline is not None or not self._ready:
            self._status = status if status >= 0 else 128 - status
            return
        _LOG.error("the %s died (%s) and is started again", self._authority.name, status)
        self._authority.died(time.monotonic())

    def _kill(self, processes: Iterable[_Process]) -> None:
        """Kill processes, and wait until they are reaped."""
        dying = [(process, process.child) for process in processes if process.child is not None]
        for _, child in dying:
            _signal(child)
        for process, child in dying:
            forking.reaped(child)
            process.child = None
        self._end_strays()

    def _end_strays(self) -> None:
        """Kill and reap who became our child as its parent died: programs that a worker started."""
        known = {process.child.pid for process in self._processes() if process.child is not None}
        for pid in _children() - known:
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    def _kill_authority(self) -> None:
        if self._authority.child is not None:
            _signal(self._authority.child)

    def _processes(self) -> Sequence[_Process]:
        return (self._authority, *self._workers.values())

    def _state(self) -> orders.ProcessesState:
        own = orders.ProcessState("supervisor", os.getpid(), self._since, 0, ())
        processes = (_state(process, self._walls) for process in self._processes())
        return orders.ProcessesState((own, *processes), self._walls.lacks)


def _numbers(listeners: Mapping[str, socket.socket]) -> Mapping[str, int]:
    """Return listeners as descriptors: in a fork no object may close what is not its own."""
    return {name: sock.detach() for name, sock in listeners.items()}


def _state(process: _Process, walls: Walls) -> orders.ProcessState:
    confined = () if process.role.confinement is None else walls.names
    pid = None if process.child is None else process.child.pid
    return orders.ProcessState(process.name, pid, process.since, process.restarts, confined)


def _signal(child: Child) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)


def _children() -> set[int]:
    """Return the pids of our children; the kernel may not say."""
    try:
        return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text("ascii").split()))
    except FileNotFoundError:
        return set()
