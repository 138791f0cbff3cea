"""What is issued and used in the broker's tests; read at once, so only where the kinds of resource are known."""

from __future__ import annotations

from tests.broker.world import TABLE, details

DETAIL = details(TABLE)[0]
