"""Standard input and output of a command, led through the edge that judges what is said there.

The edge gets one listening socket and, for each session, two connections to it: whoever speaks to the command, then the
command. What the launcher passes on, it does not read, but for where lines end: when an edge has gone and the next one
serves the run, the session goes on there with the next line. Nothing is said twice, since it may have had its effect.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from remit.process import kernel
from remit.run import again
from remit.run.machine import Inner
from remit.run.spec import STDIO

GRACE = 5.0  # seconds for a command to end whose session is over, and then for one that was told to
_CHUNK = 65_536
_CLIENT, _COMMAND = 0, 1


def is_one(listener: Mapping[str, object]) -> bool:
    """Whether what a launcher is to bind is the listener of its command's session."""
    return str(listener["name"]).startswith(f"{STDIO}:")


def listening(path: Path, backlog: int) -> int:
    """Return the descriptor of a listening socket at a path that is ours."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        kernel.refuse_descriptors(sock)
        sock.listen(backlog)
        return sock.detach()


class StdioSession:
    """The session of one command, as its launcher has it: outside of the run, in the four threads of four streams."""

    def __init__(self, folder: Path) -> None:
        """Connect both ends, in a ``folder`` that is ours. OSError, or UnavailableError."""
        self._folder = Path(tempfile.mkdtemp(prefix="s-", dir=folder))
        self.listener = listening(self._folder / "s", 2)
        self._ours, self.command = socket.socketpair()
        self._changed = threading.Condition()
        self._lost = self._over = self._silent = False  # the edge has gone; the command; the client says no more
        self._ends = self._connected()

    def _connected(self) -> tuple[socket.socket, socket.socket]:
        """Connect to the edge: the order tells it who is who."""
        path = self._folder / "s"
        return again.connect(path, socket.SOCK_STREAM), again.connect(path, socket.SOCK_STREAM)

    def begin(self, inner: Inner) -> None:
        """Pass on from now on, to the command that ``inner`` has become."""
        self.command.close()  # the run has it

        def first() -> bytes:
            return os.read(0, _CHUNK)

        def second() -> bytes:
            return self._ours.recv(_CHUNK)

        def out() -> None:
            self._away(_CLIENT, lambda data: write_all(1, data))
            self._see_to_its_end(inner)

        self._out = self._thread(out)
        for work in (
            lambda: self._towards(_CLIENT, first),
            lambda: self._towards(_COMMAND, second),
            lambda: self._away(_COMMAND, self._ours.sendall),
        ):
            self._thread(work)

    def _thread(self, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work, name="remit-stdio", daemon=True)
        thread.start()
        return thread

    def lost(self) -> None:
        """Wait for the next edge."""
        self._lost = True
        self._tell()

    def resumed(self) -> None:
        """Go on at the next edge, which serves the listener."""
        self._ends, self._lost = self._connected(), False
        if self._silent:
            self._ends[_CLIENT].shutdown(socket.SHUT_WR)
        self._tell()

    def ended(self) -> None:
        """Wait for no edge any more."""
        self._lost = False
        self._tell()

    def end(self) -> None:
        """Write what is left, as the command has ended."""
        self._over = True
        self._tell()
        self._out.join(GRACE)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _next(self, end: socket.socket, side: int) -> socket.socket | None:
        """Return the end at the next edge in place of one that is over, once there is one; None: there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._lost or self._over or self._ends[side] is not end, GRACE)
            self._changed.wait_for(lambda: not self._lost or self._over, again.WAIT + GRACE)
            return None if self._over or self._ends[side] is end else self._ends[side]

    def _towards(self, side: int, read: Callable[[], bytes]) -> None:
        """Pass on what one side says, until it says no more."""
        end, whole = self._ends[side], True  # where it was said, and whether in whole lines
        with suppress(OSError):
            while data := read():
                if not whole and self._ends[side] is not end:  # the edge that had the beginning of this line has gone
                    _, newline, data = data.partition(b"\n")
                    if not newline:
                        continue
                end = self._ends[side]
                try:
                    end.sendall(data)
                except OSError:
                    _, newline, rest = data.rpartition(b"\n")
                    following = self._next(end, side)
                    if following is None:
                        break
                    if not whole and not newline:
                        continue
                    end, data = following, rest
                    end.sendall(data)
                whole = not data or data.endswith(b"\n")
        if side == _CLIENT:
            self._silent = True
        with suppress(OSError):
            self._ends[side].shutdown(socket.SHUT_WR)

    def _away(self, side: int, write: Callable[[bytes], None]) -> None:
        """Pass on what one side may hear, until there is no more."""
        end: socket.socket | None = self._ends[side]
        whole = True
        with suppress(OSError):
            while end is not None:
                data = b""
                with suppress(OSError):
                    data = end.recv(_CHUNK)
                if data:
                    write(data)
                    whole = data.endswith(b"\n")
                    continue
                if side == _COMMAND and self._silent and not self._lost:
                    break
                end = self._next(end, side)
                if end is not None and not whole:
                    write(b"\n")  # the rest of that line will not come
        if side == _COMMAND:
            with suppress(OSError):
                self._ours.shutdown(socket.SHUT_WR)

    def _see_to_its_end(self, inner: Inner) -> None:
        """End a command whose session is over."""
        if not self._ends_within(GRACE):
            with suppress(ProcessLookupError):
                os.kill(inner.pid, signal.SIGTERM)
        if not self._ends_within(GRACE):
            inner.process.kill()

    def _ends_within(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._over, seconds)


def write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
