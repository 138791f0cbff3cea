"""Find seeded secrets in whatever came out, in listed encodings. Independent of the gateway's own scrubber."""

from __future__ import annotations

import base64
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from types import MappingProxyType
from urllib.parse import quote

_ROT13 = str.maketrans(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", "NOPQRSTUVWXYZABCDEFGHIJKLMnopqrstuvwxyzabcdefghijklm"
)
_MAX_INFLATED = 1 << 22
_SEPARATORS = re.compile(rb"[\s.,;:|/\\-]+")


def _each(form: str) -> Callable[[str], bytes]:
    return lambda secret: "".join(form.format(ord(char)) for char in secret).encode()


SPELLINGS: Mapping[str, Callable[[str], bytes]] = MappingProxyType(
    {
        "plain": str.encode,
        "reversed": lambda secret: secret[::-1].encode(),
        "hex": lambda secret: secret.encode().hex().encode(),
        "hex-upper": lambda secret: secret.encode().hex().upper().encode(),
        "base64": lambda secret: base64.b64encode(secret.encode()),
        "base64url": lambda secret: base64.urlsafe_b64encode(secret.encode()),
        "percent": _each("%{:02X}"),
        "html-decimal": _each("&#{};"),
        "html-hex": _each("&#x{:x};"),
        "json": _each("\\u{:04x}"),
        "rot13": lambda secret: secret.translate(_ROT13).encode(),
        "utf-16-le": lambda secret: secret.encode("utf-16-le"),
        "utf-16-be": lambda secret: secret.encode("utf-16-be"),
        "separated": lambda secret: "-".join(secret).encode(),
        "gzip": lambda secret: gzip.compress(secret.encode(), mtime=0),
        "deflate": lambda secret: zlib.compress(secret.encode()),
    }
)
ENCODINGS = tuple(name for name in SPELLINGS if name != "separated")  # what the gateway lists; the scan knows more


def encode(secret: str, encoding: str) -> bytes:
    """Return a secret as an attacker would hide it."""
    return SPELLINGS[encoding](secret)


def needles(secret: str) -> Iterator[bytes]:
    """Yield every spelling of a secret that survives being embedded in other text."""
    raw = secret.encode()
    yield from (spell(secret) for name, spell in SPELLINGS.items() if name not in {"separated", "gzip", "deflate"})
    yield _each("%{:02x}")(secret)
    yield quote(secret, safe="").encode()
    yield json.dumps(secret)[1:-1].encode()
    for shift in range(3):  # base64 of something that holds the secret, at each alignment
        for encoder in (base64.b64encode, base64.urlsafe_b64encode):
            whole = encoder(b"\0" * shift + raw)
            end = len(whole) - 4 if (shift + len(raw)) % 3 else len(whole)
            yield whole[(0, 2, 3)[shift] : end]


def _inflated(text: bytes) -> Iterator[bytes]:
    """Yield what compressed parts of a text hold, if it is or contains any."""
    for magic, window in ((b"\x1f\x8b", 31), (b"\x78\x9c", 15)):
        start = text.find(magic)
        while start >= 0:
            with suppress(zlib.error):
                yield zlib.decompressobj(window).decompress(text[start:], _MAX_INFLATED)
            start = text.find(magic, start + 1)


def leaked(secrets: Mapping[str, str], outputs: Iterable[bytes]) -> dict[str, int]:
    """Return for each leaked secret's name in how many outputs it was found."""
    spelled = {name: tuple(needles(secret)) for name, secret in secrets.items()}
    bare = {name: _SEPARATORS.sub(b"", secret.encode()) for name, secret in secrets.items()}
    found: dict[str, int] = {}
    for output in outputs:
        texts = [text for said in _latin(output) for text in (said, *_inflated(said))]
        joined = _SEPARATORS.sub(b"", output)
        for name, spellings in spelled.items():
            if bare[name] in joined or any(spelling in text for text in texts for spelling in spellings):
                found[name] = found.get(name, 0) + 1
    return found


def _latin(text: bytes) -> Iterator[bytes]:
    """Yield a text, and what the lines of JSON in it say once they are read."""
    yield text
    for line in text.splitlines():
        if line.startswith((b"{", b"[")):
            try:
                said = json.loads(line)
            except ValueError:
                continue
            yield "\0".join(_strings(said)).encode("latin-1", "replace")


def _strings(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            yield from (text for pair in value.items() for item in pair for text in _strings(item))
        case list():
            yield from (text for item in value for text in _strings(item))
