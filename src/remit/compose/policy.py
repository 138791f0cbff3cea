"""``[policy] directory``: what decides, from files; loaded at start, and anew when asked, all or nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
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

    The file is of mode 0600, and sealed for its version: which one holds stands in the store, in the commit that put it
    on record, so that no older set opens. A fresh set lies beside it before that.
    """

    def __init__(self, path: Path, sealer: Sealer) -> None:
        self._path, self._sealer, self._fresh = path, sealer, path.with_suffix(".new")

    def read(self, held: str | None) -> CedarPolicies | None:
        """Return the set of this version, if it is still good; None: as an earlier remit kept it, for no version."""
        texts = self._opened(self._path, held)
        if texts is None and held is not None:
            texts = self._opened(self._fresh, held)
            if texts is not None:  # a crash came between the record and the file
                self.keep()
        if texts is None and self._path.exists():
            raise IntegrityError(
                f"the policies in `{self._path}` are not those that held last, which the audit names",
                help=f"set those right that are configured, or remove `{self._path}`: then nothing is allowed",
            )
        return None if texts is None else sets.read(texts)[0]

    def _opened(self, path: Path, held: str | None) -> dict[str, str] | None:
        with suppress(OSError, IntegrityError, msgspec.MsgspecError):
            sealed = read_regular(path, MAX_KEPT)
            return msgspec.json.decode(self._sealer.open(sealed, _purpose(held)), type=dict[str, str])
        return None

    def prepare(self, policies: CedarPolicies) -> None:
        """Write a set that is to hold beside the one that does, or raise UnavailableError."""
        try:
            self._fresh.unlink(missing_ok=True)  # left by a crash
            write_new(self._fresh, self._sealer.seal(msgspec.json.encode(policies.texts), _purpose(policies.version)))
        except OSError as error:
            raise _unkept() from error

    def keep(self) -> None:
        """Put what was prepared in the place of the set before, or raise UnavailableError: then it is found there."""
        try:
            self._fresh.replace(self._path)
            sync_directory(self._path.parent)
        except OSError as error:
            raise _unkept() from error


def _purpose(version: str | None) -> bytes:
    return PURPOSE if version is None else PURPOSE + b" " + version.encode()


def _unkept() -> UnavailableError:
    return UnavailableError("the policies cannot be kept", help="is the disk full?")


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
        if directory is not None:
            self.current, self.problems = load(directory)

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
        """Go back to the last good set where what is configured is bad; before anything is decided anew.

        Put on record that other policies hold than before the start, or that those that were configured are bad.
        IntegrityError where the set to go back to is not the one that held last.
        """
        if self.broker is None or self.directory is None:
            return
        enforced, last = self.broker.policy, self._last(self.broker.policy.held)
        if self.current is None:
            self.current = last
            enforced.deciding = self.decide
        held = f"policies {self.current.version} stay" if self.current else "nothing is allowed"
        for problem in self.problems:
            _LOG.error("%s until this is right: %s", held, problem)
        if self.problems:
            await enforced.note(operator, self._version(), str(self.problems[0]))
        elif self.current is not None and (last is None or enforced.held != self.current.version):
            if self._kept is not None:
                self._kept.prepare(self.current)
            await enforced.note(operator, self.current.version)
            if self._kept is not None:
                self._kept.keep()

    def _last(self, held: str | None) -> CedarPolicies | None:
        try:
            return self._kept.read(held) if self._kept is not None else None
        except IntegrityError as error:
            if self.current is None:  # a start does not rest on what is not as we wrote it
                raise
            _LOG.warning("%s; they are kept anew", error.detail)
            return None

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
            if self._kept is not None:
                self._kept.prepare(fresh)
            try:
                ended = await self.broker.policy.reload(operator, fresh, fresh.version)
            finally:
                if self.broker.policy.deciding is fresh:
                    self.current = fresh
                    if self._kept is not None:
                        self._kept.keep()
            covered = not ended or await self.broker.checkpoints.covered()
            return {"reloaded": True, "ended": ended, "state": "closed" if covered else "partial", **self.shown()}


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
