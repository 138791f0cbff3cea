"""Open and delegate: how authority comes to be, from a human at the root and from parent to child below it.

And attach: how a run comes to hold a grant that exists.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from remit.broker.approvals import LIFE, Approvals
from remit.broker.policy import PolicyEnforcement
from remit.broker.tasks import TaskCache
from remit.core import approval as approvals
from remit.core import scope as scopes
from remit.core.approval import Approval
from remit.core.audit import Event
from remit.core.grant import WORKLOAD, Posture, Subject
from remit.core.policy import Decision
from remit.core.principal import Human, Operator, Principal, Workload
from remit.core.task import Grant, Task, Wanted, open_task
from remit.errors import ApprovalError, ConflictError, InvalidRequestError, NotFoundError, RemitError, UsedError
from remit.ports import NewId, UsedToken, Write

OPEN = "task.open"
DELEGATE = "grant.delegate"
ATTACH = "grant.attach"

Opener = Operator | Human | Workload | Approval


class Grants:
    """The verbs by which somebody comes to hold a grant."""

    def __init__(
        self,
        tasks: TaskCache,
        enforcement: PolicyEnforcement,
        asked: Approvals,
        check_login: Callable[[Human], None],
        new_id: NewId,
        trust_domain: str,
        at_rest: str,
    ) -> None:
        """Make grants within ``enforcement``, or on the strength of what ``asked`` holds."""
        self._tasks, self._policy, self._asked, self._check_login = tasks, enforcement, asked, check_login
        self._new_id, self._trust_domain, self._at_rest = new_id, trust_domain, at_rest

    # -- open ---------------------------------------------------------------------------------------------------

    async def open(self, opener: Opener, purpose: str, wanted: Wanted) -> Grant:
        """Open a task for a human, within what policy allows; return its root grant.

        An ID token opens one task, and so does an approval. A workload that opens a task acts for nobody but itself;
        what it showed has counted already (``spend``).
        """
        now = self._tasks.serving()
        task_id, root_id = self._new_id("task"), self._new_id("grt")
        named = self._named(task_id, root_id, wanted, opener.id if isinstance(opener, Approval) else None)
        subject = _proven(opener)
        try:
            subject = subject or self._approved(opener)
            if isinstance(opener, Human):
                self._check_login(opener)
            decision = self._decided(self._policy.opening(subject, purpose, named), opener)
            named = replace(named, policy=decision.version)
            opened = open_task(task_id, root_id, subject, purpose, named, now)  # before an approval is used up
            writes = self._spent(opener, purpose, named, root_id)
        except RemitError as error:
            await self._denied(OPEN, None, error, named, **({"subject": subject.sub} if subject else {}))
            raise
        event = self._receipt(
            Event(
                OPEN,
                now,
                "allow",
                task=task_id,
                subject=subject.sub,
                lineage=(root_id,),
                cause="; ".join(decision.reasons),
            ),
            root_id,
            named,
        )
        try:
            task = await self._tasks.step(task_id, lambda _: opened, event, fresh=True, writes=writes)
        except BaseException as error:
            if isinstance(opener, Approval):
                await self._asked.reload(opener.id)
            if not isinstance(error, ConflictError):
                raise
            await self._denied(OPEN, None, UsedError(), named, subject=subject.sub)
            raise UsedError from error
        return task.grant(root_id)

    def _approved(self, opener: Opener) -> Subject:
        if not isinstance(opener, Approval) or opener.verb != OPEN:
            raise NotFoundError
        return self._asked.ready(opener)

    def _spent(self, opener: Opener, purpose: str, wanted: Wanted, result: str) -> tuple[Write, ...]:
        """Return what makes sure that an opener opens one task alone."""
        match opener:
            case Human():
                return (UsedToken(opener.digest, opener.until),)
            case Approval():
                # a device proves its key with its token request alone (RFC 9449 §5): then the human saw none
                seen = wanted if approvals.keyed(opener) else replace(wanted, jkt=None, x5t=None)
                return self._asked.consumed(opener, approvals.request_of(seen, purpose=purpose), result)
        return ()

    def to_open(self, purpose: str, wanted: Wanted) -> str:
        """Return what a human would be asked, as text, or raise what nobody could approve; nobody is asked yet."""
        open_task("", "", Subject("", ""), purpose, wanted, self._tasks.serving())
        return approvals.request_of(wanted, purpose=purpose)

    async def ask_to_open(
        self, client: str, purpose: str, wanted: Wanted, approver: str | None = None, life: timedelta = LIFE
    ) -> Approval:
        """Ask whoever logs in, or ``approver`` alone, to open a task for a client, which waits for ``life`` at most."""
        try:
            return await self._asked.ask(OPEN, self.to_open(purpose, wanted), client, approver, life=life)
        except RemitError as error:
            await self._denied("approval.ask", None, error, wanted, cause=client)
            raise

    # -- delegate -----------------------------------------------------------------------------------------------

    async def delegate(
        self,
        caller: Principal,
        parent_id: str,
        wanted: Wanted,
        approval: Approval | None = None,
        actor: Workload | None = None,
    ) -> Grant:
        """Make a child of a grant, no wider than it; nobody has to know the child beforehand.

        ``approval`` allows what exceeds the parent: exactly what a human saw, once, and under the grant it was asked
        for. Any other is unknown here (NotFoundError). ``actor`` is the child as it showed itself; UsedError where that
        counts once, and has counted.
        """
        task = await self._tasks.acting(caller, parent_id, DELEGATE)
        if approval is not None and (approval.verb, approval.grant) != (DELEGATE, parent_id):
            raise NotFoundError
        now = self._tasks.serving()
        child_id = self._new_id("grt")
        parent = task.grant(parent_id)
        named = self._named(task.id, child_id, wanted, None if approval is None else approval.id)
        writes: tuple[Write, ...] = ()
        try:
            if approval is not None:
                self._asked.ready(approval)
            task.delegate(parent.id, child_id, named, now)  # before a policy is asked, and an approval used up
            decision = self._decided(self._policy.child(task, parent, named), caller)
            named = replace(named, policy=decision.version)
            await self.spend(actor)  # before the step: a conflict in it would take the whole task out of memory
            if approval is not None:
                writes = self._asked.consumed(approval, approvals.request_of(wanted, parent=parent_id), child_id)
            event = self._tasks.event(DELEGATE, "allow", parent_id, cause="; ".join(decision.reasons))
            event = self._receipt(event, child_id, named)
            event = replace(event, lineage=(*self._tasks.live(parent_id).lineage, child_id))
            task = await self._tasks.step(
                task.id, lambda t: t.delegate(parent.id, child_id, named, now), event, writes=writes
            )
        except BaseException as error:
            if approval is not None and writes:
                await self._asked.reload(approval.id)
            if isinstance(error, RemitError):
                await self._denied(DELEGATE, parent_id, error, named)
            raise
        return task.grant(child_id)

    async def ask(self, caller: Principal, parent_id: str, wanted: Wanted, actor: Workload | None = None) -> Approval:
        """Ask the task's human for a child that exceeds its parent; refused at once where policy would refuse it."""
        task = await self._tasks.acting(caller, parent_id, "approval.ask")
        named = self._named(task.id, "asked", wanted, "asked")
        try:
            request, human = approvals.request_of(wanted, parent=parent_id), task.head.subject.sub  # bounded before
            self._check_need(caller, task, parent_id, named)
            await self.spend(actor)
            return await self._asked.ask(DELEGATE, request, caller.name, human, (task.id, parent_id))
        except RemitError as error:
            await self._denied("approval.ask", parent_id, error, named)
            raise

    async def spend(self, workload: Workload | None) -> None:
        """Let a workload's credential that counts once count: durable when this returns; UsedError if it had before."""
        if workload is None or workload.digest is None:
            return
        event = self._tasks.event("workload.prove", "allow", None, agent=workload.id, attested=True)
        try:
            await self._tasks.record((UsedToken(workload.digest, workload.until or workload.expires_at),), (event,))
        except ConflictError as error:
            raise UsedError from error

    async def attach(self, caller: Principal, grant_id: str, posture: Posture, check: Callable[[Grant], None]) -> Grant:
        """Let a run with this posture hold a grant that exists; ``check`` raises what is against it."""
        await self._tasks.acting(caller, grant_id, ATTACH)
        known = {"posture": _posture(posture), "cause": f"by {caller.name}"}
        try:
            check(self._tasks.check(grant_id).grant)
        except RemitError as error:
            await self._tasks.denied(ATTACH, grant_id, error, **known)
            raise
        await self._tasks.record((), (self._tasks.event(ATTACH, "allow", grant_id, **known),))
        return self._tasks.check(grant_id).grant

    def _check_need(self, caller: Principal, task: Task, parent_id: str, wanted: Wanted) -> None:
        """Raise where asking is in vain, and where there is nothing to ask for."""
        if task.head.subject.acr == WORKLOAD:
            raise ApprovalError("no human is behind this task", help="open a task for the human who is to decide")
        beyond = task.asking(parent_id, wanted, self._tasks.serving())
        parent = task.grant(parent_id)
        self._decided(self._policy.child(task, parent, wanted), caller)
        if not beyond and self._policy.child(task, parent, replace(wanted, approval=None)).allowed:
            raise InvalidRequestError("this needs no approval", help="delegate it: the grant covers it")

    # -- inside -------------------------------------------------------------------------------------------------

    def _decided(self, decision: Decision, caller: object) -> Decision:
        if not decision.allowed:
            raise self._policy.refusal(decision, caller)
        return decision

    def _named(self, task_id: str, grant_id: str, wanted: Wanted, approval: str | None) -> Wanted:
        bound = wanted.jkt is not None or wanted.x5t is not None
        return replace(
            wanted,
            agent=wanted.agent if wanted.attested else f"spiffe://{self._trust_domain}/task/{task_id}/{grant_id}",
            posture=replace(wanted.posture, at_rest=self._at_rest),
            approval=approval,
            status=self._tasks.place(grant_id) if bound else None,
        )

    async def _denied(self, name: str, parent: str | None, error: RemitError, made: Wanted, **more: str) -> None:
        if parent is None:
            more["agent"] = made.agent
        await self._tasks.denied(
            name, parent, error, detail_s256=scopes.digest(made.scope), posture=_posture(made.posture), **more
        )

    def _receipt(self, event: Event, grant_id: str, made: Wanted) -> Event:
        """Return the receipt of a hop: parent (by lineage), child's key, details, decision, approval, posture."""
        return replace(
            event,
            grant=grant_id,
            agent=made.agent,
            attested=made.attested,
            detail_s256=scopes.digest(made.scope),
            approval=made.approval,
            key=made.jkt or made.x5t,
            policy=made.policy,
            posture=_posture(made.posture),
        )


def _proven(opener: Opener) -> Subject | None:
    """Return who opens a task; None where a human was asked, and what they said is still to be looked up."""
    match opener:
        case Operator() | Human():
            return opener.subject
        case Workload():
            return Subject(opener.id, WORKLOAD)
    return None


def _posture(posture: Posture) -> str:
    return f"{posture.isolation}/{posture.custody}/{posture.at_rest}"
