"""Wherever a stream is cut: a whole secret in a listed form never gets out, and everything else does."""

from __future__ import annotations

import base64
import gzip
import html
import json
import quopri
import string
import zlib
from collections.abc import Callable, Mapping
from itertools import pairwise
from random import Random
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remit.errors import RemitError
from remit.gateway.codings import GZIP
from remit.gateway.encodings import STEP, inflated
from remit.gateway.framing import response_head
from remit.gateway.patterns import LeakError, SecretPatterns, WordSearch, weak
from remit.gateway.response import ResponseBody, ResponsePlan
from remit.gateway.scrub import Inflated, Scrubber
from tests.support.upstream import CODERS

SECRET = "rmt-k-3f1c0a9be7d24856-Q"
PATTERNS = SecretPatterns([SECRET.encode()])
ALPHABET = string.ascii_letters + string.digits + "-_+/=.~!#$&"


def pour(scrubber: Scrubber, data: bytes, cuts: list[int]) -> bytes:
    """Return what gets out of a scrubber; what was let go before a leak counts too."""
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    out = b""
    try:
        for start, end in pairwise(edges):
            out += scrubber.feed(data[start:end])
        return out + scrubber.end()
    except LeakError:
        return out + b"<cut>"


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize("form", CODERS)
def test_a_secret_cut_in_two_at_any_place_is_found(form: str, *, lines: bool) -> None:
    coded = CODERS[form](SECRET)
    if lines and b"\n" in coded:
        return  # lines are let go as they end
    data = b"data: <" + coded + b">\n\n"
    for cut in range(len(data) + 1):
        out = pour(Scrubber(PATTERNS, lines=lines), data, [cut])
        assert out.endswith(b"<cut>"), cut
        assert coded not in out
        assert len(out) <= len(b"data: <") + len(b"<cut>")


@pytest.mark.parametrize("form", CODERS)
def test_a_secret_that_comes_byte_by_byte_is_found(form: str) -> None:
    data = b"x" * 500 + CODERS[form](SECRET) + b"y" * 500
    out = pour(Scrubber(PATTERNS), data, list(range(len(data))))
    assert out.rstrip(b"<cut>").strip(b"x") == b""
    assert out.endswith(b"<cut>")


@settings(max_examples=400)
@given(st.binary(max_size=2000), st.lists(st.integers(0, 2000), max_size=10), st.booleans())
def test_what_holds_no_secret_gets_out_unchanged(data: bytes, cuts: list[int], lines: bool) -> None:  # noqa: FBT001 - drawn
    if PATTERNS.hit(data):
        return
    try:
        assert pour(Scrubber(PATTERNS, lines=lines), data, cuts) == data
    except RemitError:
        assert data[:4] == b"\x28\xb5\x2f\xfd"


@settings(max_examples=300)
@given(st.binary(max_size=600), st.integers(0, 600))
def test_how_long_bytes_are_held_hangs_on_their_number_alone(data: bytes, prefix: int) -> None:
    near = data + SECRET.encode()[: prefix % len(SECRET)]
    if PATTERNS.hit(near) or near[:2] in {b"\x1f\x8b", b"\x28\xb5"} or near[:1] == b"\x78":
        return
    assert len(Scrubber(PATTERNS).feed(near)) == max(0, len(near) - PATTERNS.keep)


@pytest.mark.parametrize("squeeze", [gzip.compress, zlib.compress])
def test_a_compressed_secret_is_found_wherever_the_stream_is_cut(squeeze: object) -> None:
    assert callable(squeeze)
    data: bytes = squeeze(b"some text, then " + SECRET.encode() + b", then more")
    for cut in range(len(data)):
        inflated = Inflated(Scrubber(PATTERNS), GZIP)
        with pytest.raises(LeakError):
            _all(inflated, [data[:cut], data[cut:]])


@settings(max_examples=200)
@given(st.binary(max_size=5000), st.lists(st.integers(0, 5000), max_size=6))
def test_what_is_inflated_is_what_was_deflated(data: bytes, cuts: list[int]) -> None:
    if data[:2] in {b"\x1f\x8b", b"\x28\xb5"} or data[:1] == b"\x78":
        return
    squeezed = gzip.compress(data)
    edges = [0, *sorted(cut for cut in cuts if cut < len(squeezed)), len(squeezed)]
    pieces = [squeezed[a:b] for a, b in pairwise(edges)]
    assert _all(Inflated(Scrubber(PATTERNS), GZIP), pieces) == data


