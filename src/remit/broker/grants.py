"""Open and delegate: how authority comes to be, from a human at the root and from parent to child below it.

And attach: how a run comes to hold a grant that exists.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from remit.broker.approvals import Approvals
from remit.broker.policy import PolicyEnforcement
from remit.broker.tasks import TaskCache
from remit.core import approval as approvals
from remit.core import scope as scopes
from remit.core.approval import Approval
from remit.core.audit import Event
from remit.core.grant import ISOLATION, WORKLOAD, GrantContext, Posture, Subject
from remit.core.policy import Decision
from remit.core.principal import Human, Operator, Principal, Workload
from remit.core.request import GrantRequest
from remit.core.task import Change, Grant, Task, open_task
from remit.errors import (
    ApprovalError,
    ConflictError,
    DeniedError,
    InvalidRequestError,
    NotFoundError,
    RemitError,
    UsedError,
)
from remit.ports import NewId, UsedToken, Write
from remit.ports.broker import APPROVAL_LIFE, Opener

OPEN = "task.open"
DELEGATE = "grant.delegate"
ATTACH = "grant.attach"


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
        self._tasks, self._policy, self._asked, self._check_login = tasks, enforcement, asked, check_login
        self._new_id, self._trust_domain, self._at_rest = new_id, trust_domain, at_rest

    async def open(self, opener: Opener, request: GrantRequest, posture: Posture | None = None) -> Grant:
        """Open a task for a human, within what policy allows; return its root grant.

        An ID token opens one task, and so does an approval. A workload that opens a task acts for nobody but itself;
        what it showed has counted already (``spend``).
        """
        now = self._tasks.serving()
        task_id, root_id = self._new_id("task"), self._new_id("grt")
        approval = opener.id if isinstance(opener, Approval) else None
        context = self._context(task_id, root_id, request, posture, approval)
        agent, subject = request.binding.identity or context.agent, _proven(opener)
        try:
            subject = subject or self._approved(opener)
            if isinstance(opener, Human):
                self._check_login(opener)
            opened = open_task(task_id, root_id, subject, request, context, now)  # before an approval is used up
            decision = self._policy.enforce(opened.head, opened.grants[0], opener)
            opened = _by_policy(opened, decision)
            writes = self._spent(opener, request, root_id)
        except RemitError as error:
            by = {"subject": subject.sub} if subject else {}
            await self._denied(OPEN, None, error, request, context.posture, agent=agent, **by)
            raise
        event = self._made(OPEN, opened, None, decision, task=task_id, subject=subject.sub, lineage=(root_id,))
        try:
            task = await self._tasks.step(opened, event, writes=writes)
        except BaseException as error:
            if isinstance(opener, Approval):
                await self._asked.reload(opener.id)
            if not isinstance(error, ConflictError):
                raise
            used = UsedError()
            await self._denied(OPEN, None, used, request, context.posture, agent=agent, subject=subject.sub)
            raise used from error
        return task.grant(root_id)

    def _approved(self, opener: Opener) -> Subject:
        if not isinstance(opener, Approval) or opener.verb != OPEN:
            raise NotFoundError
        return self._asked.ready(opener)

    def _spent(self, opener: Opener, request: GrantRequest, result: str) -> tuple[Write, ...]:
        """Return the writes by which an ID token or an approval opens one task alone."""
        match opener:
            case Human():
                return (UsedToken(opener.digest, opener.until),)
            case Approval():
                return self._asked.consumed(opener, request, result)
        return ()

    def to_open(self, request: GrantRequest) -> str:
        """Return the request that a human would be asked, as text, or raise what nobody could approve."""
        open_task("", "", Subject("", ""), request, GrantContext(), self._tasks.serving())
        return approvals.text_of(request)

    async def ask_to_open(
        self, client: str, request: GrantRequest, approver: str | None = None, life: timedelta = APPROVAL_LIFE
    ) -> Approval:
        """Ask whoever logs in, or ``approver`` alone, to open a task for a client, which waits for ``life`` at most."""
        try:
            return await self._asked.ask(OPEN, self.to_open(request), client, approver, life=life)
        except RemitError as error:
            agent = request.binding.identity or ""
            await self._denied("approval.ask", None, error, request, Posture(), agent=agent, cause=client)
            raise

    async def delegate(
        self,
        caller: Principal,
        parent_id: str,
        request: GrantRequest,
        approval: Approval | None = None,
        actor: Workload | None = None,
        posture: Posture | None = None,
    ) -> Grant:
        """Make a child of a grant, no wider than it; nobody has to know the child beforehand.

        ``approval`` allows what exceeds the parent: exactly what a human saw, once, and under the grant it was asked
        for. Any other is unknown here (NotFoundError). ``actor`` is the child as it showed itself; UsedError where that
        counts once, and has counted.
        """
        task = await self._tasks.acting(caller, parent_id, DELEGATE)
        if approval is not None and (approval.verb, approval.grant) != (DELEGATE, parent_id):
            raise NotFoundError
        now, child_id = self._tasks.serving(), self._new_id("grt")
        context = self._context(task.head.id, child_id, request, posture, None if approval is None else approval.id)
        writes: tuple[Write, ...] = ()
        try:
            if approval is not None:
                self._asked.ready(approval)
            change = task.delegate(parent_id, child_id, request, context, now)
            decision = self._policy.enforce(task.head, change.grants[0], caller)
            if actor is not None and actor.digest is not None:
                await self.spend(actor)  # before the step: a conflict in it would take the whole task out of memory
                task = self._tasks.task(task.head.id)  # it may have gone on
                change = task.delegate(parent_id, child_id, request, context, now)
            if approval is not None:
                writes = self._asked.consumed(approval, request, child_id)
            change, lineage = _by_policy(change, decision), (*self._tasks.live(parent_id).lineage, child_id)
            event = self._made(DELEGATE, change, parent_id, decision, lineage=lineage)
            task = await self._tasks.step(change, event, writes=writes)
        except BaseException as error:
            if approval is not None and writes:
                await self._asked.reload(approval.id)
            if isinstance(error, RemitError):
                await self._denied(DELEGATE, parent_id, error, request, context.posture)
            raise
        return task.grant(child_id)

    async def ask(
        self, caller: Principal, parent_id: str, request: GrantRequest, actor: Workload | None = None
    ) -> Approval:
        """Ask the task's human for a child that exceeds its parent; refused at once where policy would refuse it."""
        task = await self._tasks.acting(caller, parent_id, "approval.ask")
        context = self._context(task.head.id, "asked", request, None, "asked")
        try:
            text, human = approvals.text_of(request, parent_id), task.head.subject.sub  # bounded before
            self._check_need(caller, task, parent_id, request, context)
            await self.spend(actor)
            return await self._asked.ask(DELEGATE, text, caller.name, human, (task.head.id, parent_id))
        except RemitError as error:
            await self._denied("approval.ask", parent_id, error, request, context.posture)
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

    async def attach(self, caller: Principal, grant_id: str, posture: Posture) -> None:
        """Let a run with this posture hold a grant that exists, if it can be what is said of the grant's holder."""
        await self._tasks.acting(caller, grant_id, ATTACH)
        known = {"posture": _posture(posture), "cause": f"by {caller.name}"}
        try:
            _check_attach(self._tasks.check(grant_id).grant, posture)
        except RemitError as error:
            await self._tasks.denied(ATTACH, grant_id, error, **known)
            raise
        await self._tasks.record((), (self._tasks.event(ATTACH, "allow", grant_id, **known),))

    def _check_need(
        self, caller: Principal, task: Task, parent_id: str, request: GrantRequest, context: GrantContext
    ) -> None:
        """Raise where asking is in vain, and where there is nothing to ask for."""
        if task.head.subject.acr == WORKLOAD:
            raise ApprovalError("no human is behind this task", help="open a task for the human who is to decide")
        now = self._tasks.serving()
        child = task.asking(parent_id, request, context, now)
        self._policy.enforce(task.head, child, caller)
        beyond = task.beyond(parent_id, request, now)
        if not beyond and self._policy.decide(task.head, replace(child, approval=None)).allowed:
            raise InvalidRequestError("this needs no approval", help="delegate it: the grant covers it")

    def _context(
        self, task_id: str, grant_id: str, request: GrantRequest, posture: Posture | None, approval: str | None
    ) -> GrantContext:
        return GrantContext(
            agent=f"spiffe://{self._trust_domain}/task/{task_id}/{grant_id}",
            posture=replace(posture or Posture(), at_rest=self._at_rest),
            approval=approval,
            status=None if (request.binding.jkt or request.binding.x5t) is None else self._tasks.place(grant_id),
        )

    def _made(
        self, name: str, change: Change, parent: str | None, decision: Decision, **more: str | tuple[str, ...]
    ) -> Event:
        """Return the receipt of a hop: parent (by lineage), child's key, details, decision, approval, posture."""
        grant = change.grants[0]
        return self._tasks.event(
            name,
            "allow",
            parent,
            grant=grant.id,
            agent=grant.agent,
            attested=grant.binding.identity is not None,
            detail_s256=scopes.digest(grant.scope),
            approval=grant.approval,
            key=grant.binding.jkt or grant.binding.x5t,
            policy=grant.policy,
            posture=_posture(grant.posture),
            cause="; ".join(decision.reasons),
            **more,
        )

    async def _denied(
        self, name: str, parent: str | None, error: RemitError, request: GrantRequest, posture: Posture, **more: str
    ) -> None:
        digest = scopes.digest(request.scope)
        await self._tasks.denied(name, parent, error, detail_s256=digest, posture=_posture(posture), **more)


