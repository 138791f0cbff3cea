"""Loopback servers for tests and the demo: an upstream that gives a credential back in every way, and a recording sink.

Everything under ``/echo/<form>`` answers with the credential it was called with, in that form; see ``FORMS``.
"""

from __future__ import annotations

import asyncio
import base64
import codecs
import gzip
import hashlib
import html
import json
import quopri
import ssl
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlsplit


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it arrived. Header names are in lower case; repeated ones are joined by ``, ``."""

    method: str
    target: str
    headers: Mapping[str, str]
    raw: bytes
    body_size: int
    body_sha256: str
    body: bytes = field(repr=False)
    connection: int


CREDENTIALS = ("authorization", "x-api-key", "api-key", "x-goog-api-key", "private-token")
KEEP_BODY = 1_048_576  # bytes of a body that are kept

Coder = Callable[[str], bytes]


def _entities(pattern: str) -> Coder:
    return lambda secret: "".join(pattern.format(ord(char)) for char in secret).encode()


def _some(secret: str, pattern: str) -> bytes:
    """Escape every third character."""
    return "".join(c if index % 3 else pattern.format(ord(c)) for index, c in enumerate(secret)).encode()


def _pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def _dump(data: bytes) -> bytes:
    """Write bytes as `hexdump -C` does."""
    lines = enumerate(_pieces(data, 16))
    return "\n".join(f"{at:07x}0  {piece.hex(' '):<49} |{piece.decode()}|" for at, piece in lines).encode()


CODERS: Mapping[str, Coder] = {
    "plain": str.encode,
    "base64": lambda s: base64.b64encode(s.encode()),
    "base64-1": lambda s: base64.b64encode(b"x" + s.encode()),
    "base64-2": lambda s: base64.b64encode(b"xy" + s.encode() + b"z"),
    "base64url": lambda s: base64.urlsafe_b64encode(b"\xff\xfe\xfd" + s.encode()),
    "hex": lambda s: s.encode().hex().encode(),
    "hex-upper": lambda s: s.encode().hex().upper().encode(),
    "percent": _entities("%{:02x}"),
    "percent-upper": _entities("%{:02X}"),
    "html": _entities("&#{};"),
    "html-hex": _entities("&#x{:x};"),
    "json-u": _entities("\\u{:04x}"),
    "json-u-braces": _entities("\\u{{{:x}}}"),
    "json-u-braces-padded": _entities("\\u{{{:04X}}}"),
    "perl-x-braces": _entities("\\x{{{:x}}}"),
    "python-U": _entities("\\U{:08x}"),
    "base64-padded": lambda s: b"".join(base64.b64encode(bytes((c,))) for c in s.encode()),
    "base64-padded-2": lambda s: b"".join(base64.b64encode(pair) for pair in _pieces(s.encode(), 2)),
    "utf16le": lambda s: s.encode("utf-16-le"),
    "utf16be": lambda s: s.encode("utf-16-be"),
    "rot13": lambda s: codecs.encode(s, "rot13").encode(),
    "reversed": lambda s: s[::-1].encode(),
    "html-escape": lambda s: html.escape(f"<{s}>").encode(),
    "upper": lambda s: s.upper().encode(),
    "base64-lines": lambda s: base64.encodebytes(b"key: " * 9 + s.encode() * 2),
    "base64-crlf": lambda s: b"\r\n".join(_pieces(base64.b64encode(s.encode()), 19)),
    "base64-lines-in-json": lambda s: json.dumps(base64.encodebytes(b"k" * 50 + s.encode()).decode()).encode(),
    "base64-twice": lambda s: base64.b64encode(base64.b64encode(f"key={s}".encode())),
    "hex-colons": lambda s: s.encode().hex(":").encode(),
    "hex-spaces": lambda s: s.encode().hex(" ").upper().encode(),
    "hex-dashes-and-lines": lambda s: s.encode().hex("-", 4).replace("-", "-\n").encode(),
    "hex-x": _entities("\\x{:02x}"),
    "hex-0x": _entities("0x{:02X}, "),
    "hex-dump": lambda s: b"dump:\n" + _dump(s.encode()) + b"\n",
    "percent-some": lambda s: _some(s, "%{:02x}"),
    "percent-twice": lambda s: _some(s, "%25{:02X}"),
    "json-some": lambda s: _some(s, "\\u{:04X}"),
    "html-dec-padded": _entities("&#{:07};"),
    "html-some": lambda s: _some(s, "&#x{:x};"),
    "quoted-printable": lambda s: quopri.encodestring(
        b"== a line that is long enough to break within == " + s.encode()
    ),
    "quoted-printable-all": lambda s: b"=\r\n".join(_pieces(_entities("={:02X}")(s), 30)),
    "split-spaces": lambda s: " ".join(s).encode(),
    "split-lines": lambda s: "\r\n".join(s).encode(),
    "percent-in-json-in-base64": lambda s: base64.b64encode(
        json.dumps(quote(s, safe="").replace("%", "\u0025")).encode()
    ),
    "gzip-in-base64": lambda s: base64.b64encode(gzip.compress(f"key={s}".encode(), mtime=0)),
}

Writer = Callable[[bytes], Awaitable[None]]


def whole(status: str, body: bytes, *headers: str) -> bytes:
    """Write a response with a `Content-Length`."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def chunked(pieces: list[bytes], *headers: str, trailer: str = "") -> bytes:
    """Write a response in chunks, each piece its own."""
    lines = ["HTTP/1.1 200 OK", "Transfer-Encoding: chunked", *headers]
    coded = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece)
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + coded + b"0\r\n" + trailer.encode() + b"\r\n"


