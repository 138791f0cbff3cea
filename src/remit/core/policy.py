"""The ceiling question: may this human, by this agent, at this place in the tree, hold this much? Pure.

It is asked at open, delegate, issue and renew, never for a request through the gateway: the answer is compiled into the
grant. Until policies are written down, the owner of the state may open anything within the bound of each resource.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from remit.core import scope as scopes
from remit.core.grant import Posture, Subject
from remit.core.request import UNBOUND, Binding, Bounds
from remit.core.scope import Scope

VERSION = "local-1"
LOCAL = "unix://"  # how the subject of the state's owner starts


@dataclass(frozen=True, slots=True)
class Question:
    """Who wants to do what, and why."""

    subject: Subject
    purpose: str
    scope: Scope
    limits: Mapping[str, Scope] = field(default_factory=dict)  # each configured resource and its bound
    verb: str = "open"  # open | delegate | issue | renew
    agent: str = ""  # the acting workload of the grant that would be made or used
    binding: Binding = UNBOUND  # of that grant, as are its bounds
    bounds: Bounds = field(default_factory=Bounds)
    level: int = 0  # its distance from the root
    posture: Posture = field(default_factory=Posture)
    approval: str | None = None  # the human decision it rests on, if it needed one
    whole: Scope | None = None  # what ``scope`` is a part of: a detail is decided on by itself, and sees the others


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer. ``offending`` are the details that are too much; empty when allowed."""

    allowed: bool
    reasons: tuple[str, ...]
    offending: Scope = ()
    version: str = VERSION


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with policies as they are written. ``line`` counts from 1; 0: it is about the whole file."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.text}" if place else self.text


Policy = Callable[[Question], Decision]  # an answer that cannot be worked out is a denial that says so; it never raises


def within_bounds(question: Question) -> Decision:
    """Allow the owner of the state what every detail's resource is bounded to; others need a policy."""
    bounded = in_bounds(question)
    if bounded.allowed and not question.subject.sub.startswith(LOCAL):
        return Decision(allowed=False, reasons=("no policy allows anything to anybody but the owner of this state",))
    return bounded


def in_bounds(question: Question) -> Decision:
    """Deny what exceeds the bound of its resource, whoever asks and whatever policies say."""
    wide: Scope = ()
    for asked, bound in by_resource(question):
        covers = scopes.covering(asked, bound)
        wide += tuple(detail for detail, index in zip(asked, covers, strict=True) if index is None)
    if not wide:
        return Decision(allowed=True, reasons=("every detail is within the bound of its resource",))
    unknown = {detail.resource for detail in wide if detail.resource not in question.limits}
    reasons = [f"there is no resource `{name}`" for name in sorted(unknown)]
    reasons += [f"wider than the bound of `{name}`" for name in sorted({d.resource for d in wide} - unknown)]
    return Decision(allowed=False, reasons=tuple(reasons), offending=wide)


def by_resource(question: Question) -> Iterator[tuple[Scope, Scope]]:
    """Yield what is asked of each resource, with its bound: empty where there is no such resource."""
    for name in dict.fromkeys(detail.resource for detail in question.scope):
        asked = tuple(detail for detail in question.scope if detail.resource == name)
        yield asked, question.limits.get(name, ())


def joined(parts: Sequence[Decision]) -> Decision:
    """Return the answer to a question whose details were decided on in parts: all must be allowed."""
    told = [part for part in parts if not part.allowed] or parts
    reasons = dict.fromkeys(reason for part in told for reason in part.reasons)
    offending = tuple(detail for part in told for detail in part.offending)
    return Decision(told[0].allowed, tuple(reasons), offending, told[0].version)
