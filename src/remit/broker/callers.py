"""Who calls a verb: the owner of the state, or an agent; and who may act under a grant."""

from __future__ import annotations

from dataclasses import dataclass

from remit.core.grant import UNPROVEN, Subject
from remit.core.task import Task
from remit.errors import DeniedError


@dataclass(frozen=True, slots=True)
class Operator:
    """The human at the control socket: the owner of the state and of all tasks in it."""

    subject: Subject


@dataclass(frozen=True, slots=True)
class Holder:
    """An agent, by its channel or its token: its own grant and what hangs below it."""

    task: str
    grant: str


Caller = Operator | Holder


def check_acting(task: Task, caller: Caller, grant_id: str) -> None:
    """Raise unless the caller may act under a grant of a task that it may look at."""
    task.check_acting(grant_id, caller.grant if isinstance(caller, Holder) else task.head.root)
    if isinstance(caller, Holder):
        return
    if task.head.subject.sub != caller.subject.sub and not _brought(task):
        raise DeniedError("this task belongs to somebody else; you may end it, not act in it")


def _brought(task: Task) -> bool:
    """Whether the owner of the state opened a task with a human's token: only their socket and runs need no key."""
    return task.head.subject.acr not in UNPROVEN and not task.grant(task.head.root).apart
