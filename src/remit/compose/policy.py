"""``[policy] directory``: what decides, from files; loaded at start, and anew when asked, all or nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from remit.broker import Broker, Operator
from remit.compose.settings import Settings
from remit.core import policy
from remit.core.policy import Decision, Policy, Problem, Question
from remit.errors import InvalidRequestError, NotFoundError
from remit.policies import files, sets, trace
from remit.policies.sets import CedarPolicies

NONE = "none"  # the version of what denies everything

_LOG = logging.getLogger("remit.policy")


def directory_of(settings: Settings) -> Path | None:
    """Return the directory of policies that is configured, if one is."""
    raw = settings.parts.get("policy")
    if raw is None:
        return None
    if not isinstance(raw, Mapping) or raw.keys() != {"directory"}:
        raise InvalidRequestError("`policy` has one setting, `directory`")
    where = raw["directory"]
    if not isinstance(where, str) or not Path(where).is_absolute():
        raise InvalidRequestError("`policy.directory` must be an absolute path")
    return Path(where)


def load(directory: Path) -> tuple[CedarPolicies | None, tuple[Problem, ...]]:
    """Read a directory of policies: the set, or else all that is wrong with it."""
    texts, problems = files.read(directory)
    if problems:
        return None, problems
    return sets.read(texts)


def nothing(question: Question) -> Decision:
    """Deny everything: what holds while the policies that were configured cannot be read."""
    del question
    return Decision(allowed=False, reasons=("the policies cannot be read, so nothing is allowed",), version=NONE)


class Policies:
    """What decides now, and what was wrong the last time it was to be replaced."""

    def __init__(self, directory: Path | None) -> None:
        """Load what is in ``directory``; None: no policies are configured, and the local owner alone may open."""
        self.directory = directory
        self.problems: tuple[Problem, ...] = ()
        self.current: CedarPolicies | None = None
        self.broker: Broker | None = None  # whose grants a reload decides on again
        if directory is not None:
            self.current, self.problems = load(directory)
            for problem in self.problems:
                _LOG.error("nothing is allowed until this is right: %s", problem)

    @property
    def decide(self) -> Policy:
        """Return what decides now."""
        if self.directory is None:
            return policy.within_bounds
        return self.current or nothing

    def shown(self) -> Mapping[str, object]:
        """Describe what decides now."""
        found = self.current.policies if self.current else ()
        return {
            "directory": None if self.directory is None else str(self.directory),
            "version": self._version(),
            "policies": [{"id": p.id, "effect": p.effect, "file": p.file, "line": p.line} for p in found],
            "problems": [asdict(problem) for problem in self.problems],
        }

    def _version(self) -> str:
        if self.directory is None:
            return policy.VERSION
        return self.current.version if self.current else NONE

    def explained(self, question: Question) -> Mapping[str, object]:
        """Decide a question, and say of each policy what it came to."""
        decision = policy.in_bounds(question)
        bounded = decision.allowed
        if bounded:
            decision = self.decide(question)
        return {**explained(self.current if bounded else None, question, decision)}

    async def reload(self, operator: Operator) -> Mapping[str, object]:
        """Load the policies anew; a set with anything wrong changes nothing, and what holds is told with what is wrong.

        When this answers, what the new set does not allow has ended.
        """
        if self.directory is None or self.broker is None:
            raise NotFoundError("no policies are configured", help="set `policy.directory` in the configuration")
        fresh, self.problems = load(self.directory)
        if fresh is None:
            for problem in self.problems:
                _LOG.error("the policies stay as they were: %s", problem)
            await self.broker.keep_policy(operator, self._version(), str(self.problems[0]))
            return {"reloaded": False, "ended": 0, **self.shown()}
        ended = await self.broker.reload(operator, fresh, fresh.version)
        self.current = fresh
        return {"reloaded": True, "ended": ended, **self.shown()}


def explained(policies: CedarPolicies | None, question: Question, decision: Decision) -> dict[str, object]:
    """Write a decision with the steps that led to it, detail by detail."""
    steps = trace.traced(policies, question) if policies else [[] for _ in question.scope]
    return {
        "allowed": decision.allowed,
        "reasons": list(decision.reasons),
        "version": decision.version,
        "verb": question.verb,
        "details": [
            {"type": detail.type, "resource": detail.resource, "policies": [asdict(step) for step in found]}
            for detail, found in zip(question.scope, steps, strict=True)
        ],
    }
