"""Upstreams with the faults of real ones: a body left unread, a second answer."""

from __future__ import annotations

import asyncio
import re
from types import TracebackType
from typing import Self

from tests.support.upstream import Seen, Upstream, whole

_LENGTH = re.compile(rb"\r\nContent-Length: *([0-9]+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nConnection: *close\r\n", re.IGNORECASE)


class UnreadBodyUpstream(Upstream):
    """Takes what follows a head for the next request. Only `POST /notes` reads its body, and keeps it in ``notes``.

    ``heads`` are all requests it made out, each with its connection; ``deaf`` has it go on after `Connection: close`.
    """

    def __init__(self, *, deaf: bool = False) -> None:
        super().__init__()
        self.heads: list[tuple[int, bytes]] = []
        self.notes: list[bytes] = []
        self._deaf = deaf

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, error, trace)

    def requests(self, line: bytes) -> int:
        """Return how many requests began so."""
        return sum(head.startswith(line) for _, head in self.heads)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        self._open.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append((number, head))
                length = _LENGTH.search(head)
                if head.startswith(b"POST /notes ") and length is not None:
                    self.notes.append(await reader.readexactly(int(length[1])))
                writer.write(whole("200 OK", b"fine"))
                await writer.drain()
                if _CLOSE.search(head) and not self._deaf:
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()


class SecondAnswerUpstream(Upstream):
    """Answers a second time to whoever asked `/evil`, and the second answer holds the credential it was called with.

    The second answer is written when the next request comes on the connection, which is the worst time for it.
    """

    async def _answer(self, writer: asyncio.StreamWriter, seen: Seen, path: str) -> bool:
        mine = [one for one in self.seen if one.connection == seen.connection]
        if mine[0].target == "/evil" and len(mine) > 1:
            writer.write(whole("200 OK", mine[0].headers["authorization"].encode()))
        return await super()._answer(writer, seen, path)
