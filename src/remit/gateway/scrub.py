"""The tripwire on answers: streams that are decoded and searched for whole secrets, over chunk borders. Pure.

How long bytes are held back is a constant of the secrets' lengths and never hangs on what they are; in formats made of
lines the hold ends at a line's end, unless a secret contains one (a PEM key does). It is no boundary: what is not found
stands in ``limits.md``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from remit.errors import UpstreamError
from remit.gateway import codings
from remit.gateway.codings import DECODERS, DEFLATE, GZIP, RAW, ZSTD, Decoder
from remit.gateway.encodings import STEP
from remit.gateway.patterns import SecretPatterns

MAX_NESTED = 2  # compressed layers that are opened to look inside
TURN = 131_072  # bytes inflated or looked at, in all their layers, in one turn of the loop
FREE = 33_554_432  # bytes that a body may inflate to whatever its size, all its layers together
MAX_RATIO = 128  # beyond ``FREE``, bytes that one compressed byte may make; text and JSON stay far below
UPLOAD = 262_144  # bytes inflated to look inside a request's body
_TELLS = 2  # bytes that tell gzip and zlib
_LEAST = 4_096  # what a step costs at least: a member of a gzip stream may be empty
_BEGINNING = 16  # bytes that tell whether a body is compressed: no shorter one holds a secret


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
        self.turn += max(made, _LEAST)
        self._made += made if self.strict else max(made, _LEAST)
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
    _start: bytes | None = b""  # until it is known whether it is compressed
    _inner: Inflated | None = None

    def feed(self, data: bytes) -> bytes:
        self.meter.fed += len(data)
        return b"".join(self.steps(data))

    def steps(self, data: bytes) -> Iterator[bytes]:
        """Take bytes; yield those that are safe to let go, and nothing after each step of looking inside."""
        for at in range(0, len(data), STEP):
            piece = data[at : at + STEP]
            window = self._held + piece if self._held else piece
            self.meter.turn += self.patterns.check(window)
            for _ in self._looked_inside(piece):
                yield b""
            go = len(window) - self.patterns.keep
            if self.lines and not self.patterns.multiline:
                go = max(go, window.rfind(b"\n") + 1)
            go = max(go, 0)
            self._held = window[go:]
            yield window[:go]

    def end(self) -> bytes:
        held, self._held = self._held, b""
        return held

    def _looked_inside(self, data: bytes) -> Iterator[bytes]:
        """Look into a compressed body that its head does not announce; raise UpstreamError where nobody can."""
        if self._inner is None:
            if self._start is None:
                return
            self._start = data = self._start + data
            if len(data) < _BEGINNING:
                return
            self._start = None
            coding = codings.told(data) or (None if data[:_BEGINNING].isascii() else RAW)
            if coding is None:
                return
            inside = coding in DECODERS and self.nested < MAX_NESTED
            if inside:
                inner = Scrubber(self.patterns, nested=self.nested + 1, meter=self.meter)
                self._inner = Inflated(inner, coding, strict=False)
            elif self.meter.strict and coding != RAW:
                what = "too many layers of compression" if coding in DECODERS else "a compression it cannot look into"
                raise UpstreamError(f"the upstream answered in {what}")
        if self._inner is not None:
            yield from self._inner.steps(data)


def searched(patterns: SecretPatterns, body: bytes) -> bool:
    """Search a body that is all there in one step, unless it is long or compressed; return whether it was."""
    short = len(body) <= STEP and codings.told(body) is None and body[:_BEGINNING].isascii()
    if short:
        patterns.check(body)
    return short


@dataclass(slots=True, eq=False, repr=False)
class Inflated:
    """A compressed stream, and those that follow it, inflated in steps and scrubbed."""

    _scrubber: Scrubber
    _coding: bytes
    strict: bool = field(default=True, kw_only=True)  # what is not a complete stream of its coding is an error
    _begun: bool = False
    _given_up: bool = False
    _decoder: Decoder | None = None
    _start: bytes = b""  # of a stream, while it is too short to be told

    @property
    def meter(self) -> Meter:
        return self._scrubber.meter

    def steps(self, data: bytes) -> Iterator[bytes]:
        """Take compressed bytes; after each step yield plain bytes that are safe to let go, if only none."""
        data, self._start = self._start + data, b""
        while data or (self._decoder is not None and self._decoder.more):
            if self._decoder is None:
                data = self._next(data)
            decoder = self._decoder
            if decoder is None:
                return
            try:
                made = decoder.feed(data)
            except codings.ERRORS as error:
                if self.strict:
                    raise UpstreamError("the upstream's answer is not in the encoding that it names") from error
                made, self._given_up = b"", True
            self._scrubber.meter.count(len(made))
            yield b""
            yield from self._scrubber.steps(made)
            self._given_up = self._given_up or self._scrubber.meter.over
            data = decoder.rest if decoder.ended else b""
            if self._given_up or decoder.ended:
                self._decoder = None
            if self._given_up:
                return

    def _next(self, data: bytes) -> bytes:
        """Begin a stream, if one does; return its bytes without the padding before it."""
        if self._begun:
            data = data.lstrip(b"\0")
        if not data or self._given_up:
            return b""
        coding: bytes | None = self._coding
        if coding in {GZIP, DEFLATE}:
            if len(data) < _TELLS:
                self._start = data
                return b""
            found = codings.told(data)
            coding = RAW if coding == DEFLATE and not self._begun else None  # some leave the header of zlib out
            if found == GZIP or (found == DEFLATE and not (self._begun and self.strict)):
                coding = found
        elif self._begun and coding != ZSTD:
            coding = None
        if coding is None and self.strict:
            where = "goes on after its compressed end" if self._begun else "is not in the encoding that it names"
            raise UpstreamError(f"the upstream's answer {where}")
        if coding is None:
            self._given_up = True
            return b""
        self._begun = True
        self._decoder = DECODERS[coding]()
        return data

    def end(self) -> bytes:
        """Return what was still held back, or raise UpstreamError if the stream was cut short."""
        if self.strict and (self._decoder is not None or self._start):
            raise UpstreamError("the upstream's answer breaks off")
        return self._scrubber.end()
