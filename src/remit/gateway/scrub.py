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
    groups = (
        (b"", _plain(secret, text)),
        (b"%", _percents(secret, text)),
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
        yield (
            escaped.replace('\\"', form.format(ord('"'))).replace("/", slash)
            if "+" in also
            else (escaped.replace("/", slash))
        )


def _kept(mark: bytes, group: Iterable[bytes | str]) -> tuple[bytes, ...]:
    coded = (form if isinstance(form, bytes) else form.encode("latin-1") for form in group)
    return tuple(dict.fromkeys(form for form in coded if mark in form and len(form) >= _SHORTEST))


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
        """Whether a whole secret stands in ``data``."""
        for form in self._short:
            if form in data:
                return True
        if not self._stride:
            return False
        words = memoryview(data)[: len(data) & -_WORD].cast("Q")[:: self._stride // _WORD]
        return not self._words.isdisjoint(words.tolist()) and self._holds(data)

    def _holds(self, data: bytes) -> bool:
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


def _words(form: bytes, stride: int) -> Iterator[int]:
    """Yield the words of a form of which one is looked at, wherever the form begins."""
    for at in range(min(stride, len(form) - _WORD + 1)):
        yield int.from_bytes(form[at : at + _WORD], sys.byteorder)


class Meter:
    """What one body was inflated to, all its layers together. ``turn`` is of this turn of the loop, for its driver.

    ``most``: beyond so much nobody looks inside, and nothing is refused.
    """

    __slots__ = ("_made", "_most", "fed", "turn")

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._made = 0
        self.fed = 0  # bytes of the body as they came
        self.turn = 0

    @property
    def strict(self) -> bool:
        """Whether what cannot be looked into is refused."""
        return self._most is None

    @property
    def over(self) -> bool:
        """Whether nobody is to look any further."""
        return self._most is not None and self._made >= self._most

    def count(self, made: int) -> None:
        """Count what a step made, or raise UpstreamError."""
        self.turn += max(made, _STEP)
        self._made += made if self.strict else max(made, _STEP)
        if self.strict and self._made > FREE and self._made > self.fed * MAX_RATIO:
            raise UpstreamError("the upstream's answer inflates without end")


class Scrubber:
    """A stream that lets go of bytes only once no secret can begin in them. What takes bytes raises LeakError.

    ``lines``: the stream is made of lines that are to be let go whole.
    """

    __slots__ = ("_held", "_inner", "_lines", "_meter", "_nested", "_patterns", "_start")

    def __init__(
        self, patterns: SecretPatterns, *, lines: bool = False, nested: int = 0, meter: Meter | None = None
    ) -> None:
        self._patterns = patterns
        self._lines = lines
        self._nested = nested
        self._meter = meter or Meter()
        self._held = b""
        self._start = b""
        self._inner: Inflated | None = None

    def feed(self, data: bytes) -> bytes:
        """Take bytes; return those that are safe to let go."""
        self._meter.fed += len(data)
        return b"".join(self.steps(data))

    def steps(self, data: bytes) -> Iterator[bytes]:
        """Take bytes; yield those that are safe to let go, and nothing after each step of looking inside."""
        window = self._held + data if self._held else data
        self._patterns.check(window)
        for _ in self._looked_inside(data):
            yield b""
        at = len(window) - self._patterns.keep
        if self._lines and not self._patterns.multiline:
            at = max(at, window.rfind(b"\n") + 1)
        at = max(at, 0)
        self._held = window[at:]
        yield window[:at]

    def end(self) -> bytes:
        """Return what was still held back."""
        held, self._held = self._held, b""
        return held

    def _looked_inside(self, data: bytes) -> Iterator[bytes]:
        """Look into a compressed body that its head does not announce."""
        if self._inner is not None:
            yield from self._inner.feed(data)
        elif len(self._start) < 4:  # noqa: PLR2004 - the longest magic number
            before = self._start
            self._start += data[:4]
            if not is_compressed(self._start) or self._beyond():
                return
            self._inner = Inflated(self._patterns, nested=self._nested + 1, strict=False, meter=self._meter)
            yield from self._inner.feed(before + data)

    def _beyond(self) -> bool:
        """Whether what is compressed cannot be looked into; raise UpstreamError if that is refused."""
        unreadable = self._start.startswith(_ZSTD)
        if not unreadable and self._nested < MAX_NESTED:
            return False
        if self._meter.strict:
            raise UpstreamError(
                "the upstream answered in a compression that cannot be looked into"
                if unreadable
                else "the upstream answered in too many layers of compression"
            )
        return True


_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
# RFC 1950 §2.2: deflate with a window of up to 32 KiB, no dictionary, and a check of both bytes
_ZLIB = frozenset(
    bytes((cmf, flg))
    for cmf in range(0x08, 0x80, 0x10)
    for flg in range(256)
    if (cmf * 256 + flg) % 31 == 0 and not flg & 0x20
)
_EITHER = 47  # zlib's word for gzip or zlib, whichever the first bytes say
_STARTS = _ZLIB | {_GZIP, _ZSTD[:2]}


def is_compressed(start: bytes) -> bool:
    """Whether bytes begin as a compressed stream does."""
    return start[:2] in _STARTS and (start[:2] != _ZSTD[:2] or start.startswith(_ZSTD))


class Inflated:
    """A gzip or zlib stream, and those that follow it, inflated in steps and scrubbed.

    ``strict``: what is not a complete gzip or zlib stream is an error.
    """

    __slots__ = ("_begun", "_engine", "_given_up", "_meter", "_scrubber", "_start", "_strict")

    def __init__(
        self,
        patterns: SecretPatterns,
        *,
        lines: bool = False,
        nested: int = 0,
        strict: bool = True,
        meter: Meter | None = None,
    ) -> None:
        self._meter = meter or Meter()
        self._scrubber = Scrubber(patterns, lines=lines, nested=nested, meter=self._meter)
        self._strict = strict
        self._begun = self._given_up = False
        self._engine: zlib._Decompress | None = zlib.decompressobj(wbits=_EITHER)
        self._start = b""  # what follows a stream, while it is too short to be told

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take compressed bytes; after each step yield plain bytes that are safe to let go, if only none."""
        data, self._start = self._start + data, b""
        self._begun = self._begun or bool(data)
        full = False
        while data or full:
            if self._engine is None:
                data = self._next(data)
            if self._engine is None:
                return
            plain = self._inflate(data)
            full = len(plain) == SLICE  # more may be waiting inside
            self._meter.count(len(plain))
            yield from self._scrubber.steps(plain)
            data = self._rest()

    def _next(self, data: bytes) -> bytes:
        """Begin the stream that follows one, if one does; return its bytes without the padding before it."""
        data = data.lstrip(b"\0")
        if self._given_up or len(data) < 2:  # noqa: PLR2004 - what tells a stream
            self._start = data[:1]
        elif data[:2] == _GZIP or (not self._strict and data[:2] in _ZLIB):
            self._engine = zlib.decompressobj(wbits=_EITHER)
        elif self._strict:
            raise UpstreamError("the upstream's answer goes on after its compressed end")
        else:
            self._given_up = True
        return data

    def _inflate(self, data: bytes) -> bytes:
        assert self._engine is not None  # noqa: S101 - narrows the type
        try:
            return self._engine.decompress(data, SLICE)
        except zlib.error as error:
            if self._strict:
                raise UpstreamError("the upstream's answer is not in the encoding that it names") from error
            self._give_up()
            return b""

    def _rest(self) -> bytes:
        engine = self._engine
        if engine is not None and self._meter.over:
            self._give_up()
        if self._engine is None or engine is None:
            return b""
        if not engine.eof:
            return engine.unconsumed_tail
        self._engine = None
        return engine.unused_data

    def _give_up(self) -> None:
        self._engine = None
        self._given_up = True

    def end(self) -> bytes:
        """Return what was still held back, or raise UpstreamError if the stream was cut short."""
        if self._strict and self._begun and (self._engine is not None or self._start):
            raise UpstreamError("the upstream's answer breaks off")
        return self._scrubber.end()
