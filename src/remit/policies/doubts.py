"""What good policies name that does not exist: groups and humans of no issuer, resources that are not there. Pure.

Cedar takes any id. One that is misspelt makes a permit that never applies, or, worse, a forbid.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from remit.core.policy import LOCAL, Problem
from remit.policies.sets import Written

_NAMED = re.compile(r'\b(Group|Human|Resource)\s*::\s*"((?:\\.|[^"\\])*)"|"(?:\\.|[^"\\])*"|//[^\n]*', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Named:
    """An entity that a policy names, and where."""

    kind: str
    id: str
    file: str
    line: int

    def __str__(self) -> str:
        """Return it as policies write it."""
        return f'{self.kind}::"{self.id}"'


def named(policies: Sequence[Written]) -> Iterator[Named]:
    """Yield the groups, humans and resources that policies name, in order; not those in strings and comments."""
    for policy in policies:
        for found in _NAMED.finditer(policy.text):
            if found[1]:
                line = policy.line + policy.text.count("\n", 0, found.start())
                yield Named(found[1], found[2], policy.file, line)


def doubts(
    entities: Sequence[Named], issuers: Collection[str] | None, resources: Collection[str] | None
) -> Iterator[Problem]:
    """Yield what is named and does not exist. ``issuers`` and ``resources`` are those there are; None: not known."""
    for one in entities:
        known = resources if one.kind == "Resource" else issuers
        text = _unknown(one, known) if one.kind == "Resource" else _nobody(one, known)
        if text:
            yield Problem(one.file, one.line, text)


def _unknown(one: Named, resources: Collection[str] | None) -> str:
    return "" if resources is None or one.id in resources else f"there is no resource for `{one}`"


def _nobody(one: Named, issuers: Collection[str] | None) -> str:
    issuer, hash_, _ = one.id.partition("#")
    if not hash_:
        return f"`{one}` is nobody: an id is the issuer, `#`, and its name there"
    if issuers is None or issuer in issuers or issuer.startswith(LOCAL):
        return ""
    return f"`{one}` is nobody: `{issuer}` is no issuer of `[[humans]]`"
