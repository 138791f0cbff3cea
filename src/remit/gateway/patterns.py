"""What may not be repeated, and the search for it: whole, under any layers of the listed encodings. Pure.

Bytes are decoded and searched, not compared with spellings of a secret: a spelling can be any of billions. Whole
secrets alone are found: matching parts would turn the search into an oracle that gives the secret away.
"""

from __future__ import annotations

import base64
import codecs
import sys
from collections.abc import Iterable, Iterator

from remit.errors import UpstreamError
from remit.gateway.encodings import (
    BLANK_LETTERS,
    blanked,
    has_text,
    inflated,
    letters,
    undone,
    unescaped,
)

SHORTEST = 16  # bytes of a secret that can be looked for
LEAST = 12  # letters and digits in it
NESTED = 3  # layers of encoding that are undone
MAX_WORK = 48  # times the size of what is searched, and a little more, that all its layers may have
_LITTLE = 4_096  # bytes
_WORD = 8
_LONG = 2 * _WORD - 1  # letters of a pattern that holds a whole aligned word wherever it begins
_STRIDE = 32  # letters from one word that is looked at to the next, at most
_STRETCH = 16  # bytes that one of a secret may take in a stream
_STRETCHED = 4_096  # bytes that a secret may take in a stream, if it is short


class LeakError(UpstreamError):
    """the answer repeated the credential, so it was withheld"""  # noqa: D400 - the message


class TangledError(UpstreamError):
    """too many encodings lie inside each other to be looked into"""  # noqa: D400 - the message


def weak(secret: bytes) -> bool:
    """Whether a secret is so short that it stands in a text by chance, and cannot be looked for."""
    return len(secret) < SHORTEST or len(letters(secret)) < LEAST


def _written(secret: bytes) -> Iterator[bytes]:
    """Yield the letters of a secret in the forms that are looked for in each layer.

    A secret may hold what reads as an escape, which is then undone in it as well.
    """
    for _ in range(NESTED + 1):
        bare = letters(secret)
        yield bare
        if bare[:1] in BLANK_LETTERS:  # behind a backslash it reads as a blank
            yield bare[1:]
        yield bare[::-1]
        yield codecs.encode(bare.decode(), "rot13").encode()
        yield secret.hex().encode()
        for before, start in enumerate((0, 2, 3)):  # base64 at each alignment, without what depends on its neighbours
            coded = base64.b64encode(b"\0" * before + secret)
            over = (before + len(secret)) % 3
            yield letters(coded[start : len(coded) - (4 - over if over else 0)])
        plain = unescaped(blanked(secret))
        if plain == secret:
            return
        secret = plain


class WordSearch:
    """Patterns of letters, found by words of eight bytes.

    A pattern of n bytes, wherever it begins, covers a whole word at some multiple of every stride up to n - 7. So a
    look at those words alone, in one set operation, is enough to know that none of the long patterns is there.
    """

    __slots__ = ("_of", "_short", "_stride", "_words")

    def __init__(self, patterns: Iterable[bytes]) -> None:
        every = frozenset(pattern for pattern in patterns if len(pattern) >= LEAST)
        long = [pattern for pattern in every if len(pattern) >= _LONG]
        self._short = tuple(every.difference(long))
        shortest = min(map(len, long), default=0)
        self._stride = min((shortest - _WORD + 1) // _WORD * _WORD, _STRIDE) if long else 0
        self._of: dict[int, list[bytes]] = {}
        for pattern in long:
            for at in range(min(self._stride, len(pattern) - _WORD + 1)):
                self._of.setdefault(int.from_bytes(pattern[at : at + _WORD], sys.byteorder), []).append(pattern)
        self._words = frozenset(self._of)

    def hit(self, bare: bytes) -> bool:
        for pattern in self._short:
            if pattern in bare:
                return True
        if not self._stride:
            return False
        words = memoryview(bare)[: len(bare) & -_WORD].cast("Q")[:: self._stride // _WORD]
        found = self._words.intersection(words.tolist())  # as long whatever is found, or that would tell
        return bool(found) and any(pattern in bare for word in found for pattern in self._of[word])


class SecretPatterns:
    """Secrets to be looked for. ``keep`` bytes are held back in a stream, a constant of the secrets' lengths."""

    __slots__ = ("_searches", "keep", "multiline")

    def __init__(self, secrets: Iterable[bytes]) -> None:
        secrets = tuple(secrets)
        self._searches: tuple[WordSearch, ...] = (WordSearch(p for secret in secrets for p in _written(secret)),)
        self.keep = max(map(_kept, secrets), default=0)
        self.multiline = any(b"\n" in secret for secret in secrets)

    def beside(self, token: bytes) -> SecretPatterns:
        """Return these and a token, looked for as it is in each layer, without all patterns being made anew."""
        found = SecretPatterns(())
        found._searches = (*self._searches, WordSearch((letters(token),)))
        found.keep = max(self.keep, _kept(token))
        found.multiline = self.multiline
        return found

    def check(self, data: bytes) -> int:
        """Return how many bytes all layers of ``data`` have, or raise LeakError, or TangledError for too many."""
        seen, most = 0, MAX_WORK * (_LITTLE + len(data))
        views = [data]
        for depth in range(NESTED + 1):
            below: list[bytes] = []
            for view in views:
                seen += len(view)
                if seen > most:
                    raise TangledError
                if depth < NESTED and not view.isascii():
                    below += inflated(view)
                if has_text(view):
                    text = blanked(view)
                    bare = letters(text)
                    for search in self._searches:
                        if search.hit(bare):
                            raise LeakError
                    if depth < NESTED:
                        below += undone(text, bare)
            if not below:
                break
            views = below
        return seen

    def hit(self, data: bytes) -> bool:
        try:
            self.check(data)
        except LeakError:
            return True
        return False


def _kept(secret: bytes) -> int:
    return min(_STRETCH * len(secret), max(_STRETCHED, 3 * len(secret)))
