"""Asking humans: approvals are kept, decided on once, and used up in the very commit that makes what was approved."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec

from remit.broker.heads import Caller, Heads, Holder, Operator
from remit.core import approval as approvals
from remit.core.approval import Approval, Verdict
from remit.core.grant import Subject
from remit.core.identity import Human
from remit.errors import IntegrityError, LimitError, NotFoundError, RemitError
from remit.ports import Burn, NewId, PutRecord, Record, Write

KIND = "approval"
LIFE = timedelta(minutes=10)
KEPT = timedelta(days=1)  # after it is over
MAX_PENDING = 1_000
MAX_PENDING_OF_ONE = 20  # of one task, or of one client: nobody is asked until they tire

StepUp = Callable[[str], tuple[str, ...]]  # the human (issuer-qualified) -> the acr values that decide for them


class Approvals:
    """What humans were asked, and what they said."""

    def __init__(self, heads: Heads, new_id: NewId, step_up: StepUp) -> None:
        """Start empty; ``load`` fills."""
        self._heads, self._new_id, self._step_up = heads, new_id, step_up
        self._kept: dict[str, Approval] = {}

    async def load(self) -> None:
        """Read what is kept."""
        for record in await self._heads.store.records(KIND):
            self._kept[record.id] = _read(record)

    def get(self, approval_id: str) -> Approval:
        """Return an approval, or raise NotFoundError."""
        found = self._kept.get(approval_id)
        if found is None:
            raise NotFoundError
        return found

    def seen(self, caller: Caller) -> list[Approval]:
        """Return what a caller may know of, oldest first: an agent, what was asked for its own subtree."""
        return sorted(
            (item for item in self._kept.values() if self._sees(caller, item)), key=lambda item: item.asked_at
        )

    def _sees(self, caller: Caller, item: Approval) -> bool:
        if isinstance(caller, Operator):
            return True
        return item.task == caller.task and self._heads.task(caller.task).within(item.grant or "", caller.grant)

    async def ask(self, verb: str, request: str, asker: str, **more: str | None) -> Approval:
        """Ask for a decision. ``more`` are ``approver``, ``task``, ``grant`` and ``secret`` of the approval."""
        now = self._heads.forward()
        await self._forget(now)
        waiting = [i for i in self._kept.values() if i.verdict is Verdict.PENDING and now < i.expires_at]
        mine = sum(i.task == more.get("task") and i.asker == asker for i in waiting)
        if mine >= MAX_PENDING_OF_ONE or len(waiting) >= MAX_PENDING:
            raise LimitError("too many requests wait for a human", retry_after=int(LIFE.total_seconds()))
        approver = more.get("approver")
        item = Approval(
            id=self._new_id("apr"),
            verb=verb,
            request=request,
            asked_at=now,
            expires_at=now + LIFE,
            approver=approver,
            asker=asker,
            acr=self._step_up(approver) if approver else (),
            task=more.get("task"),
            grant=more.get("grant"),
            secret=more.get("secret"),
        )
        await self._put(item, "approval.ask", "done")
        return item

    async def approve(self, approval_id: str, digest: str, by: Operator | Human) -> Approval:
        """Record that a human approves of the request of this digest."""
        return await self._decide(approval_id, "approval.approve", "allow", by, digest, approvals.approve)

    async def refuse(self, approval_id: str, digest: str, by: Operator | Human) -> Approval:
        """Record that a human refuses it."""
        return await self._decide(approval_id, "approval.deny", "deny", by, digest, approvals.deny)

    async def _decide(
        self,
        approval_id: str,
        event: str,
        decision: str,
        by: Operator | Human,
        digest: str,
        step: Callable[[Approval, str, Subject, datetime], Approval],
    ) -> Approval:
        item = self.get(approval_id)
        burns = (Burn(by.digest, by.until),) if isinstance(by, Human) else ()
        try:
            decided = step(item, digest, by.subject, self._heads.forward())
        except RemitError as error:
            await self._heads.denied(event, item.grant, error, subject=by.subject.sub, approval=item.id)
            raise
        await self._put(decided, event, decision, burns)
        return decided

    def consumed(self, item: Approval, request: str, result: str) -> tuple[Write, ...]:
        """Return what to commit with the thing that was approved. The approval counts as used at once."""
        used = approvals.consume(self.get(item.id), request, result, self._heads.forward())
        self._kept[item.id] = used
        return (PutRecord(_record(used)),)

    def restore(self, item: Approval) -> None:
        """Take back what ``consumed`` did, when the commit failed."""
        self._kept[item.id] = item

    async def _put(self, item: Approval, name: str, decision: str, burns: tuple[Burn, ...] = ()) -> None:
        event = self._heads.event(
            name,
            decision,
            item.grant,
            action=item.verb,
            approval=item.id,
            detail_s256=item.digest,
            **({"subject": item.by.sub} if item.by else {}),
        )
        before = self._kept.get(item.id)
        self._kept[item.id] = item
        try:
            await self._heads.record((PutRecord(_record(item)), *burns), (event,))
        except BaseException:
            if before is None:
                self._kept.pop(item.id, None)
            else:
                self._kept[item.id] = before
            raise

    async def _forget(self, now: datetime) -> None:
        for item in [i for i in self._kept.values() if i.expires_at + KEPT < now]:
            del self._kept[item.id]


def holder_name(caller: Caller) -> str:
    """Return how the audit calls whoever asks."""
    return caller.grant if isinstance(caller, Holder) else caller.subject.sub


def _record(item: Approval) -> Record:
    return Record(KIND, item.id, item.rev, msgspec.json.encode(item), item.expires_at + KEPT)


def _read(record: Record) -> Approval:
    try:
        return msgspec.json.decode(record.body, type=Approval)
    except msgspec.MsgspecError as error:
        raise IntegrityError("an approval that was kept cannot be read") from error
