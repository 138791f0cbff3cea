"""The tripwire on answers: whole secrets, in listed encodings, over chunk borders. Pure.

It matches whole secrets only: matching parts would turn it into an oracle that gives the secret away. How long bytes
are held back is a constant of the secret's length, for the same reason; in formats made of lines the hold ends at a
line's end, unless a form of the secret contains one (a PEM key's does). It is no boundary: an upstream that returns the
secret in a form that is not listed, or in pieces, is not seen (``limits.md``).
"""

from __future__ import annotations

import base64
import codecs
import html
import json
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from urllib.parse import quote

from remit.errors import UpstreamError

MAX_NESTED = 2  # compressed layers that are opened to look inside
SLICE = 65_536  # bytes inflated at a time, and in one turn of the loop: memory stays flat whatever the ratio
FREE = 33_554_432  # bytes that a body may inflate to whatever its size, all its layers together
MAX_RATIO = 128  # beyond ``FREE``, bytes that one compressed byte may make; text and JSON stay far below
UPLOAD = 262_144  # bytes inflated to look inside a request's body
_STEP = 4_096  # what a step costs at least: a member of a gzip stream may be empty
_SHORTEST = 6  # bytes of a form that is worth looking for
_WORD = 8
_LONG = 2 * _WORD - 1  # bytes of a form that holds a whole aligned word wherever it begins
_STRIDE = 32  # bytes from one word that is looked at to the next, at most
_ESCAPED = re.compile("%[0-9A-F]{2}")


class LeakError(UpstreamError):
    """the answer repeated the credential, so it was withheld"""  # noqa: D400 - the message


def forms(secret: bytes) -> tuple[tuple[bytes, tuple[bytes, ...]], ...]:
    """Return the forms of a secret to look for, grouped by a byte string that all forms of the group contain."""
    text = secret.decode("latin-1")
    groups: tuple[tuple[bytes, Iterable[bytes | str]], ...] = (
        (b"", _plain(secret, text)),
        (b"%", _percents(secret, text)),
        (b"&", _entities(secret, text)),
        (b"\\", _escapes(secret, text)),
        (b"\0", (text.encode("utf-16-le"), text.encode("utf-16-be"))),
    )
    found = []
    for mark, group in groups:
        coded = (form if isinstance(form, bytes) else form.encode("latin-1") for form in group)
        kept = tuple(dict.fromkeys(form for form in coded if mark in form and len(form) >= _SHORTEST))
        if kept:
            found.append((mark, kept))
    return tuple(found)


def _plain(secret: bytes, text: str) -> Iterator[bytes | str]:
    yield secret
    yield secret[::-1]
    yield codecs.encode(text, "rot13")
    yield secret.hex()
    yield secret.hex().upper()
    for before, start in enumerate((0, 2, 3)):  # base64 at each alignment, without what depends on its neighbours
        coded = base64.b64encode(b"\0" * before + secret)
        over = (before + len(secret)) % 3
        form = coded[start : len(coded) - (4 - over if over else 0)]
        yield form
        yield form.replace(b"+", b"-").replace(b"/", b"_")


def _percents(secret: bytes, text: str) -> Iterator[str]:
    """Yield what escapes all, and what the usual functions of Python, JavaScript, Java and .NET leave as it is."""
    yield "".join(f"%{c:02x}" for c in secret)
    yield "".join(f"%{c:02X}" for c in secret)
    for safe in ("", "/", "*", "!*()", "!'()*", ";,/?:@&=+$!*'()#"):
        usual = quote(text, safe=safe)
        form = usual.replace("%20", "+")
        for coded in (usual, form, usual.replace("~", "%7E"), form.replace("~", "%7E")):
            yield coded
            yield _ESCAPED.sub(lambda found: found[0].lower(), coded)


def _entities(secret: bytes, text: str) -> Iterator[str]:
    for form in ("&#{};", "&#{:03};", "&#{:04};", "&#x{:x};", "&#x{:X};", "&#X{:X};", "&#x{:04x};", "&#x{:04X};"):
        yield "".join(form.format(c) for c in secret)
    bare = html.escape(text, quote=False)
    singles = ("'", "&#x27;", "&#39;", "&#039;", "&apos;")
    for double, single in product(('"', "&quot;", "&#34;"), singles):
        yield bare.replace('"', double).replace("'", single)


