"""Configuration of other programs as text: each value with its place, so that one is changed and all else stays. Pure.

JSON with comments and trailing commas, as editors have it, and the assignments of a ``.env`` file. TOML is read by
``tomllib``, and changed where a pattern finds what is meant: whoever changes a text reads it anew and compares.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from remit.errors import InvalidRequestError

MAX_DEPTH = 64
_SPACE = re.compile(r"(?:[ \t\r\n\ufeff]|//[^\n]*|/\*(?:[^*]|\*(?!/))*+\*/)*+")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*+"')
_SCALAR = re.compile(r"-?\d[\d.eE+-]*+|true|false|null")
_ASSIGNMENT = re.compile(
    r"""^\ufeff?[ \t]*(?:export[ \t]+)?([A-Za-z_]\w{0,127})[ \t]*=[ \t]*("(?:[^"\\]|\\.)*+"|'[^']*+'|[^\r\n]*)""",
    re.MULTILINE | re.DOTALL | re.ASCII,
)
_REMARK = re.compile(r"(?:^|\s)#")


@dataclass(frozen=True, slots=True)
class Placed:
    """A value of a document, from ``start`` to ``end``; a member of an object knows where it begins, and its comma."""

    start: int
    end: int
    value: dict[str, Placed] | list[Placed] | str | float | bool | None
    begins: int = -1
    comma: int = -1

    def plain(self) -> object:
        """Return the value as ``json.loads`` does."""
        match self.value:
            case dict() as members:
                return {name: each.plain() for name, each in members.items()}
            case list() as items:
                return [each.plain() for each in items]
            case scalar:
                return scalar


@dataclass(frozen=True, slots=True)
class Edit:
    """``text`` in place of what stands from ``start`` to ``end``."""

    start: int
    end: int
    text: str


def edited(text: str, edits: Iterable[Edit]) -> str:
    """Return a text with its edits, none of which overlap."""
    parts, at = [], 0
    for edit in sorted(edits, key=lambda edit: (edit.start, edit.end)):
        if edit.start < at:
            raise ValueError("edits overlap")
        parts += [text[at : edit.start], edit.text]
        at = edit.end
    return "".join([*parts, text[at:]])


def line_of(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def read_json(text: str) -> Placed:
    """Read JSON with comments and trailing commas, or raise InvalidRequestError; a name twice is refused."""
    reader = _JsonReader(text)
    found = reader.value(0)
    reader.blank()
    if reader.at != len(text):
        raise reader.refusal()
    return found


class _JsonReader:
    def __init__(self, text: str) -> None:
        self._text, self.at = text, 0

    def refusal(self) -> InvalidRequestError:
        return InvalidRequestError(f"line {line_of(self._text, self.at)} is no JSON")

    def blank(self) -> str:
        """Go on to what means something; return its first character."""
        self.at = _SPACE.match(self._text, self.at).end()  # type: ignore[union-attr]  # it matches nothing, too
        return self._text[self.at : self.at + 1]

    def _took(self, char: str) -> bool:
        if self.blank() != char:
            return False
        self.at += 1
        return True

    def _scalar(self, pattern: re.Pattern[str]) -> Any:
        found = pattern.match(self._text, self.at)
        try:
            value = json.loads(found[0] if found else "")
        except ValueError:
            raise self.refusal() from None
        self.at += len(found[0]) if found else 0
        return value

    def value(self, depth: int) -> Placed:
        first, start = self.blank(), self.at
        if depth > MAX_DEPTH:
            raise self.refusal()
        match first:
            case "{":
                found: dict[str, Placed] | list[Placed] | str | float | bool | None = self._members(depth)
            case "[":
                found = self._items(depth)
            case _:
                found = self._scalar(_STRING if first == '"' else _SCALAR)
        return Placed(start, self.at, found)

    def _members(self, depth: int) -> dict[str, Placed]:
        found: dict[str, Placed] = {}
        self.at += 1
        while not self._took("}"):
            self.blank()
            begins = self.at
            name = self._scalar(_STRING)
            if name in found or not self._took(":"):
                raise self.refusal()
            value = self.value(depth + 1)
            comma = self.at - 1 if self._took(",") else -1
            if comma < 0 and self.blank() != "}":
                raise self.refusal()
            found[name] = Placed(value.start, value.end, value.value, begins, comma)
        return found

    def _items(self, depth: int) -> list[Placed]:
        found = []
        self.at += 1
        while not self._took("]"):
            found.append(self.value(depth + 1))
            if not self._took(",") and self.blank() != "]":
                raise self.refusal()
        return found


def without_members(members: dict[str, Placed], gone: Sequence[str]) -> Iterator[Edit]:
    """Yield what takes members out of an object; comments between them stay, and no comma before its end is new."""
    for member in (members[name] for name in gone):
        yield Edit(member.begins, member.end, "")
        if member.comma >= 0:
            yield Edit(member.comma, member.comma + 1, "")
    left = [members[name] for name in members if name not in gone]
    if left and next(reversed(members.values())).comma < 0 <= left[-1].comma:
        yield Edit(left[-1].comma, left[-1].comma + 1, "")


@dataclass(frozen=True, slots=True)
class Assignment:
    """``NAME=value`` of a ``.env`` file; from ``start`` to ``end`` is the value as it is written, with its quotes."""

    name: str
    value: str
    start: int
    end: int


def assignments(text: str) -> Iterator[Assignment]:
    """Yield what a ``.env`` file assigns."""
    for found in _ASSIGNMENT.finditer(text):
        name, raw = found.groups()
        if raw[:1] in {'"', "'"} and raw[-1:] == raw[:1] and len(raw) > 1:
            yield Assignment(name, raw[1:-1], *found.span(2))
        else:
            value = _REMARK.split(raw, 1)[0].rstrip()
            yield Assignment(name, value, found.start(2), found.start(2) + len(value))
