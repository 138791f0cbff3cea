"""The tripwire on answers: whole secrets, in listed encodings, over chunk borders. Pure.

It matches whole secrets only: matching parts would turn it into an oracle that gives the secret away. How long bytes
are held back is a constant of the secret's length, for the same reason; in formats made of lines the hold ends at a
line's end, because no form of a secret contains one. It is no boundary: an upstream that returns the secret in a form
that is not listed, or in pieces, is not seen (``limits.md``).
"""

from __future__ import annotations

import base64
import codecs
import html
import json
import zlib
from collections.abc import Iterable, Iterator
from urllib.parse import quote

from remit.errors import UpstreamError

MAX_NESTED = 2  # compressed layers that are opened to look inside
INFLATE_STEP = 262_144  # bytes inflated at a time: memory stays flat whatever the ratio
MAX_RATIO = 1_100  # deflate cannot do better than about 1,032 to 1
_SHORTEST = 6  # bytes of a form that is worth looking for


class LeakError(UpstreamError):
    """the answer repeated the credential, so it was withheld"""  # noqa: D400 - the message


def forms(secret: bytes) -> tuple[tuple[bytes, tuple[bytes, ...]], ...]:
    """Return the forms of a secret to look for, grouped by a byte string that all forms of the group contain."""
    text = secret.decode("latin-1")
    groups = (
        (b"", _plain(secret, text)),
        (b"%", ("".join(f"%{c:02x}" for c in secret), "".join(f"%{c:02X}" for c in secret), quote(text, safe=""))),
        (b"&", _entities(secret, text)),
        (b"\\", _escapes(secret, text)),
        (b"\0", (text.encode("utf-16-le"), text.encode("utf-16-be"))),
    )
    return tuple((mark, kept) for mark, group in groups if (kept := _kept(mark, group)))


def _plain(secret: bytes, text: str) -> Iterator[bytes | str]:
    yield secret
    yield secret[::-1]
    yield codecs.encode(text, "rot13")
    yield secret.hex()
    yield secret.hex().upper()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield from _aligned(secret, encode)


def _aligned(secret: bytes, encode: object) -> Iterator[bytes]:
    """Yield what base64 makes of a secret at each of three alignments, without what depends on its neighbours."""
    assert callable(encode)  # noqa: S101 - narrows the type
    for before in range(3):
        coded: bytes = encode(b"\0" * before + secret)
        start = (0, 2, 3)[before]
        spoilt = ((before + len(secret)) % 3) and 4 - (0, 1, 2)[(before + len(secret)) % 3]
        yield coded[start : len(coded) - spoilt] if spoilt else coded[start:]


def _entities(secret: bytes, text: str) -> Iterator[str]:
    yield "".join(f"&#{c};" for c in secret)
    for form in ("&#x{:x};", "&#x{:X};", "&#X{:X};"):
        yield "".join(form.format(c) for c in secret)
    yield html.escape(text)


def _escapes(secret: bytes, text: str) -> Iterator[str]:
    yield "".join(f"\\u{c:04x}" for c in secret)
    yield "".join(f"\\u{c:04X}" for c in secret)
    yield "".join(f"\\x{c:02x}" for c in secret)
    yield json.dumps(text)[1:-1]
    yield json.dumps(text)[1:-1].replace("/", "\\/")


def _kept(mark: bytes, group: Iterable[bytes | str]) -> tuple[bytes, ...]:
    coded = (form if isinstance(form, bytes) else form.encode("latin-1") for form in group)
    return tuple(dict.fromkeys(form for form in coded if mark in form and len(form) >= _SHORTEST))


class Needles:
    """All forms of the secrets of one credential, ready to be looked for. ``keep`` bytes are held back in a stream."""

    __slots__ = ("_groups", "keep")

    def __init__(self, secrets: Iterable[str]) -> None:
        """Prepare the forms of all ``secrets``."""
        groups: dict[bytes, list[bytes]] = {}
        for secret in secrets:
            for mark, found in forms(secret.encode()):
                groups.setdefault(mark, []).extend(found)
        self._groups = tuple((mark, tuple(dict.fromkeys(found))) for mark, found in groups.items())
        self.keep = max((len(form) for _, group in self._groups for form in group), default=1) - 1

    def hit(self, data: bytes) -> bool:
        """Whether a whole secret stands in ``data``."""
        for mark, group in self._groups:
            if mark and mark not in data:
                continue
            for form in group:
                if form in data:
                    return True
        return False

    def check(self, data: bytes) -> None:
        """Raise LeakError if a whole secret stands in ``data``."""
        if self.hit(data):
            raise LeakError


