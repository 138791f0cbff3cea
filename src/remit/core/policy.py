"""The ceiling question: may this human open this much? Pure: the answer is a Decision with its reasons.

The local policy, until policies are written down: the owner of the state may open anything within the ``bound`` that
each resource carries. Depth, fan-out and ttl have hard ceilings of their own (``core.task``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from remit.core import scope as scopes
from remit.core.scope import Scope
from remit.core.task import Subject

VERSION = "local-1"


@dataclass(frozen=True, slots=True)
class Question:
    """Who wants to open what, and why. ``bounds`` maps each configured resource to its bound."""

    subject: Subject
    purpose: str
    scope: Scope
    bounds: Mapping[str, Scope]


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer. ``offending`` are the details that are too much; empty when allowed."""

    allowed: bool
    reasons: tuple[str, ...]
    offending: Scope = ()
    version: str = VERSION


Policy = Callable[[Question], Decision]


def within_bounds(question: Question) -> Decision:
    """Allow what every detail's resource is bounded to."""
    wide = tuple(d for d in question.scope if scopes.cover(d, question.bounds.get(d.resource, ())) is None)
    if not wide:
        return Decision(allowed=True, reasons=("every detail is within the bound of its resource",))
    unknown = {detail.resource for detail in wide if detail.resource not in question.bounds}
    reasons = [f"there is no resource `{name}`" for name in sorted(unknown)]
    reasons += [f"wider than the bound of `{name}`" for name in sorted({d.resource for d in wide} - unknown)]
    return Decision(allowed=False, reasons=tuple(reasons), offending=wide)
