"""The launcher: it asks for a run, starts the sandbox, carries the hand-over between it and the broker, and waits.

It makes itself unreadable before anything else. Its connection to the hand-over socket stays open as long as the run:
when the launcher ends, however it ends, so does the channel. The sandbox dies with it. It keeps the run's sockets, and
hands them over anew when the broker has gone and another one comes.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import selectors
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from types import FrameType

from remit.core.legible import escaped
from remit.errors import InvalidRequestError, RemitError, UnavailableError
from remit.run import again, handover, leased, low_port, named, offer, sandbox, servers, stdio
from remit.run.handover import Message
from remit.run.machine import Inner, gaps, started, unseen
from remit.run.renewal import RunRenewal, announced, patience, why
from remit.run.spec import TRUSTED_BY, LaunchSpec, base_environment, complete, exposed_credentials, render_exposure
from remit.run.terminal import Terminal

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
TO_THE_GROUP = frozenset({signal.SIGINT, signal.SIGQUIT})  # a terminal sends these to everybody in front of it
END_WITHIN = 15.0  # seconds that the broker has to say how the run's authority ended

_PR_SET_DUMPABLE = 4
_KEYCTL = {"x86_64": 250, "aarch64": 219}
_JOIN_SESSION_KEYRING = 1


def main(spec: LaunchSpec, find: Callable[[], Path] | None = None) -> int:
    """Run a command in its sandbox and return its exit code, 128 + n for signal n; call it from the main thread.

    ``find`` starts a broker where there is none, and returns its socket: it may end, being idle, before it is asked.

    Raises the broker's error when the grant is refused, InvalidRequestError for what cannot be launched, and
    UnavailableError when there is no broker or no usable namespace. Nothing has been opened then.
    """
    harden()
    if not spec.command or not spec.command[0]:
        raise InvalidRequestError("there is no command to run", help="remit run [options] -- COMMAND [arguments]")
    if any("\0" in argument for argument in spec.command):
        raise InvalidRequestError("an argument of the command holds a zero byte")
    spec = replace(spec, masked=exposed_credentials(spec))
    for line in () if spec.quiet else (*render_exposure(spec), *gaps(spec, os.uname().machine)):
        _say(line)
    again.connect(spec.socket, socket.SOCK_STREAM).close()  # nothing is started for no broker
    with started(spec) as inner, _folder(spec) as folder:
        with _asking(spec.socket, find) as asking:
            more: dict[str, object] = {} if spec.lasting is None else {"lasts": spec.lasting.seconds}
            more |= {"servers": True} if spec.stdio is None and spec.servers else {}
            more |= {} if spec.stdio is None else {"stdio": spec.stdio}
            given = offer.begin(asking, {**spec.request, "isolation": spec.isolation, "folder": folder, **more})
        place, broker = again.begin(Path(str(given["handover"])), str(given["ticket"]))
        with broker:
            return _Run(spec, broker, inner).follow({**given, "handover": str(place)})


def _asking(path: Path, find: Callable[[], Path] | None) -> socket.socket:
    """Connect to the broker that is asked for the run."""
    try:
        return again.connect(path, socket.SOCK_STREAM)
    except UnavailableError:
        if find is None:
            raise
    return again.connect(find(), socket.SOCK_STREAM)


def harden() -> None:
    """Make this process unreadable to others of the same user, and leave the login's session keyring."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    keyctl = _KEYCTL.get(os.uname().machine)
    if keyctl is not None:
        libc.syscall(keyctl, _JOIN_SESSION_KEYRING, None, 0, 0, 0)  # refused inside a run, where there is none


@contextlib.contextmanager
def _folder(spec: LaunchSpec) -> Iterator[str]:
    """Give the folder of the run's own sockets: in its own /run, or without a sandbox beside the broker's."""
    if not spec.unsandboxed:
        yield sandbox.RUN
        return
    with tempfile.TemporaryDirectory(prefix="run-", dir=spec.socket.parent) as folder:
        yield folder


def _say(line: str, end: str = "\n") -> None:
    """Print one line; names in it may be those that an agent gave."""
    with contextlib.suppress(OSError):
        sys.stderr.write(escaped(line) + end)
        sys.stderr.flush()


@contextlib.contextmanager
def _woken_by_signals() -> Iterator[socket.socket]:
    """Give what is readable after a signal: one that comes just before a wait would else be handled after it."""
    reader, writer = socket.socketpair()
    with reader, writer:
        writer.setblocking(False)
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield reader
        finally:
            signal.set_wakeup_fd(before)


