"""Ends, as a worker hears of them: in a thread, so that a loop which is busy delays no cut.

The thread marks the grants, has the loop act, and answers. Where the loop does not act at once, it shuts down what
moves under these grants itself.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Thread
from typing import Protocol

from remit.errors import RemitError
from remit.link.frames import FrameReader, frame
from remit.link.messages import MAX_ANSWER, Acted, Noticed, from_authority
from remit.link.values import encode
from remit.ports.broker import Notice

GRACE = 0.02  # seconds in which the loop may act by itself: its clients are told why
_LOG = logging.getLogger("remit.link")


class Hears(Protocol):
    """What acts on the notices of the broker."""

    def mark(self, grants: frozenset[str]) -> None:
        """Let nothing begin under these grants from now on. Called in another thread."""

    def sever(self, grants: frozenset[str]) -> None:
        """Shut down whatever moves under these grants. Called in another thread, after ``mark``."""

    def noticed(self, notice: Notice) -> None:
        """Act on a notice, in the loop."""


class EndsReader(Thread):
    """Reads what has ended, and answers when it has been acted on."""

    def __init__(
        self, sock: socket.socket, loop: asyncio.AbstractEventLoop, hears: Hears, lost: Callable[[], None]
    ) -> None:
        super().__init__(name="remit-ends", daemon=True)
        sock.setblocking(True)
        self._sock, self._loop, self._hears, self._lost = sock, loop, hears, lost

    def run(self) -> None:
        frames = FrameReader(MAX_ANSWER)
        try:
            while data := self._sock.recv(65_536):
                for each in frames.feed(data):
                    message = from_authority(each)
                    if isinstance(message, Noticed):
                        self._act(message.number, message.notice)
        except (OSError, RemitError):
            pass  # as at its end
        except RuntimeError:  # the loop is closed
            return
        finally:
            self._sock.close()
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._lost)

    def _act(self, number: int, notice: Notice) -> None:
        acted = Event()
        if notice.grants:
            self._hears.mark(notice.grants)
        self._loop.call_soon_threadsafe(self._noticed, notice, acted)
        if not acted.wait(GRACE):
            if notice.grants:
                self._hears.sever(notice.grants)
            if notice != Notice(notice.grants):  # what was changed, or is published anew, the loop alone takes over
                acted.wait()
        self._sock.sendall(frame(encode(Acted(number))))

    def _noticed(self, notice: Notice, acted: Event) -> None:
        try:
            self._hears.noticed(notice)
        except Exception:  # noqa: BLE001 - one that went wrong keeps the worker from no other
            _LOG.exception("a notice of the broker was not acted on")
            self._hears.sever(notice.grants)
        acted.set()

    def stop(self) -> None:
        """Have the thread end."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
