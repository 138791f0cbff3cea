"""Audit: events, their Merkle tree (RFC 9162), signed checkpoints (C2SP tlog-checkpoint) and proofs. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, before it has a place in the log. Digests, never arguments or secrets."""

    event: str  # noun.verb: task.open, grant.delegate, lease.issue, resource.use, ...
    at: datetime
    decision: str  # allow | deny | done | failed
    task: str | None = None
    grant: str | None = None
    lineage: tuple[str, ...] = ()  # grant ids, root first
    subject: str | None = None
    agent: str | None = None
    attested: bool = False
    resource: str | None = None
    action: str | None = None
    code: str | None = None  # error code of a denial or failure
    request: str | None = None  # correlation id
    cause: str | None = None
    detail_s256: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """An event at its place: ``seq`` counts from 0; ``leaf`` is its canonical JSON, exactly as hashed."""

    seq: int
    leaf: bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A signed tree head. ``text`` is the C2SP signed note."""

    origin: str
    size: int
    root: bytes
    text: str
