"""Accepting on a TLS listener: few handshakes at a time, and none for long.

The loop's own servers would let strangers hold as many descriptors as they like, unseen by us until they have finished.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable

HANDSHAKE = 5.0  # seconds for a handshake
MAX_HANDSHAKES = 64  # at a time: whoever can reach the listener can begin one; the oldest makes room for the next
BREATH = 0.5  # seconds without accepting when there are no descriptors left
_AT_ONCE = 16  # connections accepted before anything else gets its turn


class Handshakes:
    """Accepts on a TLS listener."""

    def __init__(self, sock: socket.socket, made: Callable[[], asyncio.Protocol], context: ssl.SSLContext) -> None:
        """Let ``made`` speak on each connection whose handshake is done."""
        self._sock, self._made, self._context = sock, made, context
        self._loop = asyncio.get_running_loop()
        self._going: dict[asyncio.Task[None], None] = {}  # the oldest first
        self._pause: asyncio.TimerHandle | None = None
        sock.setblocking(False)
        self._listen()

    def close(self) -> None:
        """Stop accepting, and end the handshakes there are."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._sock)
        self._sock.close()
        for task in self._going:
            task.cancel()

    def _listen(self) -> None:
        self._pause = None
        self._loop.add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                accepted, _ = self._sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:  # no descriptors, or no memory
                self._loop.remove_reader(self._sock)
                self._pause = self._loop.call_later(BREATH, self._listen)
                return
            if len(self._going) >= MAX_HANDSHAKES:
                oldest = next(iter(self._going))
                del self._going[oldest]
                oldest.cancel()
            accepted.setblocking(False)
            task = self._loop.create_task(self._shake(accepted))
            self._going[task] = None
            task.add_done_callback(lambda done: self._going.pop(done, None))

    async def _shake(self, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._made, accepted, ssl=self._context, ssl_handshake_timeout=HANDSHAKE
            )
        except (OSError, asyncio.CancelledError):  # no handshake, no connection
            accepted.close()
