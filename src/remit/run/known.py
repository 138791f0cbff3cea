"""A run as the authority knows it, and as it is kept on record."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Literal

from remit.core.principal import Holder
from remit.core.secret import WHOLE, Secret
from remit.core.task import Report
from remit.ports.runs import KeptRun, Places, RunPort, RunReach
from remit.run.environment import RunProvisioning


@dataclass(eq=False, slots=True)
class KnownRun:
    """A run from its offer to its end."""

    id: str
    holder: Holder
    made: Literal["task", "grant"] | None  # for it, to be ended with it
    given: RunProvisioning
    within: KnownRun | None
    around: tuple[str, ...]  # how the runs around it are isolated, and it itself
    handover: str  # the socket of its edge, to which the launcher of the outermost run around it comes
    until: datetime  # when it ends unless it is served
    ticket: bytes = b""  # SHA-256; it counts while nobody serves the run
    reach: RunReach | None = None
    edge: RunPort | None = None  # that serves it
    places: Places | None = None  # where it listens; None: it was never served
    rev: int = 0
    keeping: asyncio.Lock = field(default_factory=asyncio.Lock)  # while it is put on record
    ending: asyncio.Task[Report] | None = None

    @property
    def inside(self) -> str | None:
        """The task inside whose runs it was launched."""
        return None if self.within is None else self.within.holder.task

    @property
    def live(self) -> bool:
        return self.edge is not None and self.ending is None


def to_keep(run: KnownRun, ticket: bytes) -> KeptRun:
    whose = (run.holder.task, run.holder.grant, run.made, None if run.within is None else run.within.id)
    given = (run.given.listeners, run.given.placeholders, run.places or {})
    return KeptRun(run.id, run.rev + 1, *whose, run.around, run.handover, *given, ticket, run.reach)


def digest(ticket: Secret) -> bytes:
    return sha256(ticket.parts().get(WHOLE, b"")).digest()
