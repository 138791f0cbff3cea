"""How another thread cuts a connection that the loop is too late to cut itself."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress


def shut(transport: asyncio.Transport | None) -> None:
    """Shut a connection down, in any thread: nothing more is sent or read."""
    if transport is None or transport.is_closing():
        return
    with suppress(OSError), socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as same:
        if not transport.is_closing():  # so it was its own descriptor that was copied, and no later one of that number
            same.shutdown(socket.SHUT_RDWR)
