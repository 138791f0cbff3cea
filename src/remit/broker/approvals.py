"""Asking humans: approvals are kept, decided on once, and used up in the very commit that makes what was approved."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from urllib.parse import urlsplit

import msgspec

from remit.broker.policy import compared
from remit.broker.tasks import TaskCache
from remit.core import approval as approvals
from remit.core import scope as scopes
from remit.core.approval import Approval, Verdict
from remit.core.grant import Subject
from remit.core.principal import Holder, Human, Principal, Workload, ancestor
from remit.core.request import GrantRequest
from remit.errors import (
    ApprovalError,
    ConflictError,
    DeniedError,
    GrantEndedError,
    IntegrityError,
    InvalidRequestError,
    LimitError,
    NotFoundError,
    RemitError,
    StepUpError,
    UsedError,
)
from remit.ports import NewId, PutRecord, Record, UsedToken, Write
from remit.ports.broker import APPROVAL_LIFE as LIFE
from remit.ports.broker import ApprovalView, Asking

_LOG = logging.getLogger("remit.broker")

KIND = "approval"
KEPT = timedelta(days=1)  # after it is over, if a human decided
MAX_OF_TASK = 20  # asked for in ``LIFE``, whatever became of it: nobody is asked until they tire
MAX_OF_CLIENT = 100  # that wait at once, of a room
MAX_PENDING = 1_000  # of a room
MAX_WAITING = 4_000  # of a room, with those of tasks, hosts and clients that have fewer than ``RESERVED`` waiting
MAX_WAIT = 60.0  # seconds that one call waits for a decision
RESERVED = 5  # that wait of a task, host or client, though others have filled the room
MAX_OF_HUMAN = 5  # that wait at once for a human whom clients name, whoever asks
MAX_TO_HUMAN = 3  # of them by one client, so that none keeps others from asking
CONFIDENTIAL = "decide on the page of the request; the operator configures `client_secret_file` in [[humans]] for it"

StepUp = Callable[[str], tuple[str, ...]]  # the human (issuer-qualified) -> the acr values that decide for them
Place = tuple[str | None, str | None]  # the task and the grant that ask, if any


class Approvals:
    """What humans were asked, and what they said. The invariant of ``broker.tasks`` holds here, too."""

    def __init__(self, tasks: TaskCache, new_id: NewId, step_up: StepUp, check: Callable[[Human], None]) -> None:
        self._tasks, self._new_id, self._step_up, self._check = tasks, new_id, step_up, check
        self._kept: dict[str, Approval] = {}
        self._decided: dict[str, asyncio.Event] = {}

    async def load(self) -> None:
        for record in await self._tasks.store.records(KIND):
            item = _read(record)
            try:
                approvals.request_of(item)
            except (RemitError, ValueError, TypeError, LookupError) as error:  # of another version: it hides no other
                _LOG.warning("approval %s cannot be read, and is left out: %r", item.id, error)
                continue
            if item.task is None and item.verdict is Verdict.PENDING:  # what its client would redeem was in memory
                item = replace(item, expires_at=item.asked_at)
            self._kept[item.id] = item

    def brought_back(self, now: datetime) -> list[Write]:
        """Return what was asked after ``now``, lapsed now: no limit counts it, and no refusal stands, until then."""
        late = (item for item in self._kept.values() if item.asked_at > now)
        return [_write(replace(item, rev=item.rev + 1, asked_at=now, expires_at=now)) for item in late]

    def get(self, approval_id: str) -> Approval:
        if (found := self._kept.get(approval_id)) is None:
            raise NotFoundError
        return found

    def look(self, principal: Principal, approval_id: str) -> Approval:
        """Return an approval that a principal may know of; unknown and foreign are the same NotFoundError."""
        found = self.get(approval_id)
        if isinstance(principal, Holder):
            self._tasks.allowed(principal, found.task or "", found.grant)
        elif found.approver is None or isinstance(principal, Workload):  # the page of its flow alone: RFC 8628 §5.4
            raise NotFoundError
        elif found.task is not None:
            self._tasks.task(found.task)  # it may be so long over that nobody knows of it
        return found

    def known(self, principal: Principal) -> list[str]:
        self._forget(self._tasks.now())
        found = []
        for item in sorted(self._kept.values(), key=lambda item: item.asked_at):
            with suppress(NotFoundError):
                found.append(self.look(principal, item.id).id)
        return found

    async def view(self, item: Approval, principal: Principal | None = None) -> ApprovalView:
        """Return an approval as a principal may see it; None: the page of the flow, also when its task is long over."""
        with suppress(NotFoundError):
            if item.grant is not None:
                held = self._tasks.task_of(item.grant).grant(item.grant).scope
                await compared(approvals.request_of(item).scope, held)
        return self._seen(item, principal)

    def _seen(self, item: Approval, principal: Principal | None) -> ApprovalView:
        now = self._tasks.now()
        state = approvals.state(item, now)
        if item.grant is None:
            return ApprovalView(item, state)
        try:
            task = self._tasks.task_of(item.grant)
        except NotFoundError:
            if principal is not None:
                raise
            return ApprovalView(item, state)
        if state in {Verdict.PENDING.value, Verdict.APPROVED.value}:
            try:
                task.live(item.grant, now)
            except GrantEndedError:  # what was asked under a grant has lapsed with it
                state = "lapsed"
        request, line = approvals.request_of(item), task.lineage(item.grant)
        if isinstance(principal, Holder):  # as far up as it may see
            line = line[: [grant.id for grant in line].index(principal.grant) + 1]
        covers = scopes.covering(request.scope, line[0].scope)
        wide = tuple(detail for detail, index in zip(request.scope, covers, strict=True) if index is None)
        lineage, exceeds = tuple(map(ancestor, reversed(line))), task.beyond(item.grant, request, now)
        asking = Asking(task.head, item.grant, lineage, line[0].scope, exceeds, wide)
        return ApprovalView(item, state, asking)

    async def wait(self, approval_id: str, seconds: float) -> Approval:
        item = self.get(approval_id)
        if not 0 <= seconds <= MAX_WAIT:  # nor is it no number
            raise InvalidRequestError(f"nobody waits longer than {MAX_WAIT:g} seconds at a time")
        left = (item.expires_at - self._tasks.now()).total_seconds()
        if item.verdict is Verdict.PENDING and left > 0:
            decided = self._decided.setdefault(approval_id, asyncio.Event())
            with suppress(TimeoutError):
                await asyncio.wait_for(decided.wait(), min(seconds, left))
        return self.get(approval_id)

    async def ask(
        self, verb: str, request: str, asker: str, human: str | None, at: Place = (None, None), life: timedelta = LIFE
    ) -> Approval:
        """Ask ``human``, or whoever comes, within ``life`` and ten minutes at most; refuse what would tire them."""
        now = self._tasks.serving()
        self._forget(now)
        acr = self._step_up(human) if human else ()
        name, salt, until = self._new_id("apr"), self._new_id("salt"), now + min(life, LIFE)
        item = Approval(name, verb, request, now, until, human, asker, acr, *at, salt=salt)
        for refused in self._recent(item):
            if refused.verdict is Verdict.DENIED and await _alike(refused, item):
                raise ApprovalError("a human refused this before", help="do without it, and say so")
        recent = self._recent(item)
        for alike, most in _rooms(item, recent):
            if len(alike) >= most:
                first = min(i.asked_at for i in alike) + LIFE
                raise LimitError("too much was asked for lately", retry_after=math.ceil((first - now).total_seconds()))
        await self._put(item, "approval.ask", "done")
        return item

    def _recent(self, item: Approval) -> list[Approval]:
        return [i for i in self._kept.values() if i.room == item.room and item.asked_at < i.asked_at + LIFE]

    async def decide(self, approval_id: str, digest: str, by: Principal, *, page: bool, allow: bool) -> Approval:
        """Record what a human decides on the request of this digest; ``page``: that of the flow showed it to them."""
        item = self.get(approval_id) if page else self.look(by, approval_id)
        event = "approval.approve" if allow else "approval.deny"
        burns = (UsedToken(by.digest, by.until),) if isinstance(by, Human) else ()
        try:
            decided = self._step(item, by, digest, allow=allow)
            await self._put(decided, event, "allow" if allow else "deny", burns)
        except RemitError as error:
            grant, subject = (by.grant, {}) if isinstance(by, Holder) else (item.grant, {"subject": by.name})
            await self._tasks.denied(event, grant, error, approval=item.id, **subject)
            raise
        self._decided.pop(item.id, asyncio.Event()).set()
        return decided

    def _step(self, item: Approval, by: Principal, digest: str, *, allow: bool) -> Approval:
        now = self._tasks.serving()
        if isinstance(by, Holder | Workload):
            raise DeniedError("no agent decides on what agents ask for", help="a human does, outside of runs")
        if isinstance(by, Human):
            self._check(by)
            if not by.confidential:  # whoever runs on the human's machine can have begun it, and taken its answer
                raise DeniedError("a login of a public client decides nothing", help=CONFIDENTIAL)
            made_for = item.digest if by.state is None else approvals.login_nonce(item, by.state)
            if by.nonce != made_for:  # a login for something else, or for nothing in particular
                raise StepUpError("this login was not made to decide on this request")
        if not allow:
            return approvals.deny(item, digest, by.subject, now)
        strong = self._step_up(by.subject.sub) or item.acr  # of who decides: nobody was named who came to the page
        decided = approvals.approve(replace(item, acr=strong), digest, by.subject, now)
        if item.grant is not None:
            self._tasks.check(item.grant)
        return decided

    def consumed(self, item: Approval, request: GrantRequest, result: str) -> tuple[Write, ...]:
        """Return what to commit with the grant that was approved. The approval counts as used at once."""
        used = approvals.consume(self.get(item.id), request, result, self._tasks.serving())
        self._kept[item.id] = used
        return (_write(used),)

    def ready(self, item: Approval) -> Subject:
        """Return the human who approved, or say why it cannot be used; also when the issuer ended their login since."""
        kept = self.get(item.id)
        by = approvals.ready(kept, self._tasks.serving())
        self._check(Human(by, "", kept.decided_at or kept.asked_at, kept.expires_at, ""))
        return by

    async def reload(self, approval_id: str) -> None:
        """Read an approval anew after a commit failed: it may still have gone through."""
        self._kept.pop(approval_id, None)
        with suppress(RemitError):
            await self._tasks.durable()
            for record in await self._tasks.store.records(KIND):
                kept = self._kept.get(record.id)
                if record.id == approval_id and (kept is None or kept.rev < record.rev):
                    self._kept[record.id] = _read(record)

    async def _put(self, item: Approval, name: str, decision: str, burns: tuple[UsedToken, ...] = ()) -> None:
        client = item.asker if item.task is None else None  # it is on no grant
        known = {"action": item.verb, "approval": item.id, "detail_s256": item.digest, "client": client}
        by = {"subject": item.by.sub} if item.by else {}
        event = self._tasks.event(name, decision, item.grant, **known, **by)
        self._kept[item.id] = item
        try:
            await self._tasks.store.commit((_write(item), *burns), (event,))
        except BaseException as error:
            await self.reload(item.id)
            if burns and isinstance(error, ConflictError):
                raise UsedError("this login was used before") from error
            raise

    def _forget(self, now: datetime) -> None:
        for item in [i for i in self._kept.values() if _until(i) < now]:
            del self._kept[item.id]
            self._decided.pop(item.id, None)


def _rooms(item: Approval, recent: list[Approval]) -> Iterator[tuple[list[Approval], int]]:
    """Yield each group of approvals that competes with a request, with the limit of the group."""
    waiting = [i for i in recent if i.verdict is Verdict.PENDING]  # also what lapsed sooner: it is kept as long
    few = sum(_party(i) == _party(item) for i in waiting) < RESERVED
    yield waiting, MAX_WAITING if few else MAX_PENDING
    if item.task is not None:
        yield [i for i in recent if i.task == item.task], MAX_OF_TASK
        return
    mine = [i for i in waiting if i.asker == item.asker]
    yield mine, MAX_OF_CLIENT
    if item.approver is not None:
        yield [i for i in mine if i.approver == item.approver], MAX_TO_HUMAN
        yield [i for i in waiting if i.approver == item.approver], MAX_OF_HUMAN


def _party(item: Approval) -> str:
    """Return the party that asks: a task, or a client's host, as one host can make up any number of client ids."""
    if item.task is not None or "#" in item.asker:
        return item.task or item.asker
    return urlsplit(item.asker).netloc if item.asker.startswith(("https://", "http://")) else item.asker


async def _alike(refused: Approval, item: Approval) -> bool:
    """Whether a refusal, which speaks for no other human, answers a request too.

    A client asks who refused it for nothing again. A task may ask for less: what holds all of it, under another name or
    key, is refused with it.
    """
    if refused.approver is None or (refused.approver, refused.task) != (item.approver, item.task):
        return False
    if item.task is None:
        return refused.asker == item.asker
    await compared(approvals.request_of(refused).scope, approvals.request_of(item).scope)
    return approvals.asks_no_less(item, refused)


def _write(item: Approval) -> PutRecord:
    return PutRecord(Record(KIND, item.id, item.rev, msgspec.json.encode(item), _until(item)))


def _read(record: Record) -> Approval:
    try:
        return msgspec.json.decode(record.body, type=Approval)
    except msgspec.MsgspecError as error:
        raise IntegrityError("an approval that was kept cannot be read") from error


def _until(item: Approval) -> datetime:
    """Return how long an approval is kept: undecided ones for a short time, as anybody can ask for any number."""
    return item.expires_at + (LIFE if item.verdict is Verdict.PENDING else KEPT)
