"""What issuers say of humans after the fact, as that a session ended: all that it opened ends at once.

Rules:

- A signal counts from the moment it is heard: whatever was opened, or logged in, by then is in doubt and ends. Logins
  have the issuer's time; where its clock is ahead of ours, they are void up to the time that it gave the signal.
- A session that was named has ended for good. A human who was named logs in again, and is welcome.
- Nothing that a signal voids is opened while it becomes durable, and what it ended stays ended across a restart.
- A second delivery ends what the first did not get to, and nothing that was opened since.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from remit import jose
from remit.broker.revocation import LeaseRevoker
from remit.broker.tasks import TaskCache
from remit.core.grant import Subject
from remit.core.principal import Human, Signal
from remit.core.task import Task
from remit.errors import ConflictError, GrantTokenError, NotFoundError, RemitError, UnavailableError
from remit.ports import PutRecord, Record, UsedToken

KIND = "signal"
KEPT = timedelta(days=400)  # longer than issuers renew a login without a human
CAUSE = "the issuer ended this login"


@dataclass(frozen=True, slots=True)
class Void:
    """What does not count of a human, or of session ``sid``; both issuer-qualified.

    Tasks opened up to ``at``, when it was heard, and logins up to ``logins``; those of a session at any time.
    """

    at: datetime
    sub: str | None
    sid: str | None
    rev: int
    logins: datetime

    @property
    def key(self) -> str:
        """Whom it is about, as text of one meaning."""
        return f"sub {self.sub}" if self.sid is None else f"sid {self.sid}"


class Endings:
    """Which logins no longer count."""

    def __init__(self, tasks: TaskCache, revoker: LeaseRevoker) -> None:
        """Start empty; ``load`` fills."""
        self._tasks, self._revoker = tasks, revoker
        self._kept: dict[str, Void] = {}
        self._unnamed: dict[str, Void] = {}  # human -> until when logins of no known session are void
        self._one_at_a_time = asyncio.Lock()
        self._running: set[asyncio.Task[int]] = set()
        self._rounds = self._due = 0  # the last round after which something that a signal ended may still be there

    async def load(self) -> None:
        """Read what is kept."""
        for record in await self._tasks.store.records(KIND):
            raw = json.loads(record.body)
            at, logins = (datetime.fromisoformat(raw.get(name, raw["at"])) for name in ("at", "logins"))
            self._note(Void(at, raw["sub"], raw["sid"], record.rev, logins))

    async def resume(self) -> None:
        """End what a signal was about when the process died before it had ended everything."""
        await self._end(CAUSE)

    async def sweep(self) -> None:
        """End what could not be ended when the signal came."""
        if self._due:
            await self._end(CAUSE)

    def check(self, human: Human) -> None:
        """Raise GrantTokenError if the issuer has said that this login no longer counts."""
        logged_in = min(human.subject.auth_time or human.issued_at, human.issued_at)
        for void in self._voids(human.subject):
            if void is None or logged_in <= void.logins:
                raise GrantTokenError(CAUSE, help="log in again")

    async def take(self, signals: Sequence[Signal]) -> int:
        """Take what an issuer said; every task it is about has ended when this answers, with how many.

        Raises what the store raises: then no login counts that the signal is about, the sweep goes on ending the rest,
        and the issuer has to say it again.
        """
        taking = asyncio.create_task(self._taken(signals))
        self._running.add(taking)
        taking.add_done_callback(self._running.discard)
        return await asyncio.shield(taking)  # whoever hangs up meanwhile leaves nothing half done

    async def refuse(self, error: RemitError) -> None:
        """Record that something was not taken, and why; a flood is counted."""
        await self._tasks.denied("signal.take", None, error)

    # -- inside -------------------------------------------------------------------------------------------------

    async def _taken(self, signals: Sequence[Signal]) -> int:
        ended = 0
        for signal in signals:
            await self._keep(signal)
            ended += await self._end(signal.cause, signal.digest)
        return ended

    async def _end(self, cause: str, request: str | None = None) -> int:
        """End what is over, side by side: all is marked before a slow target of one could hold up another."""
        self._rounds = self._due = mine = self._rounds + 1
        over = [task_id for task_id in self._tasks.known() if self._may_be_over(task_id)]
        results = (
            await asyncio.gather(*(self._end_one(i, cause, request) for i in over), return_exceptions=True)
            if over
            else []
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        if self._due == mine:  # else one that began later says: it has looked at all that this one has
            self._due = 0
        return sum(result for result in results if isinstance(result, int))

    async def _end_one(self, task_id: str, cause: str, request: str | None) -> int:
        if not await self._tasks.returned(task_id):
            return 0  # over and swept, or never stored
        task = self._tasks.task(task_id)
        if not self._over(task):
            return 0
        if (await self._revoker.end(task, task.head.root, "task.close", cause, request)).recorded:
            return 1
        raise UnavailableError("what an issuer ended could not be ended yet", help="send it again")

    def _may_be_over(self, task_id: str) -> bool:
        """Whether a task is over; one that is being read again has to be waited for."""
        try:
            return self._over(self._tasks.task(task_id))
        except NotFoundError:
            return True

    def _over(self, task: Task) -> bool:
        opened = task.head.opened_at
        return not task.head.closed and any(
            void is None or opened <= void.at for void in self._voids(task.head.subject)
        )

    def _voids(self, subject: Subject) -> Iterator[Void | None]:
        """Yield until when logins like this one are void; None: for good."""
        human = self._kept.get(f"sub {subject.sub}")
        if human is not None:
            yield human
        if subject.sid is not None and f"sid {subject.sid}" in self._kept:
            yield None
        if subject.sid is None and subject.sub in self._unnamed:  # it may have been any of the human's sessions
            yield self._unnamed[subject.sub]

    def _note(self, void: Void) -> None:
        self._kept[void.key] = void
        if void.sid is not None and void.sub is not None:
            self._unnamed[void.sub] = _both(void, self._unnamed.get(void.sub, void))

    async def _keep(self, signal: Signal) -> None:
        now = self._tasks.now()  # whatever was issued before we heard of it is in doubt
        void = Void(now, signal.sub, signal.sid, 1, max(now, signal.at))
        async with self._one_at_a_time:
            before, unnamed = self._kept.get(void.key), dict(self._unnamed)
            void = void if before is None else replace(_both(void, before), rev=before.rev + 1)
            self._note(void)  # at once, so that nothing is opened while it becomes durable
            try:
                written = await self._written(void, signal, now)
            except BaseException:  # in doubt it stays void; what comes next is written on what is stored
                self._kept[void.key] = replace(void, rev=void.rev - 1)
                raise
            if written is not None:
                self._kept[void.key] = written
                return
            self._unnamed = unnamed  # delivered before: what was opened since is none of its business
            self._kept[void.key] = before or replace(void, rev=0)

    async def _written(self, void: Void, signal: Signal, now: datetime) -> Void | None:
        """Return it as it is stored; None when the signal was delivered before.

        A commit that was in doubt may have been durable: then another revision is stored than is known here.
        """
        event = self._tasks.event("signal.take", "done", None, subject=signal.sub, cause=signal.cause)
        while True:
            try:
                await self._tasks.record((PutRecord(_record(void)), UsedToken(signal.digest, now + KEPT)), (event,))
            except ConflictError:
                stored = {record.id: record.rev for record in await self._tasks.store.records(KIND)}
                rev = stored.get(jose.digest(void.key), 0)
                if rev == void.rev - 1:
                    return None
                void = replace(void, rev=rev + 1)
            else:
                return void


def _both(one: Void, other: Void) -> Void:
    return replace(one, at=max(one.at, other.at), logins=max(one.logins, other.logins))


def _record(void: Void) -> Record:
    body = {"at": void.at.isoformat(), "logins": void.logins.isoformat(), "sub": void.sub, "sid": void.sid}
    return Record(KIND, jose.digest(void.key), void.rev, json.dumps(body).encode(), void.at + KEPT)
