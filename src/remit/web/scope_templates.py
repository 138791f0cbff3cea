"""Names in ``scope`` (RFC 6749 §3.3) and what they stand for, as an operator wrote it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from remit.core.scope import Scope


@dataclass(frozen=True, slots=True)
class ScopeTemplate:
    """What a name in ``scope`` stands for, as an operator wrote it: what a client asks for that knows no details."""

    name: str
    details: Scope
    purpose: str  # where the client says none
    title: str = ""  # for people
    ttl: int | None = None  # seconds, where the client says nothing
    clients: tuple[str, ...] = ()  # who may ask: ids, and patterns of workloads; empty: whoever asks

    @property
    def resources(self) -> frozenset[str]:
        return frozenset(detail.resource for detail in self.details)


Templates = Mapping[str, ScopeTemplate]  # by name


def of_resource(name: str, templates: Templates) -> Sequence[ScopeTemplate]:
    """Return what can be asked for at one resource alone; that of its own name first."""
    found = [one for one in templates.values() if one.resources == {name}]
    return sorted(found, key=lambda one: one.name != name)
