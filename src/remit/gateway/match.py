"""A grant's details for one resource, compiled; they permit just what ``core.scope.permits`` permits. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from remit.core import scope as scopes
from remit.core.paths import Places, matched, places
from remit.core.scope import Access, Detail, Scope, Value


@dataclass(frozen=True, slots=True)
class Rule:
    """One detail, compiled. ``index`` is its place in the grant's scope."""

    index: int
    actions: frozenset[str]
    patterns: tuple[str, ...]
    paths: Places  # all of them
    args: Value
    free: bool  # every argument is permitted, named or not
    free_body: bool  # the body as a whole is
    reads_body: bool  # arguments inside the body are constrained
    headers: frozenset[str]  # names of headers that are arguments here, in lower case


class Matcher:
    """All rules of one grant for one resource, in the order of its scope."""

    __slots__ = ("_rules",)

    def __init__(self, scope: Scope, resource: str) -> None:
        """Compile the http details of ``scope`` that name ``resource``."""
        mine = ((i, d) for i, d in enumerate(scope) if d.type == "http" and d.resource == resource)
        self._rules = tuple(_rule(index, detail) for index, detail in mine)

    def rules(self, action: str, path: str) -> tuple[Rule, ...]:
        """Return the rules that permit an action on a path, whatever its arguments."""
        return tuple(rule for rule in self._rules if action in rule.actions and matched(path, rule.paths))

    def find(self, access: Access) -> int | None:
        """Return the index of the first detail that permits ``access``, or None."""
        return permitting(self.rules(access.action, access.path), access.args)


def permitting(rules: tuple[Rule, ...], args: Mapping[str, str]) -> int | None:
    """Return the index of the first rule that permits ``args``, or None."""
    for rule in rules:
        if rule.free or scopes.args_permit(rule.args, args):
            return rule.index
    return None


def _rule(index: int, detail: Detail) -> Rule:
    args = detail.get("args")
    named = dict(args) if isinstance(args, tuple) else {}
    return Rule(
        index=index,
        actions=frozenset(detail.texts("actions")),
        patterns=detail.texts("paths"),
        paths=places(detail.texts("paths")),
        args=args,
        free=args == scopes.ANY,
        free_body=named.get("body", ("",))[0] == scopes.ANY,
        reads_body=any(name == "body" or name.startswith(("body.", "body[")) for name in named),
        headers=frozenset(name[7:].lower() for name in named if name.startswith("header.")),
    )
