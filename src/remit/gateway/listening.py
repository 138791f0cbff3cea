"""Listening sockets of the gateway, and what accepts on them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Protocol


class Closing(Protocol):
    """What accepts, and can be told to stop."""

    def close(self) -> None:
        """Stop accepting."""
        ...


# accepts in the place of the loop, which may do so only on a socket that nobody else holds
Start = Callable[[Callable[[], asyncio.Protocol], socket.socket], Awaitable[Closing]]


class Served:
    """A listening socket that is forgotten with its end: a run may have as many as it likes, one after the other."""

    __slots__ = ("_others", "_server")

    def __init__(self, others: set[Closing], server: Closing) -> None:
        """Be one of ``others`` until it is closed."""
        self._others, self._server = others, server

    def close(self) -> None:
        """Stop accepting."""
        self._others.discard(self)
        self._server.close()