def _special(form: str, secret: str) -> bytes:
    text = f'{{"key": "{secret}"}}'.encode()
    squeezed = gzip.compress(text)
    pieces = [text[i : i + 3] for i in range(0, len(text), 3)]
    answers: dict[str, bytes] = {
        "gzip": whole("200 OK", squeezed, "Content-Encoding: gzip"),
        "deflate": whole("200 OK", zlib.compress(text), "Content-Encoding: deflate"),
        "gzip-twice": whole("200 OK", gzip.compress(squeezed), "Content-Encoding: gzip, gzip"),
        "gzip-inside": whole("200 OK", gzip.compress(squeezed), "Content-Encoding: gzip"),
        "gzip-unlabelled": whole("200 OK", squeezed, "Content-Type: application/octet-stream"),
        "zlib-unlabelled": whole("200 OK", zlib.compress(text)),
        "gzip-mislabelled": whole("200 OK", squeezed, "Content-Encoding: br"),
        "plain-mislabelled": whole("200 OK", text, "Content-Encoding: gzip"),
        "br": whole("200 OK", b"\x0b\x02\x80" + text + b"\x03", "Content-Encoding: br"),
        "zstd": whole("200 OK", b"\x28\xb5\x2f\xfd\x20" + text, "Content-Encoding: zstd"),
        "zstd-unlabelled": whole("200 OK", b"\x28\xb5\x2f\xfd\x20" + text),
        "error": whole("401 Unauthorized", text),
        "cookie": whole("200 OK", b"ok", f"Set-Cookie: key={secret}"),
        "etag": whole("200 OK", b"ok", f'ETag: "{secret}"'),
        "www-authenticate": whole("401 Unauthorized", b"no", f'WWW-Authenticate: Bearer realm="{secret}"'),
        "link": whole("200 OK", b"ok", f"Link: <https://a.test/{secret}>; rel=next"),
        "location": whole("302 Found", b"", f"Location: https://a.test/?key={secret}"),
        "refresh": whole("200 OK", b"ok", f"Refresh: 0; url=https://a.test/{secret}"),
        "reason": whole(f"200 {secret}", b"ok"),
        "early-hints": f"HTTP/1.1 103 Early Hints\r\nLink: <{secret}>\r\n\r\n".encode() + whole("200 OK", b"ok"),
        "trailer": chunked([b"ok"], "Trailer: X-Key", trailer=f"X-Key: {secret}\r\n"),
        "chunks": chunked(pieces),
        "sse": chunked([b"data: " + piece + b"\n\n" for piece in (b"one", text)], "Content-Type: text/event-stream"),
        "sse-pieces": chunked([b"data: ", *pieces, b"\n\n"], "Content-Type: text/event-stream"),
        "until-close": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + text,
    }
    return answers.get(form, whole("404 Not Found", b""))


SPECIALS = (
    "gzip",
    "deflate",
    "gzip-twice",
    "gzip-inside",
    "gzip-unlabelled",
    "zlib-unlabelled",
    "gzip-mislabelled",
    "plain-mislabelled",
    "br",
    "zstd",
    "zstd-unlabelled",
    "error",
    "cookie",
    "etag",
    "www-authenticate",
    "link",
    "location",
    "refresh",
    "reason",
    "early-hints",
    "trailer",
    "chunks",
    "sse",
    "sse-pieces",
    "until-close",
)
FORMS = (*CODERS, *SPECIALS)


