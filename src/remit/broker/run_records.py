"""Runs that outlast the broker that served them: a record of each, sealed, and the grants that wait for their run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Literal

from remit.broker import sealed_records
from remit.broker.tasks import TaskCache
from remit.core.principal import Holder
from remit.ports import Sealer
from remit.ports.runs import KeptRun

KIND = "run"


class RunRecords:
    """What the registry of runs needs of the store, and of the grants that runs hold."""

    def __init__(self, tasks: TaskCache, sealer: Sealer) -> None:
        self._tasks, self._sealer, self.notices = tasks, sealer, tasks.notices

    async def load(self) -> Sequence[KeptRun]:
        """Return the runs whose grants are live."""
        now, records = self._tasks.now(), await self._tasks.store.records(KIND)
        kept = [record for record in records if record.until > now]
        found = [sealed_records.opened(self._sealer, record, KeptRun, "a run") for record in kept]
        return [run for run in found if (live := self._tasks.line(run.grant)) is not None and not live.ended]

    async def keep(self, run: KeptRun, until: datetime, event: str = "run.serve") -> None:
        """Record that a run is handed over, that it goes on longer, or that it has ended (``until`` is now)."""
        write = sealed_records.sealed(self._sealer, KIND, (run.id, run.rev), run, until)
        done = self._tasks.event(event, "done", run.grant, request=run.id)
        await self._tasks.store.commit((write,), (done,))

    def held(self) -> Iterator[tuple[Holder, Literal["task", "grant"]]]:
        """Yield who holds a live grant by a channel, and whether the task is the channel's as well."""
        for task in (each for each in self._tasks if not each.head.closed):
            grants = task.grants.values()
            held = [grant.id for grant in grants if grant.posture.custody == "channel" and not grant.revoked]
            if task.head.root in held:
                yield Holder(task.id, task.head.root), "task"
            else:
                yield from ((Holder(task.id, grant_id), "grant") for grant_id in held)

    def wait(self, grant_id: str) -> None:
        """Permit nothing under a grant while its run is not served."""
        self._tasks.unserved.waiting.add(grant_id)

    def served(self, grant_id: str) -> None:
        self._tasks.unserved.waiting.discard(grant_id)
