"""Logins that their issuers have revoked (SSF, CAEP, logout): all tasks that they opened end at once.

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
from remit.broker.sessions import LoginRevocations, SessionAccess
from remit.core.audit import Event
from remit.core.grant import Subject
from remit.core.principal import Human, Signal
from remit.core.task import Task
from remit.errors import ConflictError, GrantTokenError, RemitError
from remit.jose.jwt import SKEW
from remit.ports import PutRecord, Record, UsedToken, Write

KIND = "signal"
KEPT = timedelta(days=400)  # longer than issuers renew a login without a human
CAUSE = "the issuer ended this login"


@dataclass(frozen=True, slots=True)
class LoginRevocation:
    """What no longer counts of a human, or of session ``sid``; both issuer-qualified.

    Tasks opened up to ``at``, when it was heard, and logins up to ``logins``; those of a session at any time.
    """

    at: datetime
    sub: str | None
    sid: str | None
    logins: datetime

    @property
    def key(self) -> str:
        """The human or the session, as text of one meaning."""
        return f"sub {self.sub}" if self.sid is None else f"sid {self.sid}"

    def later(self, other: LoginRevocation) -> LoginRevocation:
        """Return this with the later times of both."""
        return replace(self, at=max(self.at, other.at), logins=max(self.logins, other.logins))

    def record(self, rev: int) -> Record:
        """Return revision ``rev`` of its record."""
        body = {"at": self.at.isoformat(), "logins": self.logins.isoformat(), "sub": self.sub, "sid": self.sid}
        return Record(KIND, jose.digest(self.key), rev, json.dumps(body).encode(), self.at + KEPT)


class SessionRevocations(LoginRevocations):
    """Which logins no longer count (``broker.sessions.LoginRevocations``)."""

    def __init__(self, broker: SessionAccess) -> None:
        self._broker = broker
        self._known: dict[str, LoginRevocation] = {}
        self._revs: dict[str, int] = {}  # of what is stored, by the name of the record
        self._unnamed: dict[str, LoginRevocation] = {}  # human -> until when logins of no known session are void
        self._one_at_a_time = asyncio.Lock()
        self._running: set[asyncio.Task[int]] = set()
        self._rounds = self._due = 0  # the last round after which something that a signal ended may still be there

    async def load(self) -> None:
        for record in await self._broker.records(KIND):
            raw = json.loads(record.body)
            at, logins = (datetime.fromisoformat(raw.get(name, raw["at"])) for name in ("at", "logins"))
            self._note(LoginRevocation(at, raw["sub"], raw["sid"], logins))
            self._revs[record.id] = record.rev

    async def resume(self) -> None:
        await self._end(CAUSE)

    async def sweep(self) -> None:
        if self._due:
            await self._end(CAUSE)

    def brought_back(self, now: datetime) -> Sequence[Write]:
        late = [one for one in self._known.values() if max(one.at, one.logins) > now]
        brought = (replace(one, at=min(one.at, now), logins=min(one.logins, now)) for one in late)
        return [PutRecord(one.record(self._revs.get(jose.digest(one.key), 0) + 1)) for one in brought]

    def check(self, human: Human) -> None:
        logged_in = min(human.subject.auth_time or human.issued_at, human.issued_at)
        for found in self._of(human.subject):
            if found is None or logged_in <= found.logins:
                raise GrantTokenError(CAUSE, help="log in again")

    async def take(self, signals: Sequence[Signal]) -> int:
        """Take what an issuer said; every task it is about has ended when this answers, with how many.

        Raises what the store raises: then no login counts that the signal is about, the sweep goes on ending the rest,
        and the issuer has to say it again.
        """
        taking = asyncio.create_task(self._take(signals))
        self._running.add(taking)
        taking.add_done_callback(self._running.discard)
        return await asyncio.shield(taking)  # whoever hangs up meanwhile leaves nothing half done

    async def refuse(self, error: RemitError) -> None:
        await self._broker.denied("signal.take", error)

    async def _take(self, signals: Sequence[Signal]) -> int:
        ended = 0
        for signal in signals:
            await self._keep(signal)
            ended += await self._end(signal.cause, signal.digest)
        return ended

    async def _end(self, cause: str, request: str | None = None) -> int:
        self._rounds = self._due = mine = self._rounds + 1

        def rests_on_revoked(task: Task) -> bool:
            found = self._of(task.head.subject)
            return any(one is None or task.head.opened_at <= one.at for one in found)

        ended = await self._broker.end_tasks(rests_on_revoked, cause, request)
        if self._due == mine:  # else one that began later says: it has looked at all that this one has
            self._due = 0
        return ended

    def _of(self, subject: Subject) -> Iterator[LoginRevocation | None]:
        """Yield the revocations of logins like this one; None: for good."""
        human = self._known.get(f"sub {subject.sub}")
        if human is not None:
            yield human
        if subject.sid is not None and f"sid {subject.sid}" in self._known:
            yield None
        if subject.sid is None and subject.sub in self._unnamed:  # it may have been any of the human's sessions
            yield self._unnamed[subject.sub]

    def _note(self, revocation: LoginRevocation) -> None:
        self._known[revocation.key] = revocation
        if revocation.sid is not None and revocation.sub is not None:
            self._unnamed[revocation.sub] = revocation.later(self._unnamed.get(revocation.sub, revocation))

    async def _keep(self, signal: Signal) -> None:
        now = self._broker.now()  # whatever was issued before we heard of it is in doubt
        at = min(signal.at, now + 2 * SKEW)  # not for long: it may be a worker's word, and the human is to come back
        revocation = LoginRevocation(now, signal.sub, signal.sid, max(now, at))
        async with self._one_at_a_time:
            before, unnamed = self._known.get(revocation.key), dict(self._unnamed)
            if before is not None:
                revocation = revocation.later(before)
            self._note(revocation)  # at once, so that nothing is opened while it becomes durable; in doubt it stays
            if not await self._store(revocation, signal, now):
                self._unnamed = unnamed  # delivered before: what was opened since is none of its business
                self._known[revocation.key] = before or revocation

    async def _store(self, revocation: LoginRevocation, signal: Signal, now: datetime) -> bool:
        """Return whether it is stored; False when the signal was delivered before.

        A commit that was in doubt may have been durable: then another revision is stored than is known here.
        """
        event = Event("signal.take", self._broker.now(), "done", subject=signal.sub, cause=signal.cause)
        name, used = jose.digest(revocation.key), UsedToken(signal.digest, now + KEPT)
        while True:
            rev = self._revs.get(name, 0)
            try:
                await self._broker.record((PutRecord(revocation.record(rev + 1)), used), (event,))
            except ConflictError:
                self._revs = {record.id: record.rev for record in await self._broker.records(KIND)}
                if self._revs.get(name, 0) == rev:
                    return False
            else:
                self._revs[name] = rev + 1
                return True
