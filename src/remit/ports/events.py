"""The events that receivers are told of (SSF): whoever has the log and the keys signs them, workers hand them over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct


class PendingEvent(Struct, frozen=True):
    """A security event token that a receiver has not acknowledged."""

    jti: str
    text: str


class EventPort(Protocol):
    """The ends of tasks as events, for each receiver that is configured, by its name; NotFoundError for any other."""

    async def pending_events(self, receiver: str, limit: int) -> Sequence[PendingEvent]:
        """Return the first events, signed, that a receiver has not acknowledged; 64 at most."""

    async def acknowledge_events(self, receiver: str, jtis: Sequence[str]) -> None:
        """Note that a receiver has these events; unknown ones are passed over."""

    async def event_keys(self) -> Sequence[Mapping[str, str]]:
        """Return the public JWKs that verify events."""