class Upstream:
    """An upstream on a port of its own. ``seen`` are the requests it got, ``connections`` how many were opened.

    Paths: ``/echo/<form>``, ``/bytes/<n>``, ``/status/<code>``, ``/redirect/<code>?<location>``, ``/events/<n>``,
    ``/forever``, ``/early`` (401 before the body), ``/drop``, ``/hold`` (answers when ``held`` is set); anything else
    answers with the request itself as JSON, without the credential.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, routes: Mapping[str, bytes] | None = None) -> None:
        """Prepare; ``async with`` starts it. ``routes`` are raw answers by path."""
        self.seen: list[Seen] = []
        self.connections = 0
        self.port = 0
        self.held = asyncio.Event()
        self.arrived = asyncio.Event()
        self.cut = asyncio.Event()  # a client went away while an answer was being written
        self._routes = dict(routes or {})
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{'https' if self._tls else 'http'}://{'localhost' if self._tls else '127.0.0.1'}:{self.port}"

    async def __aenter__(self) -> Self:
        """Listen on a free port of 127.0.0.1."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls, limit=1 << 20)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, and cut what is open."""
        assert self._server is not None
        self._server.close()
        for writer in tuple(self._open):
            writer.transport.abort()
        await asyncio.sleep(0)

    def heard(self, secret: str) -> int:
        """Return how many requests carried a secret."""
        return sum(secret.encode() in seen.raw for seen in self.seen)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        self._open.add(writer)
        try:
            while await self._one(reader, writer, number):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            self.cut.set()
        finally:
            self._open.discard(writer)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> bool:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return False
        line, *lines = head[:-4].decode("latin-1").split("\r\n")
        method, target, _ = line.split(" ", 2)
        headers: dict[str, str] = {}
        for text in lines:
            name, _, value = text.partition(":")
            headers[name.lower()] = (
                f"{headers[name.lower()]}, {value.strip()}" if name.lower() in headers else value.strip()
            )
        path = urlsplit(target).path
        if path == "/early":
            self.seen.append(Seen(method, target, headers, head, 0, "", b"", number))
            writer.write(whole("401 Unauthorized", b"early", "Connection: close"))
            await writer.drain()
            return False
        size, digest, body = await _read_body(reader, headers)
        self.seen.append(Seen(method, target, headers, head, size, digest, body, number))
        self.arrived.set()
        return await self._answer(writer, self.seen[-1], path)

    async def _answer(self, writer: asyncio.StreamWriter, seen: Seen, path: str) -> bool:
        secret = next((seen.headers[name].removeprefix("Bearer ") for name in CREDENTIALS if name in seen.headers), "")
        kind, _, rest = path.strip("/").partition("/")
        match kind:
            case "drop":
                return False
            case "hold":
                await self.held.wait()
            case "forever":
                return await self._forever(writer)
            case "events":
                return await self._events(writer, int(rest))
        data = self._routes.get(path) or _written(seen, kind, rest, secret)
        if seen.method == "HEAD":
            data = data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        writer.write(data)
        await writer.drain()
        return b"\r\nConnection: close\r\n" not in data

    async def _forever(self, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"b\r\ndata: tick\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.005)
        self.cut.set()
        return False

    async def _events(self, writer: asyncio.StreamWriter, count: int) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for index in range(count):
            event = b"data: %d\n\n" % index
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()
            await self.held.wait()
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


def _written(seen: Seen, kind: str, rest: str, secret: str) -> bytes:
    match kind:
        case "echo":
            return whole("200 OK", b"<" + CODERS[rest](secret) + b">") if rest in CODERS else _special(rest, secret)
        case "bytes":
            return whole("200 OK", b"x" * int(rest), "Content-Type: application/octet-stream")
        case "status":
            return whole(f"{rest} Status", b"" if rest in {"204", "304"} else b"status")
        case "redirect":
            return whole(f"{rest} Redirect", b"", f"Location: {urlsplit(seen.target).query}")
        case "headers":
            return whole("200 OK", json.dumps(dict(seen.headers)).encode(), "Content-Type: application/json")
    public = {name: value for name, value in seen.headers.items() if name not in CREDENTIALS}
    described: dict[str, object] = {
        "method": seen.method,
        "target": seen.target,
        "headers": public,
        "body_sha256": seen.body_sha256,
    }
    described |= {"body_size": seen.body_size, "authorised": bool(secret)}
    return whole("200 OK", json.dumps(described).encode(), "Content-Type: application/json")


async def _read_body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> tuple[int, str, bytes]:
    size, digest, kept = 0, hashlib.sha256(), bytearray()

    def take(data: bytes) -> None:
        nonlocal size
        size += len(data)
        digest.update(data)
        if len(kept) < KEEP_BODY:
            kept.extend(data)

    if headers.get("transfer-encoding") == "chunked":
        while length := int(await reader.readuntil(b"\r\n"), 16):
            take((await reader.readexactly(length + 2))[:-2])
        await reader.readuntil(b"\r\n")
    else:
        left = int(headers.get("content-length", "0"))
        while left:
            data = await reader.read(min(left, 65_536))
            if not data:
                raise asyncio.IncompleteReadError(b"", left)
            left -= len(data)
            take(data)
    return size, digest.hexdigest(), bytes(kept)


class Sink:
    """A server that records what reaches it and never answers: where a credential must not arrive."""

    def __init__(self) -> None:
        """Prepare; ``async with`` starts it."""
        self.connections = 0
        self.received = bytearray()
        self.port = 0
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        """Listen on a free port of 127.0.0.1."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        assert self._server is not None
        self._server.close()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while data := await reader.read(65_536):
            self.received += data
        writer.close()
