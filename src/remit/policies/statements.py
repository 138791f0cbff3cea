"""Cedar text cut into its policies, so that each has a line of its own. Pure.

Cedar's parser says what is wrong, never where. A policy ends at a semicolon outside of strings and comments, whatever
is inside of it; so each can be read alone, and what is said of it belongs to its lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

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
            alone = re.compile(rf"(?<![\w\"]){re.escape(quoted)}(?![\w\"])")
            found = [n for n, line in enumerate(self.text.splitlines()) if alone.search(line.split("//", 1)[0])]
            if len(found) == 1:
                return self.line + found[0]
        return self.line


def cut(text: str) -> Iterator[Statement]:
    """Yield the policies of a text in order; what follows the last semicolon comes as one that is not whole."""
    ends = [token.end() for token in _TOKEN.finditer(text) if token.group() == ";"]
    for number, (start, end) in enumerate(pairwise([0, *ends, len(text)])):
        blank = _BLANK.match(text, start)
        begin = blank.end() if blank else start
        if begin < end:
            yield Statement(text[begin:end], text.count("\n", 0, begin) + 1, whole=number < len(ends))