@given(st.binary(max_size=300))
def test_whatever_claims_to_be_compressed_is_inflated_or_refused(data: bytes) -> None:
    try:
        _all(Inflated(Scrubber(PATTERNS), GZIP), [data])
    except RemitError:
        return


def _windowed(data: bytes, bits: int) -> bytes:
    engine = zlib.compressobj(wbits=bits)
    return engine.compress(data) + engine.flush()


SPECIAL = "sk/live+7Q=&<'\"9>aB*!(x)~"


def _lower(text: str) -> str:
    return "".join(f"%{part[:2].lower()}{part[2:]}" if index else part for index, part in enumerate(text.split("%")))


def _aspnet(text: str) -> str:
    return "".join(f"\\u{ord(c):04X}" if c in "+&<>'\"`" else c for c in text)


FRAMEWORKS = {
    "python quote": quote(SPECIAL),
    "python quote, all": quote(SPECIAL, safe=""),
    "python quote_plus": quote_plus(SPECIAL),
    "encodeURIComponent": quote(SPECIAL, safe="!'()*"),
    "encodeURI": quote(SPECIAL, safe=";,/?:@&=+$!*'()#"),
    "java URLEncoder": quote(SPECIAL, safe="*").replace("~", "%7E"),
    "dotnet UrlEncode": _lower(quote(SPECIAL, safe="!*()").replace("~", "%7e")),
    "lower case of python quote": _lower(quote(SPECIAL)),
    "lower case of all": "".join(f"%{ord(c):02x}" for c in SPECIAL),
    "aspnet core json": _aspnet(SPECIAL),
    "go json": json.dumps(SPECIAL)[1:-1].replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"),
    "php json": json.dumps(SPECIAL)[1:-1].replace("/", "\\/"),
    "json u upper": "".join(f"\\u{ord(c):04X}" for c in SPECIAL),
    "html padded": "".join(f"&#{ord(c):04};" for c in SPECIAL),
    "html hex padded": "".join(f"&#x{ord(c):04X};" for c in SPECIAL),
    "html escape": html.escape(SPECIAL),
    "html escape without quotes": html.escape(SPECIAL, quote=False),
    "go html": html.escape(SPECIAL, quote=False).replace('"', "&#34;").replace("'", "&#39;"),
    "php html": html.escape(SPECIAL, quote=False).replace('"', "&quot;").replace("'", "&#039;"),
    "xml": html.escape(SPECIAL, quote=False).replace('"', "&quot;").replace("'", "&apos;"),
}


@pytest.mark.attack("RSP-08")
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_key_is_found_as_usual_frameworks_write_it(framework: str) -> None:
    text = f'{{"echo": "{FRAMEWORKS[framework]}"}}'.encode()
    with pytest.raises(LeakError):
        SecretPatterns([SPECIAL.encode()]).check(text)


LAYERS: Mapping[str, Callable[[bytes, Callable[[int], int]], bytes]] = {
    "percent, in part": lambda data, pick: _escaped(data, pick, "%{:02x}"),
    "percent": lambda data, pick: _escaped(data, pick, "%{:02X}"),
    "JSON": lambda data, pick: _escaped(data, pick, "\\u{:04X}"),
    "JSON strings": lambda data, _: json.dumps({"a": data.decode("latin-1")}).encode(),
    "HTML": lambda data, pick: _escaped(data, pick, "&#{};"),
    "XML": lambda data, pick: _escaped(data, pick, "&#x{:04X};"),
    "named": lambda data, _: html.escape(data.decode("latin-1")).encode("latin-1"),
    "base64": lambda data, pick: base64.b64encode(b"abc"[: pick(4)] + data),
    "base64url": lambda data, pick: base64.urlsafe_b64encode(b"abc"[: pick(4)] + data).rstrip(b"="),
    "base64 in lines": lambda data, pick: b"\r\n"[pick(2) :].join(_cut(base64.b64encode(data), 3 + pick(90))),
    "hex": lambda data, _: data.hex().encode(),
    "hex, apart": lambda data, pick: data.hex(":- \n"[pick(4)]).upper().encode(),
    "hex, marked": lambda data, pick: ", ".join(("0x%02x", "0X%02X")[pick(2)] % c for c in data).encode(),
    "quoted-printable": lambda data, _: quopri.encodestring(data),
    "gzip": lambda data, _: gzip.compress(data, mtime=0),
}


