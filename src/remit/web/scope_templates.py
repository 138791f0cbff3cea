"""Names in ``scope`` (RFC 6749 §3.3) and what they stand for, as an operator wrote it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from remit.core.audience import is_of_servers
from remit.core.scope import ENDPOINT, Scope


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

    def lies_at(self, place: str | None) -> bool:
        """Whether something of it is reached at a resource; at the endpoint of MCP servers, whether all of it is."""
        return place in self.resources or (place == ENDPOINT and is_of_servers(self.details))


Templates = Mapping[str, ScopeTemplate]  # by name


def of_resource(name: str, templates: Templates) -> Sequence[ScopeTemplate]:
    """Return what can be asked for at one place alone; that of its own name first, else what is for most resources."""
    found = [one for one in templates.values() if one.lies_at(name) and (name == ENDPOINT or len(one.resources) == 1)]
    return sorted(found, key=lambda one: (one.name != name, -len(one.resources)))
