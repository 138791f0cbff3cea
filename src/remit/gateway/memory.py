"""What was made of bytes that may come again, as large as a caller can make it and no larger. Pure."""

from __future__ import annotations

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")

ONE = 4_096  # bytes of a key: what is longer is not kept
ALL = 65_536  # bytes of all keys; what they stand for is a few times as large
_ENTRY = 128  # bytes that a key counts for at least


class Memory(dict[K, V]):
    """What is known by its key, forgotten at one go where it grows too large."""

    __slots__ = ("_size",)

    def __init__(self) -> None:
        """Start empty."""
        super().__init__()
        self._size = 0

    def keep(self, key: K, size: int, value: V) -> None:
        """Keep ``value``, whose key has ``size`` bytes."""
        if size > ONE:
            return
        self._size += size + _ENTRY
        if self._size > ALL:
            self.clear()
            self._size = size + _ENTRY
        self[key] = value