def _escaped(data: bytes, pick: Callable[[int], int], form: str) -> bytes:
    every = 1 + pick(4)
    return b"".join(form.format(c).encode() if at % every == 0 else bytes((c,)) for at, c in enumerate(data))


def _cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@settings(max_examples=600)
@given(st.lists(st.sampled_from(sorted(LAYERS)), max_size=3), st.randoms(use_true_random=False), st.binary(max_size=40))
def test_a_secret_is_found_under_any_three_layers(layers: list[str], random: Random, before: bytes) -> None:
    secret = "".join(random.choices(ALPHABET, k=random.randint(16, 60)))
    if weak(secret.encode()):
        return
    patterns = SecretPatterns([secret.encode()])
    data = b"<" + secret.encode() + b">"
    packed = False
    for layer in layers:
        if packed and "base64" not in layer:  # what is text cannot hold bytes
            return
        data = LAYERS[layer](data, random.randrange)
        packed = layer == "gzip"
    if packed:
        return  # as a body of its own it is inflated: below
    assert patterns.hit(before + b"\n" + data + b"\n" + before), (secret, data)


PACKED = gzip.compress(SECRET.encode(), mtime=0)
WITHIN = {
    "behind a decoy of gzip": b"\x1f\x8b\x08" + PACKED,
    "behind decoys of zlib": b"x\x9cx\xda" * 20 + zlib.compress(SECRET.encode()),
    "behind an empty member": gzip.compress(b"", mtime=0) + PACKED,
    "behind one that inflates to much": gzip.compress(b"0" * 100_000, mtime=0) + PACKED,
    **{f"zlib at level {level}": zlib.compress(SECRET.encode(), level) for level in (1, 5, 6, 9)},
    **{f"zlib of 2**{bits}": _windowed(SECRET.encode(), bits) for bits in range(9, 16)},
}


@pytest.mark.attack("RSP-08")
@pytest.mark.parametrize("form", WITHIN)
def test_what_is_compressed_within_a_body_is_looked_into_wherever_it_begins(form: str) -> None:
    first = base64.b64encode(gzip.compress(b"first", mtime=0))
    for data in (
        b"\xff\0 bytes " + WITHIN[form],
        base64.b64encode(b"more" + WITHIN[form]),
        b'{"a": "' + first + b'", "b": "' + base64.b64encode(WITHIN[form]) + b'"}',
    ):
        assert PATTERNS.hit(data), data


def test_a_view_full_of_beginnings_costs_no_more_than_some() -> None:
    short, long = (gzip.compress(b"0" * size, mtime=0) * 500 for size in (100, 7_000))
    assert [len(plain) for plain in inflated(short)] == [100] * 64
    assert sum(map(len, inflated(long))) == 4 * STEP


@settings(max_examples=300)
@given(st.lists(st.sampled_from(sorted(LAYERS)), max_size=2), st.randoms(use_true_random=False))
def test_a_secret_without_one_of_its_letters_is_not_found(layers: list[str], random: Random) -> None:
    at = random.choice([index for index, char in enumerate(SECRET) if index and char.isalnum()])
    data = f"<{SECRET[:at]}~{SECRET[at + 1 :]}>".encode()
    for layer in layers:
        data = LAYERS[layer](data, random.randrange)
    assert not PATTERNS.hit(data)


@settings(max_examples=200)
@given(st.sampled_from(sorted(CODERS)), st.integers(0, 2_000), st.lists(st.integers(0, 3_000), max_size=6))
def test_however_a_stream_is_cut_a_form_in_it_is_found(form: str, before: int, cuts: list[int]) -> None:
    coded = CODERS[form](SECRET)
    out = pour(Scrubber(PATTERNS), b"~" * before + b"\n" + coded + b"~" * 99, cuts)
    assert out.endswith(b"<cut>")
    assert coded not in out


@pytest.mark.parametrize(
    "secret", ["n" + SECRET, "a%41b%2541c\\u0041-&lt;=3D0123", "0x0x0x0x12ab12ab34cd", "\\n" * 9 + SECRET]
)
def test_a_secret_that_reads_as_an_escape_is_found_as_it_is_and_escaped(secret: str) -> None:
    patterns = SecretPatterns([secret.encode()])
    for said in (
        secret,
        json.dumps(f"C:\\{secret}"),
        quote(secret, safe=""),
        html.escape(secret),
        secret.encode().hex(),
    ):
        assert patterns.hit(f"x {said} y".encode()), said