def _escapes(secret: bytes, text: str) -> Iterator[str]:
    yield "".join(f"\\u{c:04x}" for c in secret)
    yield "".join(f"\\u{c:04X}" for c in secret)
    yield "".join(f"\\x{c:02x}" for c in secret)
    bare = json.dumps(text)[1:-1]
    for also, form, slash in product(("", "<>&", "<>&'", "<>&'+`"), ("\\u{:04x}", "\\u{:04X}"), ("/", "\\/")):
        escaped = "".join(form.format(ord(c)) if c in also else c for c in bare)
        if "+" in also:
            escaped = escaped.replace('\\"', form.format(ord('"')))
        yield escaped.replace("/", slash)


class SecretPatterns:
    """All forms of secrets, and ``exact`` as they are, to be looked for. ``keep`` bytes are held back in a stream.

    A form of n bytes, wherever it begins, covers a whole word of eight bytes at some multiple of every stride up to
    n - 7. So a look at those words alone, in one set operation, is enough to know that none of the long forms is there.
    """

    __slots__ = ("_groups", "_short", "_stride", "_words", "keep", "multiline")

    def __init__(self, secrets: Iterable[bytes], exact: Iterable[bytes] = ()) -> None:
        groups: dict[bytes, list[bytes]] = {b"": list(exact)}
        for secret in secrets:
            for mark, found in forms(secret):
                groups.setdefault(mark, []).extend(found)
        every = frozenset(form for group in groups.values() for form in group)
        long = frozenset(form for form in every if len(form) >= _LONG)
        self._short = tuple(every - long)
        self._groups = tuple((mark, tuple(long.intersection(found))) for mark, found in groups.items())
        shortest = min(map(len, long), default=0)
        self._stride = min((shortest - _WORD + 1) // _WORD * _WORD, _STRIDE) if long else 0
        self._words = frozenset(word for form in long for word in _words(form, self._stride))
        self.keep = max(map(len, every), default=1) - 1
        self.multiline = any(b"\n" in form for form in every)

    def beside(self, exact: Iterable[bytes]) -> SecretPatterns:
        """Return these and ``exact`` as they are, without all forms of the secrets being made anew."""
        found = SecretPatterns((), exact)
        found._short += self._short
        found._groups += self._groups
        found._words |= self._words  # where the other's stride is less, more of them than it takes
        found._stride = min(filter(None, (found._stride, self._stride)), default=0)
        found.keep = max(found.keep, self.keep)
        found.multiline = found.multiline or self.multiline
        return found

    def hit(self, data: bytes) -> bool:
        for form in self._short:
            if form in data:
                return True
        if not self._stride:
            return False
        words = memoryview(data)[: len(data) & -_WORD].cast("Q")[:: self._stride // _WORD]
        return not self._words.isdisjoint(words.tolist()) and any(
            form in data for mark, group in self._groups if mark in data for form in group
        )

    def check(self, data: bytes) -> None:
        if self.hit(data):
            raise LeakError


def _words(form: bytes, stride: int) -> Iterator[int]:
    """Yield the words of a form of which one is looked at, wherever the form begins."""
    for at in range(min(stride, len(form) - _WORD + 1)):
        yield int.from_bytes(form[at : at + _WORD], sys.byteorder)


@dataclass(slots=True)
class Meter:
    """What one body was inflated to, all its layers together."""

    most: int | None = None  # beyond so much nobody looks inside, and nothing is refused
    fed: int = 0  # bytes of the body as they came
    turn: int = 0  # of this turn of the loop, for its driver
    _made: int = 0

    @property
    def strict(self) -> bool:
        return self.most is None

    @property
    def over(self) -> bool:
        return self.most is not None and self._made >= self.most

    def count(self, made: int) -> None:
        """Count what a step made, or raise UpstreamError."""
        self.turn += max(made, _STEP)
        self._made += made if self.strict else max(made, _STEP)
        if self.strict and self._made > FREE and self._made > self.fed * MAX_RATIO:
            raise UpstreamError("the upstream's answer inflates without end")


@dataclass(slots=True, eq=False, repr=False)
class Scrubber:
    """A stream that lets go of bytes only once no secret can begin in them. What takes bytes raises LeakError."""

    patterns: SecretPatterns
    lines: bool = field(default=False, kw_only=True)  # the stream is made of lines that are to be let go whole
    nested: int = field(default=0, kw_only=True)
    meter: Meter = field(default_factory=Meter, kw_only=True)
    _held: bytes = b""
    _start: bytes = b""
    _inner: Inflated | None = None

    def feed(self, data: bytes) -> bytes:
        self.meter.fed += len(data)
        return b"".join(self.steps(data))

    def steps(self, data: bytes) -> Iterator[bytes]:
        """Take bytes; yield those that are safe to let go, and nothing after each step of looking inside."""
        window = self._held + data if self._held else data
        self.patterns.check(window)
        for _ in self._looked_inside(data):
            yield b""
        at = len(window) - self.patterns.keep
        if self.lines and not self.patterns.multiline:
            at = max(at, window.rfind(b"\n") + 1)
        at = max(at, 0)
        self._held = window[at:]
        yield window[:at]

    def end(self) -> bytes:
        held, self._held = self._held, b""
        return held

    def _looked_inside(self, data: bytes) -> Iterator[bytes]:
        """Look into a compressed body that its head does not announce; raise UpstreamError where nobody can."""
        if self._inner is not None:
            yield from self._inner.steps(data)
        elif len(self._start) < 4:  # noqa: PLR2004 - the longest magic number
            before = self._start
            self._start += data[:4]
            if not is_compressed(self._start):
                return
            unreadable = self._start.startswith(_ZSTD)
            if not unreadable and self.nested < MAX_NESTED:
                self._inner = Inflated(Scrubber(self.patterns, nested=self.nested + 1, meter=self.meter), strict=False)
                yield from self._inner.steps(before + data)
            elif self.meter.strict:
                what = "a compression that cannot be looked into" if unreadable else "too many layers of compression"
                raise UpstreamError(f"the upstream answered in {what}")


_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
# RFC 1950 §2.2: deflate with a window of up to 32 KiB, no dictionary, and a check of both bytes
_ZLIB = frozenset(
    bytes((cmf, flg))
    for cmf in range(0x08, 0x80, 0x10)
    for flg in range(256)
    if (cmf * 256 + flg) % 31 == 0 and not flg & 0x20
)
_decompress = partial(zlib.decompressobj, wbits=47)  # gzip or zlib, whichever the first bytes say
_STARTS = _ZLIB | {_GZIP, _ZSTD[:2]}


def is_compressed(start: bytes) -> bool:
    """Whether bytes begin as a compressed stream does."""
    return start[:2] in _STARTS and (start[:2] != _ZSTD[:2] or start.startswith(_ZSTD))


@dataclass(slots=True, eq=False, repr=False)
class Inflated:
    """A gzip or zlib stream, and those that follow it, inflated in steps and scrubbed."""

    _scrubber: Scrubber
    strict: bool = field(default=True, kw_only=True)  # what is not a complete gzip or zlib stream is an error
    _begun: bool = False
    _given_up: bool = False
    _engine: zlib._Decompress | None = field(default_factory=_decompress)
    _start: bytes = b""  # what follows a stream, while it is too short to be told

    def steps(self, data: bytes) -> Iterator[bytes]:
        """Take compressed bytes; after each step yield plain bytes that are safe to let go, if only none."""
        data, self._start = self._start + data, b""
        self._begun = self._begun or bool(data)
        full = False
        while data or full:
            if self._engine is None:
                data = self._next(data)
            engine = self._engine
            if engine is None:
                return
            try:
                plain = engine.decompress(data, SLICE)
            except zlib.error as error:
                if self.strict:
                    raise UpstreamError("the upstream's answer is not in the encoding that it names") from error
                plain = b""
                self._given_up = True
            full = len(plain) == SLICE  # more may be waiting inside
            self._scrubber.meter.count(len(plain))
            yield from self._scrubber.steps(plain)
            self._given_up = self._given_up or self._scrubber.meter.over
            if self._given_up or engine.eof:
                self._engine = None
                data = b"" if self._given_up else engine.unused_data
            else:
                data = engine.unconsumed_tail

    def _next(self, data: bytes) -> bytes:
        """Begin the stream that follows one, if one does; return its bytes without the padding before it."""
        data = data.lstrip(b"\0")
        if self._given_up or len(data) < 2:  # noqa: PLR2004 - what tells a stream
            self._start = data[:1]
        elif data[:2] == _GZIP or (not self.strict and data[:2] in _ZLIB):
            self._engine = _decompress()
        elif self.strict:
            raise UpstreamError("the upstream's answer goes on after its compressed end")
        else:
            self._given_up = True
        return data

    def end(self) -> bytes:
        """Return what was still held back, or raise UpstreamError if the stream was cut short."""
        if self.strict and self._begun and (self._engine is not None or self._start):
            raise UpstreamError("the upstream's answer breaks off")
        return self._scrubber.end()
