"""Cedar text cut into its policies, so that each has a line of its own. Pure.

Cedar's parser says what is wrong, never where. A policy ends at a semicolon outside of strings and comments, whatever
is inside of it; so each can be read alone, and what is said of it belongs to its lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|;', re.DOTALL)
_BLANK = re.compile(r"(?:\s|//[^\n]*)*")
_QUOTED = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True, slots=True)
class Statement:
    """One policy as it was written. ``line`` is where it starts, from 1; ``whole`` unless its end is missing."""

    text: str
    line: int
    whole: bool = True

    def line_of(self, message: str) -> int:
        """Return the line that an error is about: where what it quotes stands, if that is in one place."""
        for quoted in _QUOTED.findall(message):
            found = [n for n, line in enumerate(self.text.splitlines()) if _holds(line, quoted)]
            if len(found) == 1:
                return self.line + found[0]
        return self.line


def _holds(line: str, quoted: str) -> bool:
    code = line.split("//", 1)[0]
    return re.search(rf"(?<![\w\"]){re.escape(quoted)}(?![\w\"])", code) is not None


def cut(text: str) -> Iterator[Statement]:
    """Yield the policies of a text in order; what follows the last semicolon comes as one that is not whole."""
    start = 0
    for token in _TOKEN.finditer(text):
        if token.group() == ";":
            yield _statement(text, start, token.end())
            start = token.end()
    if _begin(text, start) < len(text):
        yield _statement(text, start, len(text), whole=False)


def _begin(text: str, start: int) -> int:
    blank = _BLANK.match(text, start)
    return blank.end() if blank else start


def _statement(text: str, start: int, end: int, *, whole: bool = True) -> Statement:
    begin = _begin(text, start)
    return Statement(text[begin:end], text.count("\n", 0, begin) + 1, whole)
