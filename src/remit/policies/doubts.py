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
        issuer, hash_, _ = one.id.partition("#")
        text = ""
        if one.kind == "Resource":
            if resources is not None and one.id not in resources:
                text = f"there is no resource for `{one}`"
        elif not hash_:
            text = f"`{one}` is nobody: an id is the issuer, `#`, and its name there"
        elif issuers is not None and issuer not in issuers and not issuer.startswith(LOCAL):
            text = f"`{one}` is nobody: `{issuer}` is no issuer of `[[humans]]`"
        if text:
            yield Problem(one.file, one.line, text)
