"""What issuers say of humans after the fact, as that a session ended: all that it opened ends at once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta

from remit.broker.heads import Heads
from remit.broker.targets import Targets
from remit.core import jose
from remit.core.identity import Human, Signal
from remit.core.task import Task
from remit.errors import ConflictError, GrantTokenError
from remit.ports import Burn, PutRecord, Record

KIND = "signal"
KEPT = timedelta(days=1)  # longer than a token that was issued before it can be used


class Endings:
    """Which logins no longer count."""

    def __init__(self, heads: Heads, targets: Targets) -> None:
        """Start empty; ``load`` fills."""
        self._heads, self._targets = heads, targets
        self._kept: dict[str, tuple[datetime, int]] = {}  # whom it is about -> (until when logins are void, rev)

    async def load(self) -> None:
        """Read what is kept."""
        for record in await self._heads.store.records(KIND):
            raw = json.loads(record.body)
            self._kept[raw["about"]] = (datetime.fromisoformat(raw["at"]), record.rev)

    async def resume(self) -> None:
        """End what a signal was about when the process died before it had ended everything."""
        for task in self._heads:
            subject = task.head.subject
            void = (self._kept.get(about) for about in _about(subject.sub, subject.sid))
            if not task.head.closed and any(found and task.head.opened_at <= found[0] for found in void):
                await self._targets.end(task, task.head.root, "task.close", cause="the issuer ended this login")

    def check(self, human: Human) -> None:
        """Raise GrantTokenError if the issuer has said that this login no longer counts."""
        logged_in = human.subject.auth_time or human.issued_at
        for about in _about(human.subject.sub, human.subject.sid):
            void = self._kept.get(about)
            if void is not None and min(logged_in, human.issued_at) <= void[0]:
                raise GrantTokenError("the issuer has ended this login", help="log in again")

    async def take(self, signals: Sequence[Signal]) -> int:
        """Take what an issuer said; every task it is about has ended when this answers, with how many."""
        ended = 0
        for signal in signals:
            await self._keep(signal)
            for task in self._heads:
                if _concerns(signal, task) and not task.head.closed:
                    await self._targets.end(task, task.head.root, "task.close", cause=signal.cause)
                    ended += 1
        return ended

    async def _keep(self, signal: Signal) -> None:
        about = signal.sid if signal.sid is not None else signal.sub
        if about is None:
            return
        _, rev = self._kept.get(about, (signal.at, 0))
        now = self._heads.now()
        void = max(signal.at, now)  # whatever was issued before we heard of it is in doubt
        body = json.dumps({"about": about, "at": void.isoformat()}).encode()
        event = self._heads.event("signal.take", "done", None, subject=signal.sub, cause=signal.cause)
        record = Record(KIND, jose.digest(about), rev + 1, body, now + KEPT)
        try:
            await self._heads.record((PutRecord(record), Burn(signal.digest, now + KEPT)), (event,))
        except ConflictError:  # delivered twice: what it ended has ended
            return
        self._kept[about] = (void, rev + 1)


def _about(sub: str, sid: str | None) -> tuple[str, ...]:
    return (sub,) if sid is None else (sub, sid)


def _concerns(signal: Signal, task: Task) -> bool:
    subject = task.head.subject
    if signal.sid is not None:
        return subject.sid == signal.sid and signal.sub in {None, subject.sub}
    return signal.sub == subject.sub
