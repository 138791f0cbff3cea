"""Public: contracts that implementations of the ports must pass."""

from __future__ import annotations

from collections.abc import Awaitable

from remit.errors import RemitError


async def raises(kind: type[RemitError], work: Awaitable[object]) -> None:
    """Fail unless awaiting raises ``kind``."""
    try:
        await work
    except kind:
        return
    msg = f"{kind.__name__} was not raised"
    raise AssertionError(msg)
