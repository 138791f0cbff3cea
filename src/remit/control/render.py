"""How tasks, grants, leases and resources look on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from remit.core import approval as approvals
from remit.core import scope as scopes
from remit.core.grant import APPROVED
from remit.core.principal import Principal, Right
from remit.core.request import written_bounds
from remit.core.task import Grant, Lease, Report, TaskHeader
from remit.ports import Resource
from remit.ports.broker import ApprovalView, TaskPage
from remit.web.wire import instant


def task(page: TaskPage) -> dict[str, object]:
    """Write a task, but for the page of its tree; ``next`` is there to be the next ``after``."""
    return {**summary(page.header), "root": page.root, **({} if page.next is None else {"next": page.next})}


def summary(head: TaskHeader) -> dict[str, object]:
    """Write a task without its tree."""
    return {
        "task": head.id,
        "purpose": head.purpose,
        "subject": {"sub": head.subject.sub, "acr": head.subject.acr},
        "opened_at": instant(head.opened_at),
        "expires_at": instant(head.expires_at),
        "closed": head.closed,
    }


def grant(found: Grant, used: Sequence[int]) -> dict[str, object]:
    """Write a grant.

    ``used`` counts the uses of each detail, by this grant and all below it; ``approved`` are the details that its
    parent does not cover, but a human approved. ``unusable`` is how far ``exercise: false`` holds: binding | advisory.
    """
    return {
        "grant": found.id,
        "parent": found.parent,
        "agent": found.agent,
        "attested": found.attested,
        "client": found.client,
        "label": found.label,
        "authorization_details": scopes.dump(found.scope),
        "used": list(used),
        "level": found.level,
        **{name: value for name, value in written_bounds(found.bounds).items() if name != "ttl"},
        "unusable": found.unusable,
        "approval": found.approval,
        "approved": [index for index, covering in enumerate(found.covers) if covering == APPROVED],
        "policy": found.policy,
        "posture": asdict(found.posture),
        "jkt": found.binding.jkt,
        "opened_at": instant(found.opened_at),
        "expires_at": instant(found.expires_at),
        "revoked": found.revoked,
    }


def approval(caller: Principal, view: ApprovalView, issuer: str) -> dict[str, object]:
    """Write what was asked of a human: the exact request, who asks, from where to the human, and what it exceeds.

    The digest is for who decides alone: no agent is told it.
    """
    found, asking = view.approval, {}
    if view.asking is not None:
        asking = {
            "task": summary(view.asking.task),
            "parent": view.asking.parent,
            "lineage": [asdict(step) for step in view.asking.lineage],
            "exceeds": list(view.asking.exceeds),
            "offending": scopes.dump(view.asking.offending),
        }
    return {
        "approval": found.id,
        "verb": found.verb,
        "state": view.state,
        "request": approvals.shown(found.request),
        "asker": found.asker,
        "asked_at": instant(found.asked_at),
        "expires_at": instant(found.expires_at),
        "approver": found.approver,
        "acr": list(found.acr),
        "decided_by": None if found.by is None else {"sub": found.by.sub, "acr": found.by.acr},
        "decided_at": None if found.decided_at is None else instant(found.decided_at),
        "grant": found.result,
        "verification_uri": f"{issuer}/approvals/{found.id}",
        **({"digest": found.digest} if Right.OPERATE in caller.rights else {}),
        **asking,
    }


def lease(found: Lease) -> dict[str, object]:
    """Write a lease without its credential, which is not kept."""
    return {
        "lease": found.id,
        "grant": found.grant,
        "kind": found.plan.detail.type,
        "resource": found.plan.detail.resource,
        "name": found.plan.name,
        "state": found.state.value,
        "expires_at": instant(found.expires_at),
        "stuck": found.stuck,
        "residue": found.residue,
    }


def report(found: Report) -> dict[str, object]:
    """Write the truthful answer to a revoke."""
    return found.wire(instant)


def resource(found: Resource) -> dict[str, object]:
    """Write a resource. Of its secret only whether there is one."""
    return {
        "resource": found.name,
        "kind": found.kind,
        "destination": found.destination,
        "bound": scopes.dump(found.bound),
        "settings": dict(found.settings),
        "secret": found.secret is not None,
    }
