"""How tasks, grants, leases and resources look on the wire."""

from __future__ import annotations

from collections.abc import Mapping

from remit.api.wire import instant
from remit.broker import Broker, Holder, Operator
from remit.core import scope as scopes
from remit.core.secret import Secret
from remit.core.task import Grant, Lease, Report, Task
from remit.ports import Resource


def visible(caller: Operator | Holder, task: Task) -> tuple[Grant, ...]:
    """Return the grants of a task that the caller may see: an agent sees its own and what hangs below it."""
    root = caller.grant if isinstance(caller, Holder) else task.head.root
    return tuple(task.subtree(root))


def task(caller: Operator | Holder, found: Task, broker: Broker) -> dict[str, object]:
    """Write a task with the part of its tree that the caller may see."""
    grants = visible(caller, found)
    shown = {item.id for item in grants}
    return {
        **summary(found),
        "root": grants[0].id,
        "grants": [grant(item, broker) for item in grants],
        "leases": [lease(item) for item in found.leases.values() if item.grant in shown],
    }


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
    """Write a grant. ``used`` counts the uses of each detail, by this grant and all below it."""
    return {
        "grant": found.id,
        "parent": found.parent,
        "agent": found.agent,
        "attested": found.attested,
        "label": found.label,
        "authorization_details": scopes.dump(found.scope),
        "used": [broker.spent(found.id, index) for index in range(len(found.scope))],
        "level": found.level,
        "depth": found.depth,
        "fan_out": found.fan_out,
        "exercise": found.exercise,
        "posture": posture(found),
        "jkt": found.jkt,
        "opened_at": instant(found.opened_at),
        "expires_at": instant(found.expires_at),
        "revoked": found.revoked,
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
    outstanding = [
        {"lease": item.id, "kind": item.plan.detail.type, "expires_at": instant(item.expires_at)}
        for item in found.outstanding
    ]
    return {
        "state": found.state.value,
        "revoked": found.revoked,
        "outstanding": outstanding,
        "residue": found.residue,
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
