"""Streams of server-sent events (WHATWG HTML §9.2), read event by event and written anew. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from remit.errors import UpstreamError

MOST_ID = 1_024  # bytes of what an event says besides its data
MOST = 4_194_304  # bytes of one event, or of an answer that is read whole


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event, or what stands for one that says nothing (a comment, to keep a connection)."""

    data: bytes | None
    id: bytes | None = None
    name: bytes | None = None
    retry: bytes | None = None

    @property
    def written(self) -> bytes:
        named = ((b"event", self.name), (b"id", self.id), (b"retry", self.retry))
        lines = [b"%b: %b\n" % (field, value) for field, value in named if value is not None]
        if self.data is not None:
            lines += [b"data: %b\n" % line for line in self.data.split(b"\n")]
        return b"".join(lines) + b"\n" if lines else b":\n\n"


@dataclass(slots=True, eq=False, repr=False)
class EventReader:
    """Takes bytes of a stream, and gives its events. UpstreamError for one that is too long."""

    _rest: list[bytes] = field(default_factory=list)  # of a line that has begun, in pieces
    _held: int = 0  # bytes of it
    _size: int = 0  # of the event that has begun
    _fields: dict[bytes, bytes] | None = None
    _data: list[bytes] | None = None

    def feed(self, piece: bytes) -> Iterator[ServerEvent]:
        if not piece:
            return
        self._held += len(piece)
        if self._size + self._held > MOST:
            raise UpstreamError(f"the upstream sent an event of more than {MOST:,} bytes")
        ends = b"\n" in piece or b"\r" in piece or (self._rest and self._rest[-1].endswith(b"\r"))
        self._rest.append(piece)
        if not ends:
            return
        text = b"".join(self._rest)
        cr = text.endswith(b"\r")  # of which the other half may come
        lines = (text[:-1] if cr else text).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        rest = lines.pop() + (b"\r" if cr else b"")
        self._rest, self._held = [rest], len(rest)
        for line in lines:
            self._size += len(line)
            if line:
                self._take(line)
            elif (event := self._ended()) is not None:
                yield event

    def _take(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        self._fields = {} if self._fields is None else self._fields
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data = [] if self._data is None else self._data
            self._data.append(value)
        elif name in {b"id", b"event", b"retry"}:
            if len(value) > MOST_ID:
                raise UpstreamError(f"the upstream sent an event whose id or name has more than {MOST_ID:,} bytes")
            self._fields[name] = value

    def _ended(self) -> ServerEvent | None:
        fields, data = self._fields, self._data
        self._fields, self._data, self._size = None, None, 0
        if fields is None:
            return None
        joined = None if data is None else b"\n".join(data)
        return ServerEvent(joined, fields.get(b"id"), fields.get(b"event"), fields.get(b"retry"))
