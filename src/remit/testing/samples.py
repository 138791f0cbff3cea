"""Made-up tasks, resources and events that use every field, for contracts and tests."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from remit.core import orders
from remit.core import scope as scopes
from remit.core.audit import Event
from remit.core.grant import GrantContext, Posture
from remit.core.request import Binding, Bounds, GrantRequest
from remit.core.scope import DetailType, Field
from remit.core.task import Change, Lease, LeaseState, Plan, Revocation, Subject, Task, nothing, open_task
from remit.ports import Resource

NOW = datetime(2026, 11, 25, 12, 0, 0, 123456, tzinfo=UTC)
TYPES: Mapping[str, DetailType] = {  # of the samples' own, with every order
    "sample-requests": {
        "actions": Field(orders.METHODS, required=True),
        "paths": Field(orders.PATHS, required=True),
        "args": Field(orders.ARGS, default=()),
        "ttl": Field(orders.SECONDS),
        "uses": Field(orders.AT_MOST),
    },
    "sample-tables": {
        "actions": Field(orders.among("select", "insert"), required=True),
        "tables": Field(orders.TABLES, required=True),
        "columns": Field(orders.COLUMNS, per="tables"),
    },
    "sample-tools": {
        "actions": Field(orders.among("tools/call"), required=True),
        "tools": Field(orders.TOOLS, required=True),
    },
}
for _name, _table in TYPES.items():
    scopes.register(_name, _table)
SCOPE = scopes.parse(
    [
        {
            "type": "sample-requests",
            "resource": "search",
            "actions": ["GET", "POST"],
            "paths": ["/v1/*/items", "/v2/**"],
            "args": {"query.q": "any", "query.limit": {"at_most": 20}, "body.to": {"one_of": ["a@b", 7, True]}},
            "ttl": 900,
            "uses": 200,
        },
        {
            "type": "sample-tables",
            "resource": "warehouse",
            "actions": ["select"],
            "tables": ["sales.revenue", "sales.cost"],
            "columns": {"sales.revenue": ["quarter", "amount"]},
        },
        {
            "type": "sample-tools",
            "resource": "github",
            "actions": ["tools/call"],
            "tools": {"create_issue": {"repo": "acme/app"}, "list": "any"},
        },
    ]
)
RESOURCE = Resource(
    "search",
    "sample-requests",
    "https://api.search.example/base",
    SCOPE[:1],
    "search-key",
    {"provider": "generic", "inject": {"header": "Authorization", "format": "Bearer {}"}, "max_body": 1024},
)


def event(name: str = "task.open", **fields: str) -> Event:
    """Return an event."""
    return Event(name, NOW, "allow", task=fields.get("task"), request=fields.get("request"))


def opening(task_id: str = "task_1") -> Change:
    """Return the change that opens a task."""
    subject = Subject("unix://machine#1000", "local-uid", NOW, ("pwd", "otp"))
    wanted = GrantRequest(
        SCOPE, Bounds(timedelta(hours=1), depth=2, fan_out=3), purpose="draft the CFO summary, “quickly” é 😀"
    )
    return open_task(
        task_id, f"{task_id}_root", subject, wanted, GrantContext("planner", Posture("namespace", "channel")), NOW
    )


def task_with_leases(task_id: str = "task_1") -> tuple[Task, list[Change]]:
    """Return a task with three grants and a lease in every state, and the changes that lead there."""
    task, changes = nothing(task_id), []

    def step(change: Change) -> None:
        nonlocal task
        changes.append(change)
        task = task.apply(change)

    step(opening(task_id))
    root, child, grandchild = f"{task_id}_root", f"{task_id}_child", f"{task_id}_grandchild"
    below = GrantRequest(SCOPE[:2], Bounds(depth=1, fan_out=1), Binding(jkt="thumb"), label="é")
    reader, writer = Bounds(timedelta(minutes=5)), Binding(identity="writer")
    step(task.delegate(root, child, below, GrantContext("researcher"), NOW))
    step(task.delegate(child, grandchild, GrantRequest(SCOPE[1:2], reader), GrantContext("reader"), NOW))
    step(task.delegate(root, f"{task_id}_aside", GrantRequest(SCOPE[2:], binding=writer), GrantContext(), NOW))
    for number, grant in enumerate((root, child, grandchild, grandchild)):
        step(task.plan(lease(f"{task_id}_lse{number}", grant), NOW))
    step(task.confirm(f"{task_id}_lse1", {"handle": "h1"}, NOW))
    step(task.confirm(f"{task_id}_lse2", None, NOW))
    step(task.confirm(f"{task_id}_lse3", None, NOW))
    step(task.revoke_leases((f"{task_id}_lse2", f"{task_id}_lse3")))
    done, failed = frozenset({f"{task_id}_lse2"}), frozenset({f"{task_id}_lse3"})
    step(task.settle(done, failed, done, NOW))
    return task, changes


def lease(lease_id: str, grant: str) -> Lease:
    """Return a planned lease on the warehouse."""
    plan = Plan(f"remit_{lease_id}", SCOPE[1], {"role": lease_id}, NOW + timedelta(seconds=10), Revocation.BY_NAME)
    return Lease(lease_id, grant, plan, LeaseState.PLANNED, NOW + timedelta(minutes=4), key=f"key-{lease_id}")