class _Run:
    """One command in its sandbox, from the hand-over to its exit code."""

    def __init__(self, spec: LaunchSpec, broker: socket.socket, inner: Inner) -> None:
        self.spec, self.broker, self.inner = spec, broker, inner
        self.handover: tuple[Path, str, list[str]]  # where the run is handed over anew, with which ticket, and what
        self.sockets: list[int] = []  # that were handed over
        self.resumption: again.Resumption | None = None
        self.selector = selectors.DefaultSelector()
        self.terminal: Terminal | None = None
        self.stdio = None if spec.stdio is None else stdio.StdioSession(spec.socket.parent)
        self.servers: servers.ServerRuns | None = None
        self.due: tuple[tuple[datetime, str], ...] = ()  # what to say, and when
        self.renewal: RunRenewal | None = None
        self.renewals: leased.Renewals | None = None

    def follow(self, given: Message) -> int:
        environment = base_environment(self.spec)
        self._ends(datetime.fromisoformat(str(given["expires_at"])))
        ready = self._hand_over(given)
        variables, shared = ready["environment"], ready.get("shared")
        assert isinstance(variables, dict)  # noqa: S101 - what our own broker answers
        if isinstance(shared, dict) and not self.spec.quiet:
            for line in named.doubled(shared, {each.name for each in self.spec.named}):
                _say(line)
        variables |= self._reach(given)
        with contextlib.ExitStack() as stack:
            if self.terminal is not None:
                stack.callback(self.terminal.restore)
                self.terminal.open()
            for number in (*FORWARDED, signal.SIGWINCH):
                stack.callback(signal.signal, number, signal.signal(number, self._signalled))
            given_here = complete(environment, variables, self.spec.env) | self._named(given, variables, stack)
            self._go_on(given, stack)
            self.inner.go(self.spec.command, given_here, self.spec.limits)
            failed = self.inner.failure()
            if self.stdio is not None:
                self.stdio.begin(self.inner)
                stack.callback(self.stdio.end)
            code = self._wait()
        if failed is not None:
            _say(f"error: `{self.spec.command[0]}` cannot be executed in the run: {os.strerror(failed)}")
            if failed == errno.ENOENT and not self.spec.unsandboxed:
                match unseen(self.spec):
                    case (needed, shown):
                        _say(f"help: `{needed}` is needed, and the run does not see it: add --bind {quote(str(shown))}")
                    case None:
                        _say("help: a run sees the system, its working directory and what --bind names")
        self._finish()
        return code

    def _named(self, given: Message, variables: Mapping[str, str], stack: contextlib.ExitStack) -> dict[str, str]:
        """Return the variables that the project names, leases issued; what ends before the run is renewed meanwhile."""
        wanted = [each for each in self.spec.named if each.source == "lease"]
        found = named.values(self.spec.named, variables)
        if wanted:
            channel = leased.RunChannel(self.inner.pid, variables["REMIT_SOCKET"])
            values, held = leased.issued(channel, wanted, self.spec.request, given, self.spec.lasting)
            self.renewals = leased.Renewals(channel, held, _say, lasting=self.spec.lasting is not None)
            stack.callback(self.renewals.end)
            found |= values
        return found

    def _ends(self, at: datetime) -> None:
        """Say that the run ends then, when it is time to, and nothing of the end before."""
        self.due = announced(at, datetime.now(UTC), quiet=self.spec.quiet)

    def _go_on(self, given: Message, stack: contextlib.ExitStack) -> None:
        """Have the run renewed for as long as it is to last, and servers started for it."""
        if self.servers is not None:
            stack.callback(self.servers.end)
            self.servers.begin()
        if self.spec.lasting is not None:
            ends = datetime.fromisoformat(str(given["expires_at"]))
            self.renewal = RunRenewal(self.spec.socket, str(given["task"]), ends, self.spec.lasting)
            stack.callback(self.renewal.end)

    def _moved(self) -> bool:
        """Take the new end of the run; False when there will be none later."""
        assert self.renewal is not None  # noqa: S101 - it has moved
        if not self.renewal.moved.recv(64):
            return False
        self._ends(self.renewal.ends)
        if self.renewals is not None:
            self.renewals.longer(self.renewal.ends)
        return True

    def _reach(self, given: Message) -> Mapping[str, str]:
        """Have the hosts that the run reaches lead to its proxy; return what tells clients to trust it for them."""
        hosts, certificate = given["hosts"], given["certificate"]
        if not isinstance(hosts, list) or not isinstance(certificate, str):
            return {}
        self.inner.files.reach(hosts, certificate)
        return dict.fromkeys(TRUSTED_BY, str(self.inner.files.roots) if self.spec.unsandboxed else sandbox.ROOTS)

    def _hand_over(self, given: Message) -> Message:
        places = []
        for place in (0, 1, 2):
            with contextlib.suppress(OSError):  # it is closed
                os.fstat(place)
                places.append(place)
        piped = {} if self.stdio is None else dict.fromkeys((0, 1), self.stdio.command.fileno())
        tty = [place for place in places if place not in piped and os.isatty(place)]
        listeners = given["listeners"] if isinstance(given["listeners"], list) else []
        led = [item for item in listeners if stdio.is_one(item) or servers.is_one(item)]  # the last
        ours = [item for item in listeners if low_port.is_one(item.get("port"))] + led
        usual = listeners[: len(listeners) - len(ours)]
        kept = {place: place for place in places if place not in tty}
        ends = self.inner.order(usual, kept | piped, tty)
        if len(ends) != len(usual) + bool(tty):
            raise UnavailableError("the run could not bind its ports", help="another process may hold them")
        if tty:
            self.terminal = Terminal(tuple(tty), ends.pop())
        ends += [low_port.bind(self.inner.pid, item["port"]) for item in ours if "port" in item]
        ends += [] if self.stdio is None else [self.stdio.listener]
        for item in filter(servers.is_one, led):
            self.servers = servers.ServerRuns(self.spec, item["serves"], lambda line: _say(line, "\r\n"))
            ends.append(self.servers.listener)
        names = [item["name"] for item in listeners]
        self.sockets = ends
        ready = again.ask(self.broker, {"bound": names}, ends)
        self.handover = Path(str(given["handover"])), str(ready["ticket"]), names
        return ready

    def _wait(self) -> int:
        """Copy what there is to copy, and say what is to be said, until the command has ended; return its exit code."""
        watched = os.pidfd_open(self.inner.process.pid)
        try:
            with self.selector as selector, _woken_by_signals() as signalled:
                selector.register(watched, selectors.EVENT_READ, None)
                selector.register(signalled, selectors.EVENT_READ, lambda: bool(signalled.recv(64)))
                selector.register(self.broker, selectors.EVENT_READ, self._lost)
                if self.renewal is not None:
                    selector.register(self.renewal.moved, selectors.EVENT_READ, self._moved)
                if self.terminal is not None:
                    selector.register(self.terminal.other_end, selectors.EVENT_READ, self.terminal.show)
                    if self.terminal.keys is not None:
                        selector.register(self.terminal.keys, selectors.EVENT_READ, self.terminal.type)
                while not self._step():
                    pass
        finally:
            os.close(watched)
        code = self.inner.process.wait()
        return code if code >= 0 else 128 - code

    def _step(self) -> bool:
        """Copy what is there to copy; True when the command has ended."""
        ready = [key for key, _ in self.selector.select(patience(self.due, datetime.now(UTC)))]
        while self.due and self.due[0][0] <= datetime.now(UTC):
            _say(f"{self.due[0][1]}; {why(self.renewal)}", "\r\n")
            self.due = self.due[1:]
        for key in ready:
            if key.data is not None and not key.data():
                self.selector.unregister(key.fileobj)
        return any(key.data is None for key in ready)

    def _lost(self) -> bool:
        """Hand the run over anew when the process that served it has gone; a last word means that the run has ended."""
        with contextlib.suppress(OSError, RemitError):
            if handover.receive(self.broker) is not None:
                self._ended("the broker has ended this run")
                return False
        _say(f"remit: what served this run has gone; for {again.WAIT:.0f} seconds it waits for the next", "\r\n")
        if self.stdio is not None:
            self.stdio.lost()
        self.resumption = again.Resumption(*self.handover, self.sockets)
        self.selector.register(self.resumption.over, selectors.EVENT_READ, self._resumed)
        return False

    def _resumed(self) -> bool:
        assert self.resumption is not None  # noqa: S101 - it is what is over
        if self.resumption.served is None:
            refused = self.resumption.refused
            self._ended(f"nobody served it for {again.WAIT:.0f} seconds" if refused is None else refused.detail)
            return False
        self.broker.close()
        self.broker, ready = self.resumption.served
        self.handover = self.resumption.path, str(ready["ticket"]), self.handover[2]
        self.selector.register(self.broker, selectors.EVENT_READ, self._lost)
        if self.stdio is not None:
            self.stdio.resumed()
        if self.servers is not None:
            self.servers.begin()
        _say("remit: it is served again; this run goes on", "\r\n")
        return False

    def _ended(self, why: str) -> None:
        """Say that nothing serves this run any more, and have what it listens on refuse."""
        self.due = ()
        if self.stdio is not None:
            self.stdio.ended()
        again.close(self.sockets)
        _say(f"remit: this run has no authority any more: {why}", "\r\n")

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGWINCH:
            if self.terminal is not None:
                self.terminal.resize()
            return
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if number in TO_THE_GROUP else os.kill)(self.inner.pid, number)

    def _finish(self) -> None:
        """Wait for the end of the run's authority, and say so when it is not complete."""
        self.broker.settimeout(END_WITHIN)
        try:
            handover.send(self.broker, {"end": True})
            heard = handover.receive(self.broker)
        except OSError:
            return
        report = heard[0] if heard else {}
        if report.get("state", "closed") != "closed":
            for line in ("warning: the run has ended, and not yet all its credentials", *_outstanding(report)):
                _say(line)


def _outstanding(report: Message) -> list[str]:
    """Return a line for each credential that is not closed, and until when it may be used."""
    listed = report.get("outstanding")
    items = [item for item in listed if isinstance(item, Mapping)] if isinstance(listed, list) else []
    left = [
        "  a checkpoint of it in the second place"
        if item["kind"] == "checkpoint"
        else f"  {item['lease']} ({item['kind']}) until {item['expires_at']}"
        for item in items
    ]
    if report.get("recorded") is False:
        left.append("  it is not recorded: the broker's state cannot be written; it goes on trying")
    return left or [f"  {report['state']}: see `remit tree`"]