def _by_policy(change: Change, decision: Decision) -> Change:
    """Return the change that makes a grant with the version of the policy that allowed it compiled in."""
    [grant] = change.grants
    return replace(change, grants=(replace(grant, policy=decision.version),))


def _proven(opener: Opener) -> Subject | None:
    """Return who opens a task; None where a human was asked, and what they said is still to be looked up."""
    match opener:
        case Operator() | Human():
            return opener.subject
        case Workload():
            return Subject(opener.id, WORKLOAD)
    return None


def _check_attach(grant: Grant, posture: Posture) -> None:
    """Refuse a run that would hold a grant as another holder, or in weaker surroundings, than is said of it.

    The channel of a run proves no key, and nobody attests it. What token, audit and policy say has to stay true.
    """
    if grant.apart:
        raise DeniedError(
            "the grant is bound to a key or attested, and a run can be neither",
            help="delegate from it as its holder, or start the run with -r or -d",
        )
    promised, isolation = grant.posture.isolation, posture.isolation
    if promised in ISOLATION and ISOLATION.index(isolation) < ISOLATION.index(promised):
        raise DeniedError(
            f"the grant is held as `{promised}`, and this run would be `{isolation}`",
            help="delegate from it: a child of the grant (-r or -d) has the posture of its own run",
        )


def _posture(posture: Posture) -> str:
    return f"{posture.isolation}/{posture.custody}/{posture.at_rest}"
