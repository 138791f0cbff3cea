"""Content codings: what is inflated is searched, whatever it says it is; what cannot be inflated is refused."""

from __future__ import annotations

import gzip
import importlib
import subprocess
import sys
import zlib
from collections.abc import Callable, Mapping

import pytest

from remit.errors import UpstreamError
from remit.gateway.codings import BROTLI, DECODERS, DEFLATE, GZIP, LABELS, RAW, ZSTD
from remit.gateway.encodings import STEP
from remit.gateway.framing import response_head
from remit.gateway.patterns import LeakError, SecretPatterns
from remit.gateway.response import ResponseBody, ResponsePlan
from remit.gateway.scrub import Inflated, Scrubber
from tests.gateway.rig import SECRET

PATTERNS = SecretPatterns([SECRET.encode()])
TEXT = b"some text, then more of it; " * 9_000
LEAK = TEXT[:100] + SECRET.encode() + TEXT


def _raw(data: bytes) -> bytes:
    engine = zlib.compressobj(wbits=-15)
    return engine.compress(data) + engine.flush()


def _brotli(data: bytes) -> bytes:
    packed: bytes = importlib.import_module("brotli").compress(data, quality=1)
    return packed


def _zstd(data: bytes) -> bytes:
    packed: bytes = importlib.import_module("backports.zstd").compress(data)
    return packed


PACKED: Mapping[bytes, Callable[[bytes], bytes]] = {
    GZIP: gzip.compress,
    DEFLATE: zlib.compress,
    RAW: _raw,
    BROTLI: _brotli,
    ZSTD: _zstd,
}
NAMED = [(label, coding) for label, coding in LABELS.items()] + [(b"deflate", RAW)]


def answer(label: bytes | None) -> ResponseBody:
    line = b"" if label is None else b"\r\nContent-Encoding: " + label
    return ResponseBody(PATTERNS, ResponsePlan(*response_head(b"HTTP/1.1 200 OK\r\nX: y" + line), has_body=True))


def fed(body: ResponseBody, data: bytes, size: int) -> bytes:
    """Return what the client gets of a chunked body that comes in pieces."""
    out = b""
    for at in range(0, len(data), size):
        out += body.feed(data[at : at + size], done=at + size >= len(data))
        while body.busy:
            out += body.more()
    return out


@pytest.mark.attack("RSP-03")
@pytest.mark.parametrize("size", [1, 7, 65_536])
@pytest.mark.parametrize(("label", "coding"), NAMED)
def test_a_labelled_answer_is_inflated_and_searched(label: bytes, coding: bytes, size: int) -> None:
    plain = TEXT[: 300 * size]
    assert b"".join(fed(answer(label), PACKED[coding](plain), size).split(b"\r\n")[1::2]) == plain
    with pytest.raises(LeakError):
        fed(answer(label), PACKED[coding](LEAK), size)


@pytest.mark.attack("RSP-08")
@pytest.mark.parametrize("size", [1, 15, 65_536])
@pytest.mark.parametrize("coding", [GZIP, DEFLATE, RAW, ZSTD])
def test_an_answer_without_a_label_is_looked_into(coding: bytes, size: int) -> None:
    with pytest.raises(LeakError):
        fed(answer(None), PACKED[coding](LEAK), size)
    packed = PACKED[coding](TEXT[:5_000])
    assert b"".join(fed(answer(None), packed, 65_536).split(b"\r\n")[1::2]) == packed


@pytest.mark.attack("RSP-08")
@pytest.mark.parametrize("coding", [GZIP, ZSTD])
def test_a_second_stream_behind_the_first_is_searched_too(coding: bytes) -> None:
    data = PACKED[coding](TEXT) + PACKED[coding](LEAK)
    for label in (coding, None):
        with pytest.raises(LeakError):
            fed(answer(label), data, 1_000)


@pytest.mark.parametrize("coding", [DEFLATE, RAW, BROTLI])
def test_what_follows_the_end_of_a_labelled_stream_is_refused(coding: bytes) -> None:
    for size in (len(PACKED[coding](TEXT)), 65_536):
        with pytest.raises(UpstreamError):
            fed(answer(b"deflate" if coding == RAW else coding), PACKED[coding](TEXT) + SECRET.encode(), size)


@pytest.mark.parametrize("coding", DECODERS)
def test_a_stream_that_breaks_off_or_is_none_is_refused(coding: bytes) -> None:
    label = b"deflate" if coding == RAW else coding
    with pytest.raises(UpstreamError):
        fed(answer(label), PACKED[coding](TEXT)[:-5], 1_000)
    with pytest.raises(UpstreamError):
        fed(answer(label), b"\xfe\xff this is no stream of anything" * 9, 1_000)


@pytest.mark.attack("DOS-06")
@pytest.mark.parametrize("coding", DECODERS)
def test_a_bomb_of_any_coding_is_made_in_steps_and_cut(coding: bytes) -> None:
    inflated = Inflated(Scrubber(PATTERNS), coding)
    data, biggest = PACKED[coding](b"\0" * 80_000_000), 0
    with pytest.raises(UpstreamError, match="without end"):  # noqa: PT012 - at whichever step
        for piece in inflated.steps(data):
            biggest = max(biggest, len(piece))
    assert biggest <= STEP + PATTERNS.keep


@pytest.mark.attack("RSP-03")
def test_without_its_library_a_coding_is_refused() -> None:
    script = """
import sys
sys.modules["brotli"] = sys.modules["backports.zstd"] = sys.modules["compression.zstd"] = None
from remit.errors import UpstreamError
from tests.gateway.test_codings import ZSTD, answer, fed
for label, data in ((b"br", b"x" * 40), (b"zstd", b"x" * 40), (None, b"\\x28\\xb5\\x2f\\xfd" + b"x" * 40)):
    try:
        fed(answer(label), data, 100)
    except UpstreamError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.count("cannot look into") == 3
