"""``[policy] directory``: what decides, from files; loaded at start, and anew when asked, all or nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import msgspec

from remit.broker import Broker
from remit.core import policy
from remit.core.policy import Decision, Policy, Problem, Question
from remit.core.principal import Principal
from remit.errors import IntegrityError, NotFoundError, UnavailableError
from remit.keys.file import read_regular, sync_directory, write_new
from remit.policies import sets, trace
from remit.policies.sets import CedarPolicies
from remit.ports import Sealer

PURPOSE = b"policies"  # what the last good set is sealed for
MAX_KEPT = 64 * 1024 * 1024  # bytes
CONFIGURE = "set `policy.directory` in the configuration, and start the broker anew: it reads that when it starts"
NONE = "none"  # the version of what denies everything
UNREADABLE = Decision(allowed=False, reasons=("the policies cannot be read, so nothing is allowed",), version=NONE)

_LOG = logging.getLogger("remit.policy")


def load(directory: Path) -> tuple[CedarPolicies | None, tuple[Problem, ...]]:
    """Read a directory of policies: the set, or else all that is wrong with it."""
    texts, problems = sets.read_directory(directory)
    if problems:
        return None, problems
    return sets.read(texts)


class LastGoodPolicies:
    """The last good set, in a file of the state: a restart does not fall behind it when what is configured is bad.

    The file is sealed and of mode 0600: nobody else changes what decides.
    """

    def __init__(self, path: Path, sealer: Sealer) -> None:
        self._path, self._sealer = path, sealer

    def read(self) -> CedarPolicies | None:
        """Return the set that was kept, if there is one that is still good."""
        try:
            sealed = read_regular(self._path, MAX_KEPT)
            texts = msgspec.json.decode(self._sealer.open(sealed, PURPOSE), type=dict[str, str])
        except FileNotFoundError:
            return None
        except (OSError, IntegrityError, msgspec.MsgspecError) as error:
            raise IntegrityError("the last good policies cannot be read", help=f"remove `{self._path}`") from error
        return sets.read(texts)[0]

    def write(self, policies: CedarPolicies) -> None:
        """Replace it, or raise UnavailableError: an older set must not come back in place of this one."""
        fresh = self._path.with_suffix(".new")
        try:
            fresh.unlink(missing_ok=True)  # left by a crash
            write_new(fresh, self._sealer.seal(msgspec.json.encode(policies.texts), PURPOSE))
            fresh.replace(self._path)
            sync_directory(self._path.parent)
        except OSError as error:
            raise UnavailableError("the policies cannot be kept", help="is the disk full?") from error


class PolicyDirectory:
    """What decides now, and what was wrong the last time it was to be replaced."""

    def __init__(self, directory: Path | None, kept: LastGoodPolicies | None = None) -> None:
        """Load what is in ``directory``; None: no policies are configured, and the local owner alone may open.

        Where it is bad, the last good set that was ``kept`` decides; without one nothing is allowed.
        """
        self.directory, self._kept = directory, kept
        self.problems: tuple[Problem, ...] = ()
        self.current: CedarPolicies | None = None
        self.broker: Broker | None = None  # whose grants a reload decides on again
        self._one = asyncio.Lock()  # one reload at a time
        self._new = False  # whether other policies hold than before the start
        if directory is not None:
            self.current, self.problems = load(directory)
            self._settle()

    def _settle(self) -> None:
        last = None
        try:
            last = self._kept.read() if self._kept is not None else None
        except IntegrityError as error:
            if self.current is None:  # a start does not rest on what is not as we wrote it
                raise
            _LOG.warning("%s; they are kept anew", error.detail)
        if self.current is None:
            self.current = last
        elif last is None or last.version != self.current.version:
            self._new = True
            self._keep(self.current)
        held = f"policies {self.current.version} stay" if self.current else "nothing is allowed"
        for problem in self.problems:
            _LOG.error("%s until this is right: %s", held, problem)

    @property
    def decide(self) -> Policy:
        if self.directory is None:
            return policy.within_bounds
        return self.current or (lambda _: UNREADABLE)

    def shown(self) -> Mapping[str, object]:
        found, failing = (self.current.policies, self.current.failing) if self.current else ((), {})
        return {
            "directory": None if self.directory is None else str(self.directory),
            "version": self._version(),
            "policies": [{"id": p.id, "effect": p.effect, "file": p.file, "line": p.line} for p in found],
            "failing": [{"policy": name, **asdict(found)} for name, found in failing.items()],
            "problems": [asdict(problem) for problem in self.problems],
        }

    def _version(self) -> str:
        if self.directory is None:
            return policy.VERSION
        return self.current.version if self.current else NONE

    def explained(self, question: Question) -> Mapping[str, object]:
        """Decide a question, and say of each policy what it came to."""
        bounded = policy.in_bounds(question)
        if not bounded.allowed:
            return explained(None, question, bounded)
        return explained(self.current, question, self.decide(question))

    async def started(self, operator: Principal) -> None:
        """Put on record that other policies hold than before the start, or that those that were configured are bad."""
        if self.broker is None or self.directory is None:
            return
        if self.problems:
            await self.broker.policy.note(operator, self._version(), str(self.problems[0]))
        elif self._new:
            await self.broker.policy.note(operator, self._version())

    async def reload(self, operator: Principal) -> Mapping[str, object]:
        """Load the policies anew; a set with anything wrong changes nothing, and what holds is told with what is wrong.

        When this answers, what the new set does not allow has ended. Raises what the store raises: if the new set was
        on record by then, it holds, and the sweep goes on ending the rest.
        """
        if self.directory is None or self.broker is None:
            raise NotFoundError("no policies are configured", help=CONFIGURE)
        async with self._one:
            fresh, self.problems = await asyncio.to_thread(load, self.directory)
            if fresh is None:
                for problem in self.problems:
                    _LOG.error("the policies stay as they were: %s", problem)
                await self.broker.policy.note(operator, self._version(), str(self.problems[0]))
                return {"reloaded": False, "ended": 0, **self.shown()}
            try:
                ended = await self.broker.policy.reload(operator, fresh, fresh.version)
            finally:
                if self.broker.policy.deciding is fresh:
                    self.current = fresh
                    self._keep(fresh)  # not earlier: a start that finds other policies than these puts them on record
            covered = not ended or await self.broker.checkpoints.covered()
            return {"reloaded": True, "ended": ended, "state": "closed" if covered else "partial", **self.shown()}

    def _keep(self, policies: CedarPolicies) -> None:
        if self._kept is not None:
            self._kept.write(policies)


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
