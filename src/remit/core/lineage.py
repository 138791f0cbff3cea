"""A grant with its place in the task: whose it is, what for, and the grants above it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from remit.core.grant import Grant, Subject
from remit.core.principal import Holder


@dataclass(frozen=True, slots=True)
class Ancestor:
    """One step of a lineage."""

    grant: str
    agent: str
    attested: bool
    label: str


@dataclass(frozen=True, slots=True)
class GrantView:
    """A grant with what its task says of it. ``lineage`` is root first and ends with the grant itself."""

    grant: Grant
    task: str
    subject: Subject
    purpose: str
    lineage: tuple[Ancestor, ...]

    @property
    def id(self) -> str:
        """The id of the grant."""
        return self.grant.id

    @property
    def holder(self) -> Holder:
        """Whoever holds the grant, by a channel."""
        return Holder(self.task, self.grant.id)
