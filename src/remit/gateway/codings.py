"""Content codings undone in steps: gzip, zlib and raw deflate; brotli and zstd where their libraries are. Pure."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from remit.gateway.encodings import STEP, ZLIB

GZIP, DEFLATE, RAW, ZSTD, BROTLI = b"gzip", b"deflate", b"raw", b"zstd", b"br"
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_WINDOW = 23  # RFC 9659: bits of the largest window of zstd as a content coding, 8 MiB


def _installed(*names: str) -> Any:
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


_brotli = _installed("brotli")
_zstd = _installed("compression.zstd", "backports.zstd")  # of the standard library from 3.14 on


class Decoder(Protocol):
    """One compressed stream.

    ``feed`` takes its bytes and returns about ``STEP`` of those inside, or raises one of ``ERRORS``. ``more``: some are
    left, for another ``feed`` of nothing. ``ended``: ``rest`` follows the stream.
    """

    more: bool
    ended: bool
    rest: bytes

    def feed(self, data: bytes) -> bytes: ...


class Deflated:
    """A stream of zlib's: ``wbits`` tells which header it has."""

    more = ended = False
    rest = b""

    def __init__(self, wbits: int) -> None:
        self._engine = zlib.decompressobj(wbits)

    def feed(self, data: bytes) -> bytes:
        plain = self._engine.decompress(self.rest + data, STEP)
        self.ended = self._engine.eof
        self.rest = self._engine.unused_data if self.ended else self._engine.unconsumed_tail
        self.more = not self.ended and len(plain) == STEP
        return plain


class Zstandard:
    """A frame of zstd (RFC 8878)."""

    more = ended = False
    rest = b""

    def __init__(self) -> None:
        self._engine = _zstd.ZstdDecompressor(options={_zstd.DecompressionParameter.window_log_max: _WINDOW})

    def feed(self, data: bytes) -> bytes:
        plain: bytes = self._engine.decompress(data, max_length=STEP)
        self.ended = self._engine.eof
        self.more = not self.ended and not self._engine.needs_input
        self.rest = self._engine.unused_data
        return plain


class Brotli:
    """A stream of brotli (RFC 7932). It has no mark: what follows it is an error of its own."""

    more = ended = False
    rest = b""

    def __init__(self) -> None:
        self._engine = _brotli.Decompressor()

    def feed(self, data: bytes) -> bytes:
        plain: bytes = self._engine.process(data, output_buffer_limit=STEP)
        self.ended = self._engine.is_finished()
        self.more = not self.ended and (len(plain) >= STEP or not self._engine.can_accept_more_data())
        return plain


ERRORS: tuple[type[Exception], ...] = (zlib.error,)
DECODERS: Mapping[bytes, Callable[[], Decoder]] = {
    GZIP: lambda: Deflated(31),
    DEFLATE: lambda: Deflated(15),
    RAW: lambda: Deflated(-15),
}
if _brotli is not None:
    DECODERS = {**DECODERS, BROTLI: Brotli}
    ERRORS = (*ERRORS, _brotli.error)
if _zstd is not None:
    DECODERS = {**DECODERS, ZSTD: Zstandard}
    ERRORS = (*ERRORS, _zstd.ZstdError)
# As `Content-Encoding` names them. Some say deflate and mean it without the header of zlib: the bytes tell.
LABELS: Mapping[bytes, bytes] = {
    b"gzip": GZIP,
    b"x-gzip": GZIP,
    b"deflate": DEFLATE,
    **{name: name for name in (BROTLI, ZSTD) if name in DECODERS},
}


def told(start: bytes) -> bytes | None:
    """Return the coding that the first bytes of a stream tell, or None."""
    if start.startswith(_GZIP):
        return GZIP
    if start[:2] in ZLIB:
        return DEFLATE
    return ZSTD if start.startswith(_ZSTD) else None
