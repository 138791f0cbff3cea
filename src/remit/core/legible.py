"""What people can tell apart by looking: text whose every character shows, and details one row a value. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from unicodedata import bidirectional, category

TYPED = "BCDFGHJKLMNPQRSTVWXZ"  # letters of what people type, RFC 8628 §6.1: no vowels, no words, no digits to mistake
MARKS = 4  # on one character, at most (UTS #39 §5.4)

# Default_Ignorable_Code_Point (UAX #44) and blanks that Python calls printable, whatever they are called elsewhere.
_HIDDEN = frozenset(
    {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x2800, 0x3164, 0xFFA0}
    | {*range(0xFE00, 0xFE10), *range(0x1BCA0, 0x1BCA4), *range(0x1D173, 0x1D17B), *range(0xE0000, 0xE1000)}
)

_LEFTWARD = frozenset({"R", "AL", "AN"})  # UAX #9


def shows(char: str) -> bool:
    """Whether a character is one that people see, or a space."""
    return char.isprintable() and ord(char) not in _HIDDEN


def is_legible(text: str) -> bool:
    """Whether all of a text shows, and no marks pile up in it."""
    return escaped(text) == text


def escaped(text: str, keep: str = "") -> str:
    """Return text with each character that does not show as an escape; ``keep`` is left as it is."""
    if text.isascii() and text.isprintable():
        return text
    shown, marks = [], 0
    for char in text:
        marks = marks + 1 if category(char) in {"Mn", "Me"} else 0
        plain = (shows(char) and marks <= MARKS) or char in keep
        shown.append(char if plain else _escape(char))
    return "".join(shown)


def _escape(char: str) -> str:
    if char.isascii():
        return f"\\x{ord(char):02x}"
    return f"\\u{ord(char):04x}" if char <= "\uffff" else f"\\U{ord(char):08x}"


def written(value: object) -> str:
    """Write a value as JSON, so that no two look the same; the widest items of a list first."""
    return _exact(sorted(value, key=_narrow) if isinstance(value, list) else value)


def _exact(value: object) -> str:
    """Write a value as JSON, and once more in ASCII where letters from right to left move what is around them."""
    text = escaped(json.dumps(value, ensure_ascii=False))
    return text if _LEFTWARD.isdisjoint(map(bidirectional, text)) else f"{text} = {json.dumps(value)}"


def rows(detail: Mapping[str, object]) -> Iterator[tuple[str, str, object]]:
    """Yield the members of a detail: name, key, value. One with keys has a row for each, the widest first."""
    for name, value in detail.items():
        if name in {"type", "resource"}:
            continue
        if not isinstance(value, Mapping) or not value:
            yield name, "", value
            continue
        for key in sorted(value, key=lambda key: _narrow(value[key])):
            yield name, _exact(key), value[key]


def _narrow(value: object) -> bool:
    """Whether a value is not one that takes in whatever there is; what does comes first."""
    return not (isinstance(value, str) and (value == "any" or "**" in value))
