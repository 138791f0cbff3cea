"""Text of others on a terminal. Pure."""

from __future__ import annotations


def escaped(text: str) -> str:
    """Return text without control characters: what an agent wrote must not drive a terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
