"""Why a question was decided as it was: of each policy, what it came to and which part of it did not hold.

A policy is taken apart along its ``&&``: its conditions are tried one more at a time, in the order in which Cedar
evaluates them, and the first that does not hold is what kept it from applying.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from remit.core.policy import Question
from remit.policies import model
from remit.policies.sets import CedarPolicies, PolicyVerdict, Written

_BODY = re.compile(r"(?:when|unless)\s*\{(.*)\}\s*;\s*$", re.DOTALL)
_BRACKETED = re.compile(r"(?<!\w)\(([A-Za-z_][\w.]*)\)")  # (context.level): brackets that Cedar adds
_VARIABLES = frozenset({"principal", "resource", "context"})


@dataclass(frozen=True, slots=True)
class Step:
    """What one policy came to on one detail."""

    policy: str
    place: str
    effect: str
    outcome: str  # permits | forbids | failed | does not apply
    because: str  # what kept it from applying (``context.attested is false``), or why it failed
    attributes: Mapping[str, object]  # those that the policy looks at, with what they were


def traced(policies: CedarPolicies, question: Question) -> list[list[Step]]:
    """Return the steps of each detail of a question, in order of the policies."""
    steps = []
    for request, verdict in zip(model.requests(question), policies.verdicts(question), strict=True):
        attempt = _Try(policies, question, request)
        steps.append([attempt.step(written, verdict) for written in policies.policies])
    return steps


class _Try:
    """One request, tried against parts of policies."""

    def __init__(self, policies: CedarPolicies, question: Question, request: Mapping[str, Any]) -> None:
        self._cedar = model.cedar()
        self._entities, self._request = policies.entities(question), dict(request)
        self._claims = dict(question.binding.claims)
        resource = request["resource"]["id"]
        self._known = {
            "context": request["context"],
            "principal": model.entities(question.subject, self._claims, ())[0]["attrs"],
            "resource": {"name": resource, "type": next(d.type for d in question.scope if d.resource == resource)},
        }

    def step(self, written: Written, verdict: PolicyVerdict) -> Step:
        """Say what a policy came to, and why."""
        if written.id in verdict.failed:
            outcome, because = "failed", verdict.failed[written.id]
        else:
            because = self._missing(written.node)
            outcome = "does not apply" if because else f"{written.effect}s"
        place = f"{written.file}:{written.line}"
        return Step(written.id, place, written.effect, outcome, because, self._attributes(written.node))

    def _missing(self, node: Any) -> str:
        """Return the first thing that keeps a policy from applying; nothing when it applies."""
        scope = self._cedar.pst.ScopeAny()
        bare = replace(
            node, effect="permit", principal=scope, action=scope, resource=scope, clauses=(), annotations={}, id="part"
        )
        for name in ("principal", "action", "resource"):
            part = replace(bare, **{name: getattr(node, name)})
            if not self._holds(part):
                return f"{_scope(str(self._set(part)), name)} is false"
        tried = bare
        for clause in _conditions(node.clauses):
            tried = replace(tried, clauses=(*tried.clauses, clause))
            if not self._holds(tried):
                text = str(self._set(replace(bare, clauses=(clause,))))
                return f"{_condition(text)} is {'false' if _is_when(clause) else 'true'}"
        return ""

    def _holds(self, node: Any) -> bool:
        return bool(self._cedar.is_authorized(self._request, self._set(node), self._entities).allowed)

    def _set(self, node: Any) -> Any:
        alone = self._cedar.pst.PolicySet(templates={}, static_policies={node.id: node}, template_links=())
        return self._cedar.PolicySet.from_pst(alone)

    def _attributes(self, node: Any) -> dict[str, object]:
        """Return what a policy looks at (``context.detail.tables`` -> its value), as it was in this request."""
        names = dict.fromkeys(name for clause in node.clauses for name in _names(clause))
        longest = [n for n in names if not any(other.startswith(f"{n}.") for other in names)]
        return {name: self._value(name) for name in longest}

    def _value(self, name: str) -> object:
        if name.startswith("context.claims."):
            return self._claims.get(name.removeprefix("context.claims."))
        found: Any = self._known
        for part in name.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        return found


def _conditions(clauses: tuple[Any, ...]) -> Iterator[Any]:
    """Yield the conditions of a policy one by one: what ``&&`` joins inside of a ``when`` is taken apart."""
    for clause in clauses:
        parts = _parts(clause.expr) if _is_when(clause) else (clause.expr,)
        yield from (replace(clause, expr=part) for part in parts)


def _is_when(clause: Any) -> bool:
    return type(clause).__name__ == "When"


def _parts(expr: Any) -> Iterator[Any]:
    if getattr(expr, "op", None) == "and":
        yield from _parts(expr.left)
        yield from _parts(expr.right)
    else:
        yield expr


def _names(node: Any) -> Iterator[str]:
    """Yield the attributes that an expression looks at, outer ones before what is inside of them."""
    name = _path(node)
    if name is not None:
        yield name
    if isinstance(node, tuple):
        for item in node:
            yield from _names(item)
    elif is_dataclass(node):
        for part in fields(node):
            yield from _names(getattr(node, part.name))


def _path(node: Any) -> str | None:
    match type(node).__name__:
        case "Var":
            return str(node.name) if node.name in _VARIABLES else None
        case "GetAttr":
            base = _path(node.base)
            return f"{base}.{node.attr}" if base else None
        case "HasAttr":
            base = _path(node.base)
            return ".".join((base, *node.attrs)) if base else None
        case "BinaryOp" if node.op in {"get_tag", "has_tag"} and hasattr(node.right, "value"):
            base = _path(node.left)
            return f"{base}.{node.right.value}" if base else None
    return None


def _scope(text: str, name: str) -> str:
    """Cut ``principal in Group::"x"`` out of a policy's text."""
    head = text[text.index("(") + 1 : text.rindex(")")]
    at = head.index(name)
    return " ".join(head[at:].split()).removesuffix(", resource").removesuffix(", action")


def _condition(text: str) -> str:
    found = _BODY.search(text)
    shown, before = " ".join((found.group(1) if found else text).split()), ""
    while shown != before:
        shown, before = _BRACKETED.sub(r"\1", shown), shown
    return shown
