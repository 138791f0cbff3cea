"""A task of a planner with agents below it, and leases under their grants."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from remit.core import scope
from remit.core.grant import GrantContext
from remit.core.lease import Lease, LeaseState, Plan
from remit.core.request import Bounds, GrantRequest
from remit.core.task import Subject, Task, nothing, open_task
from tests.grant_requests import changed

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
TABLE = {
    "type": "postgres",
    "resource": "warehouse",
    "actions": ["select"],
    "tables": ["sales.revenue", "sales.orders"],
}
ONE_TABLE = {**TABLE, "tables": ["sales.revenue"]}
SCOPE = scope.parse([TABLE])
DETAIL = scope.parse([ONE_TABLE])[0]
SUBJECT = Subject("unix://host#1000", "local-uid")


def opened(**more: object) -> Task:
    """Return a task with its root grant, `root`."""
    wanted = GrantRequest(SCOPE, Bounds(10 * MINUTE, depth=2, fan_out=2), purpose="draft")
    return nothing("task_1").apply(
        open_task(
            "task_1", "root", SUBJECT, changed(wanted, {"purpose": "draft", **more}), GrantContext("planner"), NOW
        )
    )


def child(**more: object) -> GrantRequest:
    """Return what a sub-agent asks for."""
    return changed(GrantRequest(SCOPE, Bounds(depth=1, fan_out=2)), more)


def tree() -> Task:
    """Return root -> a -> (b, c), all able to be used."""
    task = opened()
    task = task.apply(task.delegate("root", "a", child(), GrantContext("researcher"), NOW))
    task = task.apply(task.delegate("a", "b", child(depth=0), GrantContext(), NOW))
    return task.apply(task.delegate("a", "c", child(depth=0), GrantContext(), NOW))


def lease(grant: str = "root", lease_id: str = "lse_1", **more: object) -> Lease:
    """Return a planned lease under a grant."""
    plan = Plan(f"remit_{lease_id}", DETAIL, {}, NOW + 10 * SECOND)
    planned = Lease(lease_id, grant, plan, LeaseState.PLANNED, NOW + 5 * MINUTE)
    return replace(planned, **more)  # type: ignore[arg-type]  # fields of Lease


def with_lease(task: Task, made: Lease, *, confirmed: bool = True) -> Task:
    """Return the task after planning, and confirming, a lease."""
    task = task.apply(task.plan(made, NOW))
    return task.apply(task.confirm(made.id, None, NOW)) if confirmed else task
