"""Open, renew, delegate, and attach: how authority comes to be, goes on, and how a run comes to hold what exists."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from remit.broker.approvals import Approvals
from remit.broker.policy import PolicyEnforcement, because, compared
from remit.broker.resources import ResourceRegistry
from remit.broker.revocation import LeaseRevoker
from remit.broker.sessions import LoginRevocations
from remit.broker.tasks import TaskCache
from remit.core import approval as approvals
from remit.core import scope as scopes
from remit.core.approval import Approval
from remit.core.audience import Service, at_one_place
from remit.core.audit import Event
from remit.core.grant import ISOLATION, WORKLOAD, GrantContext, Posture, Subject
from remit.core.policy import Decision
from remit.core.principal import GrantView, Holder, Human, Operator, Principal, Workload, check_renewing
from remit.core.request import UNBOUND, Binding, GrantRequest, check_ttl
from remit.core.scope import Scope
from remit.core.task import Change, open_task
from remit.errors import (
    ApprovalError,
    BearerError,
    ConflictError,
    DeniedError,
    InvalidRequestError,
    NotFoundError,
    RemitError,
    TargetError,
    UsedError,
)
from remit.ports import NewId, UsedToken, Write
from remit.ports.broker import APPROVAL_LIFE, ApprovalView, Opener

OPEN = "task.open"
RENEW = "task.renew"
DELEGATE = "grant.delegate"
ATTACH = "grant.attach"


class GrantVerbs:
    """The part of the broker by which somebody comes to hold a grant."""

    _tasks: TaskCache
    policy: PolicyEnforcement
    _registry: ResourceRegistry
    _approvals: Approvals
    _revoker: LeaseRevoker
    _revocations: LoginRevocations
    _new_id: NewId
    _trust_domain: str
    _at_rest: str

    async def open(self, opener: Opener, request: GrantRequest, posture: Posture | None = None) -> GrantView:
        # A workload that opens a task acts for nobody but itself; what it showed has counted already (``spend``).
        now = self._tasks.serving()
        opener = self._approvals.get(opener.id) if isinstance(opener, Approval) else opener  # whatever was said of it
        task_id, root_id = self._new_id("task"), self._new_id("grt")
        approval = opener.id if isinstance(opener, Approval) else None
        context = replace(self._context(task_id, root_id, request, posture, approval), client=_client(opener))
        agent = request.binding.identity or context.agent
        subject: Subject | None = None
        writes: tuple[Write, ...] = ()
        try:
            subject = self._subject(opener)
            self.check_bearer(request.binding, request.scope)
            opened = open_task(task_id, root_id, subject, request, context, now)  # before an approval is used up
            decision = await self.policy.enforce(self.policy.question(opened.head, opened.grants[0]), opener)
            self._subject(opener)  # their login may have ended meanwhile
            self.check_bearer(request.binding, request.scope)  # and so may what the resource takes
            if isinstance(opener, Human):
                writes = (UsedToken(opener.digest, opener.until),)
            if isinstance(opener, Approval):
                writes = self._approvals.consumed(opener, request, root_id)
        except RemitError as error:
            by = {"subject": subject.sub} if subject else {}
            await self._denied(OPEN, None, error, request, context.posture, agent=agent, client=context.client, **by)
            raise
        known = {"task": task_id, "subject": subject.sub, "lineage": (root_id,)}
        opened, event = self._made(OPEN, opened, None, decision, **known)
        try:
            await self._tasks.step(opened, event, writes=writes)
        except BaseException as error:
            if isinstance(opener, Approval):
                await self._approvals.reload(opener.id)
            if not isinstance(error, ConflictError):
                raise
            used = UsedError()
            await self._denied(OPEN, None, used, request, context.posture, agent=agent, subject=subject.sub)
            raise used from error
        return self._tasks.view(root_id)

    async def renew_task(self, by: Operator | Human, task_id: str, ttl: timedelta) -> GrantView:
        """Let a task of the principal's own end later, by ``ttl`` from now; return its root. No worker can ask for it.

        The policy is asked as when it was opened, with the whole time from then to the new end, and with the human as
        they were proven now. What is refused changes nothing: the task ends when it would have.
        """
        await self._tasks.back(task_id)
        task = self._tasks.task(task_id)
        root, spent = task.head.root, (UsedToken(by.digest, by.until),) if isinstance(by, Human) else ()
        try:
            check_ttl(ttl)
            check_renewing(task, by, self._tasks.now())
            ends = self._tasks.serving() + ttl
            asked = task.renew(by.subject, ends, self._tasks.now())
            decision = await self.policy.enforce(self.policy.question(asked.head, asked.grants[0]), by)
            self._subject(by)  # their login may have ended meanwhile
            self._tasks.check(root)  # and so may the task, which else may have gone on
            change = self._tasks.task(task_id).renew(by.subject, ends, self._tasks.serving())
            [longer] = change.grants
            why = because(decision, f"until {longer.expires_at.isoformat(timespec='seconds')}", longer.scope)
            change = replace(change, grants=(replace(longer, policy=decision.version),))
            await self._tasks.step(change, self._tasks.event(RENEW, "allow", root, **why), writes=spent)
        except RemitError as error:
            used = bool(spent) and isinstance(error, ConflictError)
            told = UsedError("the ID token was used before, or the task changed just then") if used else error
            await self._tasks.denied(RENEW, root, told, subject=by.name)
            raise told from error
        self._tasks.check(root)
        return self._tasks.view(root)

    def check_bearer(self, binding: Binding, scope: Scope) -> None:
        """Raise BearerError for a grant by a token alone, unless all of it is at one place and takes bearers."""
        if binding.bearer is not None and binding.bearer != self._bearers(scope):
            raise BearerError

    def check_elsewhere(self, service: Service | None) -> None:
        """Raise TargetError for a service whose resource is not, or no more, the one that its tokens are for."""
        if service is not None and self._registry.elsewhere(service.resource) != service.uri:
            raise TargetError("what the configuration names as this service is another resource, or none")

    def _bearers(self, scope: Scope) -> str | None:
        """Return the one place where a scope is reached, if each resource of it takes bearers."""
        return at_one_place(scope) if self._registry.unborne(scope) is None else None

    def _subject(self, opener: Opener) -> Subject:
        if isinstance(opener, Human):
            self._revocations.check(opener)
        if isinstance(opener, Operator | Human):
            return opener.subject
        if isinstance(opener, Workload):
            return Subject(opener.id, WORKLOAD)
        if opener.verb != OPEN:
            raise NotFoundError
        return self._approvals.ready(opener)

    async def delegate(
        self,
        principal: Principal,
        parent_id: str,
        request: GrantRequest,
        approval: Approval | None = None,
        actor: Workload | None = None,
        posture: Posture | None = None,
    ) -> GrantView:
        """``approval`` counts for exactly what a human saw, once, and under the grant it was asked for.

        Any other is unknown here (NotFoundError). UsedError where ``actor``'s credential counts once, and has counted.
        """
        task = await self._tasks.acting(principal, parent_id, DELEGATE)
        if approval is not None:
            approval = self._approvals.get(approval.id)  # whatever else was said of it
            if (approval.verb, approval.grant) != (DELEGATE, parent_id):
                raise NotFoundError
        if posture is None and request.binding == UNBOUND:
            posture = task.grant(parent_id).posture  # without a run of its own a child is as well kept as its parent
        now, child_id = self._tasks.serving(), self._new_id("grt")
        context = self._context(task.head.id, child_id, request, posture, None if approval is None else approval.id)
        writes: tuple[Write, ...] = ()
        try:
            if approval is not None:
                self._approvals.ready(approval)
            await compared(request.scope, task.grant(parent_id).scope)
            child = self._tasks.task(task.head.id).delegate(parent_id, child_id, request, context, now).grants[0]
            question = self.policy.question(task.head, child)
            decision = await self.policy.enforce(question, principal)
            if actor is not None and actor.digest is not None:
                await self.spend(actor)  # before the step: a conflict in it would take the whole task out of memory
                decision = await self.policy.enforce(question, principal)  # a reload in between counts
            # the task may have gone on; what was decided on is as it was
            change = self._tasks.task(task.head.id).delegate(parent_id, child_id, request, context, now)
            if approval is not None:
                self._approvals.ready(approval)  # as above
                writes = self._approvals.consumed(approval, request, child_id)
            lineage = (*self._tasks.live(parent_id).lineage, child_id)
            change, event = self._made(DELEGATE, change, parent_id, decision, lineage=lineage)
            await self._tasks.step(change, event, writes=writes)
        except BaseException as error:
            if approval is not None and writes:
                await self._approvals.reload(approval.id)
            if isinstance(error, RemitError):
                await self._denied(DELEGATE, parent_id, error, request, context.posture)
            raise
        return self._tasks.view(child_id)

    async def delegate_approved(self, approval_id: str, jkt: str) -> GrantView:
        approval = self._approvals.get(approval_id)
        request = approvals.request_of(approval)
        if approval.task is None or approval.grant is None or request.binding.jkt != jkt:
            raise NotFoundError
        return await self.delegate(Holder(approval.task, approval.grant), approval.grant, request, approval)

    async def revoke_opened(self, approval_id: str, error: RemitError) -> None:
        item = self._approvals.get(approval_id)
        if item.task is not None or item.result is None:
            raise NotFoundError
        await self._tasks.denied("resource.use", item.result, error, resource="remit", action="redeem")
        await self._revoker.end(self._tasks.task_of(item.result), item.result, "grant.revoke", cause="a misused code")

    async def to_open(self, request: GrantRequest) -> str:
        open_task("", "", Subject("", ""), request, GrantContext(), self._tasks.serving())
        self.check_bearer(request.binding, request.scope)
        # a key may still come with the token request; where none has to, the human decides on that too
        bearer = None if request.binding.thumbprint else self._bearers(request.scope)
        return approvals.text_of(replace(request, binding=replace(request.binding, bearer=bearer)))

    async def ask_to_open(
        self, client: str, request: GrantRequest, approver: str | None = None, life: timedelta = APPROVAL_LIFE
    ) -> Approval:
        try:
            return await self._approvals.ask(OPEN, await self.to_open(request), client, approver, life=life)
        except RemitError as error:
            agent = request.binding.identity or ""
            await self._denied("approval.ask", None, error, request, Posture(), agent=agent, client=client)
            raise

    async def ask(
        self, principal: Principal, parent_id: str, request: GrantRequest, actor: Workload | None = None
    ) -> ApprovalView:
        """Refused at once where a human is not needed, and where policy would refuse what they approved."""
        task = await self._tasks.acting(principal, parent_id, "approval.ask")
        context = self._context(task.head.id, "asked", request, None, "asked")
        try:
            text, human = approvals.text_of(request, parent_id), task.head.subject  # bounded before
            if human.acr == WORKLOAD:
                raise ApprovalError("no human is behind this task", help="open a task for the human who is to decide")
            now = self._tasks.serving()
            await compared(request.scope, task.grant(parent_id).scope)
            child = task.asking(parent_id, request, context, now)
            question = self.policy.question(task.head, child)
            await self.policy.enforce(question, principal)
            exceeds = self._tasks.task(task.head.id).beyond(parent_id, request, now)
            if not exceeds and (await self.policy.decided(replace(question, approval=None))).allowed:
                raise InvalidRequestError("this needs no approval", help="delegate it: the grant covers it")
            await self.spend(actor)
            at = (task.head.id, parent_id)
            asked = await self._approvals.ask(DELEGATE, text, principal.name, human.sub, at)
        except RemitError as error:
            await self._denied("approval.ask", parent_id, error, request, context.posture)
            raise
        return await self._approvals.view(asked, principal)

    async def spend(self, workload: Workload | None) -> None:
        if workload is None or workload.digest is None:
            return
        event = self._tasks.event("workload.prove", "allow", None, agent=workload.id, attested=True)
        used = UsedToken(workload.digest, workload.until or workload.expires_at)
        try:
            await self._tasks.store.commit((used,), (event,))
        except ConflictError as error:
            raise UsedError from error

    async def attach(self, principal: Principal, grant_id: str, posture: Posture) -> GrantView:
        # What token, audit and policy say of the holder and its surroundings has to stay true.
        await self._tasks.acting(principal, grant_id, ATTACH)
        known = {"posture": _posture(posture), "cause": f"by {principal.name}"}
        try:
            grant = self._tasks.check(grant_id).grant
            if grant.apart:  # the channel of a run proves no key, and nobody attests it
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
        except RemitError as error:
            await self._tasks.denied(ATTACH, grant_id, error, **known)
            raise
        await self._tasks.store.commit((), (self._tasks.event(ATTACH, "allow", grant_id, **known),))
        self._tasks.check(grant_id)
        return self._tasks.view(grant_id)

    def _context(
        self, task_id: str, grant_id: str, request: GrantRequest, posture: Posture | None, approval: str | None
    ) -> GrantContext:
        custody = "holder" if request.binding.bearer is None else "bearer"
        return GrantContext(
            agent=f"spiffe://{self._trust_domain}/task/{task_id}/{grant_id}",
            posture=replace(posture or Posture(custody=custody), at_rest=self._at_rest),
            approval=approval,
            status=self._tasks.place(grant_id) if request.binding.by_token else None,
        )

    def _made(
        self, name: str, change: Change, parent: str | None, decision: Decision, **more: object
    ) -> tuple[Change, Event]:
        """Return a new grant with the version of the policy that allowed it compiled in, and the receipt of the hop."""
        [grant] = change.grants
        known = {"grant": grant.id, "agent": grant.agent, "attested": grant.attested, "approval": grant.approval}
        known |= {"client": grant.client}
        shown = {"key": grant.binding.jkt or grant.binding.x5t, "posture": _posture(grant.posture)}
        why = because(decision, scope=grant.scope)
        event = self._tasks.event(name, "allow", parent, **why, **known, **shown, **more)
        return replace(change, grants=(replace(grant, policy=decision.version),)), event

    async def _denied(
        self,
        name: str,
        parent: str | None,
        error: RemitError,
        request: GrantRequest,
        posture: Posture,
        **more: str | None,
    ) -> None:
        digest = scopes.digest(request.scope)
        await self._tasks.denied(name, parent, error, detail_s256=digest, posture=_posture(posture), **more)


def _client(opener: Opener) -> str | None:
    """Return the OAuth client that opens a task; None: there is none, or it is the attested workload itself."""
    if isinstance(opener, Approval):
        return opener.asker
    if isinstance(opener, Human):  # an ID-JAG was issued to the client, an ID token to a client of its issuer
        return opener.client if opener.id_jag else opener.brought_by
    return None


def _posture(posture: Posture) -> str:
    return f"{posture.isolation}/{posture.custody}/{posture.at_rest}"
