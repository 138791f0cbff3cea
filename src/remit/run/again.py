"""Handing a run over, as its launcher: the first time, and anew when the process that served it has gone."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from remit.errors import LimitError, RemitError, UnavailableError
from remit.run import handover
from remit.run.handover import Message

WAIT = 30.0  # seconds in which a run that nobody serves may be handed over anew
FIRST = 10.0  # seconds in which one that was just offered is served: its task may get another edge meanwhile
PAUSE = 0.1  # seconds between two attempts


def connect(path: Path, kind: socket.SocketKind) -> socket.socket:
    """Connect to a socket of the broker, or raise UnavailableError."""
    sock = socket.socket(socket.AF_UNIX, kind)
    try:
        sock.connect(str(path))
    except OSError as error:
        sock.close()
        raise UnavailableError("no broker listens for runs", help="start one with `remit up`") from error
    return sock


def ask(sock: socket.socket, message: Mapping[str, object], descriptors: Sequence[int] = ()) -> Message:
    """Send a message of the hand-over, and return its answer or raise what it says."""
    try:
        handover.send(sock, message, descriptors)
        heard = handover.receive(sock)
    except OSError as error:
        raise UnavailableError("what was to serve this run has gone", help="try again") from error
    if heard is None:
        raise UnavailableError("the broker ended the hand-over", help="try again")
    handover.raise_problem(heard[0])
    return heard[0]


def redeem(path: Path, ticket: str, seconds: float | None = None) -> socket.socket:
    """Show the ticket of a run at a hand-over socket; return the connection, or raise what is said, in time."""
    sock = connect(path, socket.SOCK_SEQPACKET)
    try:
        sock.settimeout(seconds)
        ask(sock, {"ticket": ticket})
    except BaseException:
        sock.close()
        raise
    return sock


def begin(path: Path, ticket: str) -> tuple[Path, socket.socket]:
    """Show the ticket of a run that was just offered, there or where it is served by then; return where, and how."""
    until = time.monotonic() + FIRST
    while True:
        try:
            return path, redeem(path, ticket)
        except UnavailableError as error:
            if time.monotonic() > until:
                raise
            path = _moved(path, error)
        time.sleep(PAUSE)


def _moved(path: Path, error: RemitError) -> Path:
    """Return where a run is handed over next: beside the socket that did not take it if that says so, else there."""
    places = [path.with_name(Path(str(item["handover"])).name) for item in error.offending if "handover" in item]
    return places[-1] if places else path


class Resumption:
    """Hands a run over anew, in a thread of its own, until it is served, refused, or the time is up.

    The sockets that are passed are not closed. ``over`` is readable when the thread has ended. ``path`` is the socket
    at which it is served.
    """

    def __init__(self, path: Path, ticket: str, names: Sequence[str], sockets: Sequence[int]) -> None:
        self.path, self._ticket, self._names, self._sockets = path, ticket, names, sockets
        self.over, self._done = socket.socketpair()
        self.served: tuple[socket.socket, Message] | None = None  # the connection, and the last answer
        self.refused: RemitError | None = None
        threading.Thread(target=self._work, name="remit-resumption", daemon=True).start()

    def _work(self) -> None:
        until = time.monotonic() + WAIT
        with self._done:
            while self.served is None and time.monotonic() < until:
                try:
                    self.served = self._handed_over(until)
                except (LimitError, UnavailableError) as error:
                    self.path = _moved(self.path, error)
                    time.sleep(PAUSE)
                except RemitError as error:
                    self.refused = error
                    return

    def _handed_over(self, until: float) -> tuple[socket.socket, Message]:
        sock = redeem(self.path, self._ticket, max(PAUSE, until - time.monotonic()))
        try:
            ready = ask(sock, {"bound": list(self._names)}, self._sockets)
        except BaseException:
            sock.close()
            raise
        sock.settimeout(None)
        return sock, ready


def close(descriptors: list[int]) -> None:
    """Close descriptors, once."""
    while descriptors:
        with suppress(OSError):
            os.close(descriptors.pop())
