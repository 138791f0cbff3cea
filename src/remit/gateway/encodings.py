"""What bytes say once a layer of encoding is undone, in any spelling of it. Pure.

A view is undone as a whole, by what the interpreter does in C, whichever of its characters are escaped; so what an
encoding costs hangs on the size of the view and not on how it was spelled. What is no escape stays as it is.
"""

from __future__ import annotations

import binascii
import re
import zlib
from collections.abc import Iterator
from contextlib import suppress
from html.entities import html5
from itertools import islice

STEP = 8_192  # bytes that are looked at, or inflated, at a time
_UPPER, _LOWER, _DIGITS = bytes(range(65, 91)), bytes(range(97, 123)), bytes(range(48, 58))
_ALPHANUMERIC = _UPPER + _LOWER + _DIGITS
_FOLDED = bytes.maketrans(_UPPER, _LOWER)
_OTHERS = bytes(set(range(256)) - set(_ALPHANUMERIC))

# Of JSON and JavaScript. `\"`, `\\` and `\/` need nothing: a backslash is no letter.
_BLANKS = ((rb"\n", b"\n"), (rb"\r", b"\n"), (rb"\t", b"\t"))
BLANK_LETTERS = b"nrt"
# What stands before two digits there, in Rust, Python and Perl, the longest first; a brace behind is no letter.
_MARKS_OF_HEX = (rb"\u00", rb"\u{0000", rb"\u{00", rb"\u{", rb"\x{", rb"\x", rb"\U000000")
_ENTITY = re.compile(rb"&(?:#[xX]0*([0-9A-Fa-f]{2})|#0*([0-9]{2,3})|([A-Za-z]{2,24}));?")
_NAMED = {name.rstrip(";").encode(): text.encode() for name, text in html5.items() if text.isascii() and len(text) == 1}
# `a2b_qp` undoes `=41`, and does so with other marks in the place of `=`; a CR would have it leave out a line.
_KEPT = bytes.maketrans(b"=\r", b"\0\n")
_KEPT_BUT_PERCENT = bytes.maketrans(b"=%\r", b"\0=\n")
_BACK = bytes.maketrans(b"\0=", b"=%")  # a mark that is none was a percent sign, or is made one
_NO_CR = bytes.maketrans(b"\r", b"\n")

_BREAKS = b"\r\n"
_SHORTEST_BASE64 = 22  # characters that hold 16 bytes
# One pass tells whether there may be an escape in a view, or base64: most answers have neither.
_MARKS, _MARKED = b"\\&%=", b"%"
_CLASSES = bytes(37 if c in _MARKS else 97 if c in _ALPHANUMERIC + b"+/-_" + _BREAKS else 32 for c in range(256))
_BASE64_CLASS_RUN = b"a" * _SHORTEST_BASE64
_PADDED_CLASS_RUNS = (b"aa%%" * 16, b"aaa%" * 8)  # a byte, or two, at a time
_BASE64_ALPHABET = bytes({45: 43, 95: 47, 61: 65}.get(c, c if c in _ALPHANUMERIC + b"+/" else 32) for c in range(256))
_BASE64_RUN = re.compile(rb" ([^ ]{%d,})" % _SHORTEST_BASE64)
_SHORTEST_HEX = 32  # digits that hold 16 bytes
_HEX_CLASS = bytes(97 if c in _DIGITS + _LOWER[:6] + b"x" else 32 for c in range(256))  # `0x` marks a number
_HEX_CLASS_RUN = b"a" * _SHORTEST_HEX
_HEX_RUN = re.compile(rb"[0-9a-f]{%d,}" % _SHORTEST_HEX)
# `hexdump -C`, `xxd`, `od -t x1`: an offset, 16 bytes in groups, and often the text.
_DUMPED = re.compile(
    rb"\n[ \t]*[0-9A-Fa-f]{4,16}:?[ \t]+((?:[0-9A-Fa-f]{2}){1,4}(?:[ \t]{1,2}(?:[0-9A-Fa-f]{2}){1,4}){0,15})"
)
_DUMPED_DIGITS = 32  # of a line
# A secret is printable, and so is what it is spelled by; as UTF-16 it has NULs in between.
_TEXT_CLASS = bytes(97 if 32 <= c < 127 or c in b"\0\t\r\n" else 32 for c in range(256))  # noqa: PLR2004 - ASCII
_TEXT_CLASS_RUN = b"a" * 16
# RFC 1950 §2.2: deflate with a window of up to 32 KiB, no dictionary, and a check of both bytes
ZLIB = frozenset(
    bytes((cmf, flg))
    for cmf in range(0x08, 0x80, 0x10)
    for flg in range(256)
    if (cmf * 256 + flg) % 31 == 0 and not flg & 0x20
)
# gzip and zlib by two bytes; one look at what each of them can be leaves few places.
_BEGINNINGS = ZLIB | {b"\x1f\x8b"}
_FIRST, _SECOND = map(bytes, zip(*_BEGINNINGS, strict=True))
_BEGINNING_CLASS = bytes(97 if c in _FIRST else 98 if c in _SECOND else 32 for c in range(256))
_BEGINNING = re.compile(b"ab")
_MOST_BEGINNINGS = 64  # that are tried in one view
_MOST_INFLATED = 4 * STEP  # bytes, of all of them