class Scrubber:
    """A stream that lets go of bytes only once no secret can begin in them. ``feed`` and ``end`` raise LeakError."""

    __slots__ = ("_held", "_inner", "_inside", "_lines", "_needles", "_nested", "_start")

    def __init__(self, needles: Needles, *, lines: bool = False, nested: int = 0, inside: bool = True) -> None:
        """Look for ``needles``; ``lines`` says that the stream is made of lines that are to be let go whole.

        ``inside``: what begins as a compressed stream is inflated to look into it, or refused where it cannot be.
        """
        self._needles = needles
        self._lines = lines
        self._nested = nested
        self._inside = inside
        self._held = b""
        self._start = b""
        self._inner: Inflated | None = None

    def feed(self, data: bytes) -> bytes:
        """Take bytes; return those that are safe to let go."""
        window = self._held + data if self._held else data
        self._needles.check(window)
        if self._inside:
            self._look_inside(data)
        at = len(window) - self._needles.keep
        if self._lines:
            at = max(at, window.rfind(b"\n") + 1)
        if at <= 0:
            self._held = window
            return b""
        self._held = window[at:]
        return window[:at]

    def end(self) -> bytes:
        """Return what was still held back."""
        held, self._held = self._held, b""
        return held

    def _look_inside(self, data: bytes) -> None:
        """Look into a compressed body that its head does not announce."""
        if self._inner is not None:
            self._inner.look(data)
        elif len(self._start) < 4:  # noqa: PLR2004 - the longest magic number
            self._start += data[:4]
            if self._start.startswith(_ZSTD):
                raise UpstreamError("the upstream answered in a compression that cannot be looked into")
            if is_compressed(self._start):
                self._inner = Inflated(self._needles, nested=self._nested + 1, strict=False)
                self._inner.look(self._start[: len(self._start) - len(data[:4])] + data)


_GZIP = b"\x1f\x8b\x08"
_ZLIB = frozenset({b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda"})
_ZSTD = b"\x28\xb5\x2f\xfd"
_STARTS = _ZLIB | {_GZIP[:2], _ZSTD[:2]}


def is_compressed(start: bytes) -> bool:
    """Whether bytes begin as a compressed stream does."""
    return start[:2] in _STARTS and (start[:2] != _ZSTD[:2] or start.startswith(_ZSTD))


class Inflated:
    """A gzip or deflate stream, inflated in steps and scrubbed."""

    __slots__ = ("_engine", "_fed", "_made", "_scrubber", "_strict")

    def __init__(self, needles: Needles, *, lines: bool = False, nested: int = 0, strict: bool = True) -> None:
        """Inflate to look for ``needles``. ``strict``: what is not a complete gzip or zlib stream is an error."""
        if nested > MAX_NESTED:
            raise UpstreamError("the upstream answered in too many layers of compression")
        self._engine: zlib._Decompress | None = zlib.decompressobj(wbits=47)  # gzip or zlib, by its first bytes
        self._scrubber = Scrubber(needles, lines=lines, nested=nested)
        self._strict = strict
        self._fed = self._made = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take compressed bytes; yield plain bytes that are safe to let go."""
        self._fed += len(data)
        full = False
        while (data or full) and self._engine is not None:
            plain = self._inflate(data)
            full = len(plain) == INFLATE_STEP  # more may be waiting inside
            self._made += len(plain)
            if self._made > self._fed * MAX_RATIO + INFLATE_STEP:
                raise UpstreamError("the upstream's answer inflates without end")
            if plain:
                yield self._scrubber.feed(plain)
            data = self._rest()

    def _inflate(self, data: bytes) -> bytes:
        assert self._engine is not None  # noqa: S101 - narrows the type
        try:
            return self._engine.decompress(data, INFLATE_STEP)
        except zlib.error as error:
            if self._strict:
                raise UpstreamError("the upstream's answer is not in the encoding that it names") from error
            self._engine = None
            return b""

    def _rest(self) -> bytes:
        engine = self._engine
        if engine is None:
            return b""
        if not engine.eof:
            return engine.unconsumed_tail
        rest = engine.unused_data
        if rest:  # another member follows, or padding
            self._engine = zlib.decompressobj(wbits=47) if rest[:2] == _GZIP[:2] else None
        if rest and self._engine is None and self._strict and rest.strip(b"\0"):
            raise UpstreamError("the upstream's answer goes on after its compressed end")
        return rest

    def look(self, data: bytes) -> None:
        """Take compressed bytes only to look inside."""
        for _ in self.feed(data):
            pass

    def end(self) -> bytes:
        """Return what was still held back, or raise UpstreamError if the stream was cut short."""
        if self._strict and (self._engine is None or not self._engine.eof) and self._fed:
            raise UpstreamError("the upstream's answer breaks off")
        return self._scrubber.end()