def test_a_token_is_looked_for_beside_others() -> None:
    token = "eyJ0eXAi.eyJzdWIi.c2ln-c2lnbmF0dXJl"
    both = PATTERNS.beside(token.encode())
    for said in (token, quote(token), SECRET, CODERS["json-some"](token).decode()):
        assert both.hit(f"xx {said}".encode())
    assert not both.hit(token[:-1].encode())
    assert not both.hit(token[::-1].encode())
    assert not PATTERNS.hit(token.encode())
    assert both.keep == max(PATTERNS.keep, 16 * len(token))


LENGTHS = (12, 13, 14, 15, 16, 17, 22, 23, 24, 31, 39, 40, 47, 60)


@settings(max_examples=500)
@given(st.sampled_from(LENGTHS), st.data())
def test_the_search_by_words_finds_just_what_the_plain_search_finds(length: int, draw: st.DataObject) -> None:
    patterns = [(bytes(range(97, 123)) * 3)[start : start + length] for start in (0, 5, 9)]
    form = st.sampled_from(patterns)
    part = st.builds(lambda f, a, b: f[a : len(f) - b], form, st.integers(0, 3), st.integers(0, 3))
    data = b"".join(draw.draw(st.lists(st.one_of(st.binary(max_size=40), form, part), max_size=6)))
    assert WordSearch(patterns).hit(data) == any(pattern in data for pattern in patterns)


@pytest.mark.parametrize("secret", ["short", "sixteen bytes..", "-" * 20, "ab-cd-ef-gh-ij-k", ""])
def test_a_secret_that_stands_anywhere_by_chance_is_weak(secret: str) -> None:
    assert weak(secret.encode())
    assert not weak(f"{secret}0123456789ab!!!!".encode())


HEAD = response_head(b"HTTP/1.1 200 OK\r\nContent-Length: 5")
MEMBERS = {
    "gzip, gzip": gzip.compress(b"first") + gzip.compress(SECRET.encode()),
    "gzip, padding, gzip": gzip.compress(b"first") + b"\0" * 7 + gzip.compress(SECRET.encode()),
    "zlib, zlib": zlib.compress(b"first") + zlib.compress(SECRET.encode()),
    "zlib, gzip": zlib.compress(b"first") + gzip.compress(SECRET.encode()),
    "gzip, gzip, gzip": gzip.compress(b"") * 2 + gzip.compress(SECRET.encode()),
    **{f"zlib of 2**{bits}": _windowed(SECRET.encode(), bits) for bits in range(9, 16)},
}


@pytest.mark.attack("RSP-08")
@pytest.mark.parametrize("form", MEMBERS)
def test_an_unlabelled_stream_is_looked_into_wherever_it_is_cut(form: str) -> None:
    data = MEMBERS[form]
    for cut in range(len(data)):
        answer = ResponseBody(PATTERNS, ResponsePlan(*HEAD, has_body=True))
        with pytest.raises(LeakError):
            answer.feed(data[:cut], done=False) + answer.feed(data[cut:], done=True)


@pytest.mark.attack("RSP-08")
def test_a_labelled_stream_of_two_members_is_read_wherever_it_is_cut() -> None:
    data = gzip.compress(b"first") + gzip.compress(b"second")
    for cut in range(len(data)):
        assert _all(Inflated(Scrubber(PATTERNS), GZIP), [data[:cut], data[cut:]]) == b"firstsecond"
    for end in (b"x", b"xy", b"\x1f"):
        with pytest.raises(RemitError):
            _all(Inflated(Scrubber(PATTERNS), GZIP), [data, end])
    assert _all(Inflated(Scrubber(PATTERNS), GZIP), [data, b"\0", b"\0\0"]) == b"firstsecond"


def _all(inflated: Inflated, pieces: list[bytes]) -> bytes:
    out = b"".join(released for piece in pieces for released in inflated.steps(piece))
    return out + inflated.end()


def test_a_bomb_is_inflated_in_steps_and_members_are_all_read() -> None:
    data = gzip.compress(b"\0" * 5_000_000) + gzip.compress(b"end")
    biggest = total = 0
    inflated = Inflated(Scrubber(PATTERNS), GZIP)
    for piece in inflated.steps(data):
        biggest, total = max(biggest, len(piece)), total + len(piece)
    total += len(inflated.end())
    assert (total, biggest <= 600_000) == (5_000_003, True)
