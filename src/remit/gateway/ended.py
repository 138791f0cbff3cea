"""Grants that ended lately: nothing is begun under them, and nothing more is written."""

from __future__ import annotations

from collections.abc import Collection

KEPT = 60.0  # seconds for which the mark of an end is kept at least: a permit on its way has arrived long before


class EndedGrants:
    """Grants that ended lately, as another thread marks them and the loop looks them up.

    INVARIANT: the loop makes known what it is about to write to, then looks for a mark, then writes. The thread marks,
    then looks at what is known. So whatever the loop writes after a mark is refused, or its connection is shut.
    """

    def __init__(self) -> None:
        self._marked, self._before = set[str](), set[str]()
        self._since = 0.0

    def mark(self, grants: Collection[str]) -> None:
        """Take note of ends; in any thread."""
        self._marked.update(grants)

    def __contains__(self, grant_id: object) -> bool:
        return grant_id in self._marked or grant_id in self._before

    def sweep(self, now: float) -> None:
        """Forget what ended long ago; ``now`` is in seconds."""
        if now - self._since > KEPT:
            self._since = now
            self._before, self._marked = self._marked, set()
