"""Accepting connections, and counting descriptors: what edges need of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Protocol


class Quota(Protocol):
    """The descriptors that one task may have open."""

    def take(self, count: int = 1) -> bool:
        """Take ``count`` descriptors, if the task may have them."""

    def give(self, count: int = 1) -> None:
        """Give them back."""


class Closing(Protocol):
    """What accepts, and can be told to stop."""

    def close(self) -> None:
        """Stop accepting."""


# accepts in the place of the loop, which may do so only on a socket that nobody else holds
Start = Callable[[Callable[[], asyncio.Protocol], socket.socket], Awaitable[Closing]]
