"""How tasks, grants, leases and resources look on the wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from remit.broker import Broker
from remit.core import approval as approvals
from remit.core import scope as scopes
from remit.core.approval import Approval, Verdict
from remit.core.grant import APPROVED, size, unusable
from remit.core.principal import Principal, Right, root_in
from remit.core.request import written_bounds
from remit.core.secret import Secret
from remit.core.task import Grant, Lease, Report, Task
from remit.errors import GrantEndedError
from remit.ports import Resource
from remit.web.wire import instant

PAGE = 1_000  # grants that are written at once
PAGE_SIZE = 1_048_576  # characters of what was asked for
LAPSED = "lapsed"  # the state of an approval that nobody can decide on, or use, any more


def visible(caller: Principal, task: Task) -> tuple[Grant, ...]:
    """Return the grants of a task that the caller may see: an agent sees its own and what hangs below it."""
    root = root_in(caller, task)
    return () if root is None else tuple(task.subtree(root))


def task(
    caller: Principal, found: Task, broker: Broker, after: str | None = None, limit: int = PAGE
) -> dict[str, object]:
    """Write a task with the part of its tree that the caller may see, parents first, or some of it.

    ``after`` is the last grant of the page before; ``next`` is there to be the next ``after``. Grants that are made
    meanwhile do not change the order of those there are.
    """
    seen = visible(caller, found)
    start = 0 if after is None else 1 + [item.id for item in seen].index(found.grant(after).id)
    grants = _page(seen[start : start + limit])
    shown = {item.id for item in grants}
    return {
        **summary(found),
        "root": seen[0].id,
        "grants": [grant(item, broker) for item in grants],
        "leases": [lease(item) for item in found.leases.values() if item.grant in shown],
        **({"next": grants[-1].id} if grants and start + len(grants) < len(seen) else {}),
    }


def _page(grants: Sequence[Grant]) -> Sequence[Grant]:
    """Return the first of ``grants`` that are written at once: fewer where much was asked for in each."""
    total = 0
    for index, item in enumerate(grants):
        total += size(item)
        if total > PAGE_SIZE and index:
            return grants[:index]
    return grants


def summary(found: Task) -> dict[str, object]:
    """Write a task without its tree."""
    head = found.head
    return {
        "task": head.id,
        "purpose": head.purpose,
        "subject": {"sub": head.subject.sub, "acr": head.subject.acr},
        "opened_at": instant(head.opened_at),
        "expires_at": instant(head.expires_at),
        "closed": head.closed,
    }


def grant(found: Grant, broker: Broker) -> dict[str, object]:
    """Write a grant.

    ``used`` counts the uses of each detail, by this grant and all below it; ``approved`` are the details that its
    parent does not cover, but a human approved. ``unusable`` is how far ``exercise: false`` holds: binding | advisory.
    """
    return {
        "grant": found.id,
        "parent": found.parent,
        "agent": found.agent,
        "attested": found.attested,
        "label": found.label,
        "authorization_details": scopes.dump(found.scope),
        "used": [broker.spent(found.id, index) for index in range(len(found.scope))],
        "level": found.level,
        **{name: value for name, value in written_bounds(found.bounds).items() if name != "ttl"},
        "unusable": unusable(found),
        "approval": found.approval,
        "approved": [index for index, covering in enumerate(found.covers) if covering == APPROVED],
        "policy": found.policy,
        "posture": posture(found),
        "jkt": found.binding.jkt,
        "opened_at": instant(found.opened_at),
        "expires_at": instant(found.expires_at),
        "revoked": found.revoked,
    }


def approval(caller: Principal, found: Approval, broker: Broker, issuer: str, now: datetime) -> dict[str, object]:
    """Write what was asked of a human: the exact request, who asks, from where to the human, and what it exceeds.

    The digest is for who decides alone: no agent is told it.
    """
    return {
        "approval": found.id,
        "verb": found.verb,
        "state": _state(found, broker, now),
        "request": approvals.asked(found),
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
        **(_around(caller, found, broker, now) if found.grant is not None else {}),
    }


def _state(found: Approval, broker: Broker, now: datetime) -> str:
    """Return where an approval is in its life: what was asked under a grant that has ended has lapsed with it."""
    state = approvals.state(found, now)
    if found.grant is None or state not in {Verdict.PENDING.value, Verdict.APPROVED.value}:
        return state
    try:
        broker.task_of(found.grant).live(found.grant, now)
    except GrantEndedError:
        return LAPSED
    return state


def _around(caller: Principal, found: Approval, broker: Broker, now: datetime) -> dict[str, object]:
    """Write the task and the lineage of the grant that asks, root first, as far up as the caller may see."""
    held, parent = broker.task_of(found.grant or ""), found.grant or ""
    request, line = approvals.request_of(found), held.lineage(parent)
    line = line[: [grant.id for grant in line].index(root_in(caller, held) or parent) + 1]
    covers = scopes.covering(request.scope, line[0].scope)
    wide = tuple(detail for detail, index in zip(request.scope, covers, strict=True) if index is None)
    return {
        "task": summary(held),
        "parent": parent,
        "lineage": [
            {"grant": item.id, "agent": item.agent, "attested": item.attested, "label": item.label}
            for item in reversed(line)
        ],
        "exceeds": list(held.beyond(parent, request, now)),
        "offending": scopes.dump(wide),
    }


def posture(found: Grant) -> dict[str, str]:
    """Write what the surroundings of a grant's holder promise."""
    return {
        "isolation": found.posture.isolation,
        "custody": found.posture.custody,
        "at_rest": found.posture.at_rest,
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
    outstanding: list[dict[str, object]] = [
        {"lease": item.id, "kind": item.plan.detail.type, "expires_at": instant(item.expires_at)}
        for item in found.outstanding
    ]
    if not found.covered:
        outstanding.append({"lease": None, "kind": "checkpoint", "expires_at": None})
    return {
        "state": found.state.value,
        "revoked": found.revoked,
        "outstanding": outstanding,
        "residue": found.residue,
        "recorded": found.recorded,
    }


def credential(found: Mapping[str, str | Secret]) -> dict[str, str]:
    """Write a credential in clear: the one answer that carries it, once."""
    return {name: value.reveal() if isinstance(value, Secret) else value for name, value in found.items()}


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
