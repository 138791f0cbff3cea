"""What a launcher passes: its messages until the run is ready, and the listening sockets that it was asked for."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress

from remit.errors import InvalidRequestError
from remit.run.doors import Doors, Heard
from remit.run.environment import Listener
from remit.run.handover import Message

PATIENCE = 30.0  # seconds for each message of a launcher until its run is ready


async def heard(doors: Doors, due: int = 0) -> Heard:
    """Return the next message and its descriptors, or raise InvalidRequestError when none comes in time."""
    try:
        async with asyncio.timeout(PATIENCE):
            message = await doors.heard(due)
    except TimeoutError:
        raise InvalidRequestError("the launcher took too long") from None
    if message is None:
        raise InvalidRequestError("the launcher went away")
    return message


async def bound(doors: Doors, wanted: Sequence[Listener]) -> tuple[list[socket.socket], Mapping[str, int | str]]:
    """Return the sockets of the wanted listeners, each checked to be what was asked for, and where they listen."""
    message, descriptors = await heard(doors, len(wanted))
    sockets = _sockets(doors, descriptors)
    try:
        return sockets, _places(message, wanted, sockets)
    except BaseException:
        doors.put_away([sock.detach() for sock in sockets])
        raise


def _sockets(doors: Doors, descriptors: Sequence[int]) -> list[socket.socket]:
    made: list[socket.socket] = []
    for descriptor in descriptors:
        with suppress(OSError):  # not a socket at all: the count will not match
            made.append(socket.socket(fileno=descriptor))
            continue
        doors.put_away([descriptor])
    return made


def _places(message: Message, wanted: Sequence[Listener], sockets: Sequence[socket.socket]) -> Mapping[str, int | str]:
    if message.get("bound") != [listener.name for listener in wanted] or len(sockets) != len(wanted):
        raise InvalidRequestError("other listeners were bound than was asked for")
    return {item.name: _place(item, sock) for item, sock in zip(wanted, sockets, strict=True)}


def _place(listener: Listener, sock: socket.socket) -> int | str:
    """Return where a socket listens; it must be the family and kind that its listener has, and on loopback.

    Other protocols of the internet family than TCP close as they like: SMC waits for what was not sent.
    """
    inet = listener.path is None
    protocol = socket.IPPROTO_TCP if inet else 0
    kind = socket.SOCK_SEQPACKET if listener.kind == "launch" else socket.SOCK_STREAM
    listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if (
        sock.family != (socket.AF_INET if inet else socket.AF_UNIX)
        or sock.type != kind
        or sock.proto != protocol
        or not listening
    ):
        raise InvalidRequestError(f"`{listener.name}` is not the listener that was asked for")
    name = sock.getsockname()
    if inet and name[0] != "127.0.0.1":
        raise InvalidRequestError(f"`{listener.name}` is not bound to loopback")
    return int(name[1]) if inet else str(name)
