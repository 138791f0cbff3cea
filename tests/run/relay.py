"""What stands for an edge that passes on what a command and its client say, line by line, and shows it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

Connected = Callable[[], asyncio.StreamReaderProtocol]


class Relay:
    """One session: who connects first is the client, then the command."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.answered: list[bytes] = []
        self.ends: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._tasks: list[asyncio.Task[None]] = []

    def accepted(self) -> asyncio.StreamReaderProtocol:
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(), self._connected)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.ends.append((reader, writer))
        if len(self.ends) == 2:
            (near, client), (far, command) = self.ends
            self._tasks = [
                asyncio.create_task(_passed(near, command, self.asked)),
                asyncio.create_task(_passed(far, client, self.answered)),
            ]

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for _, writer in self.ends:
            writer.close()

    def cut(self) -> None:
        for _, writer in self.ends:
            writer.transport.abort()


async def _passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: list[bytes]) -> None:
    while line := await reader.readline():
        seen.append(line)
        writer.write(line)
    writer.write_eof()
