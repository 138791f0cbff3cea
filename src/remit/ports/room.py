"""What the edges need of whoever counts descriptors."""

from __future__ import annotations

from typing import Protocol


class Share(Protocol):
    """What one task may have open."""

    def take(self, count: int = 1) -> bool:
        """Take ``count`` descriptors, if the task may have them."""
        ...

    def give(self, count: int = 1) -> None:
        """Give them back."""
        ...
