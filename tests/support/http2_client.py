"""A client of HTTP/2 that sends what it is told to, also what it should not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes

Pairs = Sequence[tuple[str | bytes, str | bytes]]


@dataclass
class Answer:
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: bool = False
    reset: ErrorCodes | int | None = None
    interim: bool = False
    decoded: bytes = b""  # every header that came, of interim answers and trailers too, a line each

    @property
    def status(self) -> int:
        return int(self.headers.get(":status", "0"))


class Http2Client:
    """A client that sends what it is told to, also what it should not."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        config = H2Configuration(
            client_side=True,
            header_encoding="latin-1",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self.http = H2Connection(config)
        self.reader, self.writer = reader, writer
        self.answers: dict[int, Answer] = {}
        self.gone: int | None = None
        self.closed = False
        self.acknowledges = True
        self.http.initiate_connection()

    def ask(self, *headers: tuple[str | bytes, str | bytes], ended: bool = True, **pseudo: str) -> int:
        """Begin a request; pseudo-headers are those of a GET of `/v1/public/a` unless they are named."""
        named = {"method": "GET", "scheme": "https", "authority": "api.test", "path": "/v1/public/a", **pseudo}
        pairs = [(f":{name}", value) for name, value in named.items() if value]
        return self.ask_raw([*pairs, *headers], ended=ended)

    def ask_raw(self, headers: Pairs, *, ended: bool = True) -> int:
        number = self.http.get_next_available_stream_id()
        self.http.send_headers(number, list(headers), end_stream=ended)
        self.answers[number] = Answer()
        return number

    async def flush(self) -> None:
        self.writer.write(self.http.data_to_send())
        with suppress(ConnectionError):
            await self.writer.drain()

    async def heard(self) -> None:
        """Read once."""
        await self.flush()
        async with asyncio.timeout(10):
            try:
                data = await self.reader.read(65_536)
            except ConnectionError:
                data = b""
        self.closed = not data
        for event in self.http.receive_data(data):
            number = getattr(event, "stream_id", None)
            answer = self.answers.get(number or 0, Answer())
            pairs = getattr(event, "headers", None) or ()
            answer.decoded += "".join(f"{name}: {value}\r\n" for name, value in pairs).encode("latin-1")
            if isinstance(event, events.ResponseReceived):
                answer.headers = {str(name): str(value) for name, value in event.headers}
            elif isinstance(event, events.InformationalResponseReceived):
                answer.interim = True
            elif isinstance(event, events.DataReceived):
                answer.body += event.data
                if self.acknowledges:
                    self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, events.StreamEnded):
                answer.ended = True
            elif isinstance(event, events.StreamReset):
                answer.reset = event.error_code
            elif isinstance(event, events.ConnectionTerminated):
                self.gone = int(event.error_code or 0)
        await self.flush()

    async def answer(self, number: int) -> Answer:
        answer = self.answers[number]
        while not (answer.ended or answer.reset is not None or self.closed):
            await self.heard()
        return answer

    async def end(self) -> None:
        while not self.closed:
            await self.heard()