def letters(view: bytes) -> bytes:
    """Return letters and digits alone, in lower case: what stays the same whatever stands between them.

    So a text is found however it is broken into lines and groups, base64 in both alphabets, hexadecimal in both cases.
    """
    return view.translate(_FOLDED, _OTHERS)


def blanked(view: bytes) -> bytes:
    """Return a view with blanks where JSON writes them as escapes, so that what stands on both sides meets."""
    if b"\\" in view:
        for escape, blank in _BLANKS:
            view = view.replace(escape, blank)
    return view


def has_text(view: bytes) -> bool:
    """Whether a secret, or what it is spelled by, can be in a view that is no text as a whole: printable characters."""
    return view.isascii() or _TEXT_CLASS_RUN in view.translate(_TEXT_CLASS)


def unescaped(view: bytes) -> bytes:
    """Undo one layer of percent, JSON, JavaScript, HTML and XML escapes, whichever characters they stand for."""
    if b"\\" in view and (marks := [mark for mark in _MARKS_OF_HEX if mark in view]):
        view = view.translate(_KEPT)
        for mark in marks:
            view = view.replace(mark, b"=")
        view = _unmarked(view)
    if b"&" in view:
        view = _ENTITY.sub(_entity, view)
    if b"%" in view:
        view = _unmarked(view.replace(b"%u00", b"%").translate(_KEPT_BUT_PERCENT))
    return view


def _unmarked(marked: bytes) -> bytes:
    """Undo `=` with two digits behind it, also where one that is no escape stands in front of one that is."""
    while b"==" in marked:
        marked = marked.replace(b"==", b"=3D=")
    return binascii.a2b_qp(marked).translate(_BACK)


def _entity(found: re.Match[bytes]) -> bytes:
    in_hex, decimal, name = found.groups()
    if name is not None:
        return _NAMED.get(name, found[0])
    code = int(in_hex, 16) if decimal is None else int(decimal)
    return bytes((code,)) if code < 256 else found[0]  # noqa: PLR2004 - a byte


def undone(view: bytes, bare: bytes) -> list[bytes]:
    """Return what a view says with one layer of an encoding undone; ``bare`` are its letters."""
    classes = view.translate(_CLASSES)
    found, padded = [], False
    if _MARKED in classes:
        found.append(unescaped(view))
        if b"=" in view:
            found.append(binascii.a2b_qp(view.translate(_NO_CR)))
            padded = any(run in classes for run in _PADDED_CLASS_RUNS)
        found = [plain for plain in found if plain != view]
    if _BASE64_CLASS_RUN in classes or padded:
        found += _from_base64(view)
    if _HEX_CLASS_RUN in bare.translate(_HEX_CLASS):
        joined = b"".join(run + b"0" * (len(run) % 2) for run in _HEX_RUN.findall(bare.replace(b"0x", b"")))
        found += (binascii.unhexlify(joined), binascii.unhexlify(joined[1:-1]))
    lines = _DUMPED.findall(b"\n" + view) if b"\n" in view else ()
    if len(lines) > 1:
        found.append(b"".join(line.translate(None, b" \t")[:_DUMPED_DIGITS] for line in lines))
    return found


def _from_base64(view: bytes) -> Iterator[bytes]:
    """Yield what the runs of base64 in a view hold, wherever in a run it begins: all of them at each alignment."""
    runs = _BASE64_RUN.findall(b" " + view.translate(_BASE64_ALPHABET, _BREAKS))
    joined = b"".join(run + b"A" * (-len(run) % 4) for run in runs)
    for at in range(4):
        yield binascii.a2b_base64(joined[at : len(joined) - -at % 4])


def inflated(view: bytes) -> list[bytes]:
    """Return the beginnings of what is compressed in a view, wherever that begins."""
    with suppress(UnicodeDecodeError):
        view.decode()
        return []  # it is text: nothing compressed is
    found, left = [], _MOST_INFLATED
    places = (each.start() for each in _BEGINNING.finditer(view.translate(_BEGINNING_CLASS)))
    for start in islice((at for at in places if view[at : at + 2] in _BEGINNINGS), _MOST_BEGINNINGS):
        with suppress(zlib.error):
            found.append(zlib.decompressobj(47).decompress(view[start:], min(STEP, left)))
            left -= len(found[-1])
        if not left:
            break
    return found
