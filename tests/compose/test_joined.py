"""The workers of an authority, as it starts them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import cast

import pytest

from remit.compose.joined import OWN, Workers, _Reports
from remit.errors import UnavailableError
from remit.process.orders import Supervision, Worker


@dataclass
class Failing:
    """Starts workers that die before they serve."""

    workers: Workers
    killed: list[tuple[str, bool]] = field(default_factory=list)

    async def start(self, role: str) -> Worker:
        reports = self.workers._reports[role] = _Reports(role, asyncio.get_running_loop().create_future())
        reports.serves.set_exception(UnavailableError("it died at its start"))
        return Worker(role, role, 1, ())

    async def kill(self, worker: Worker, *, again: bool) -> None:
        self.killed.append((worker.name, again))


def test_an_edge_for_one_task_that_does_not_come_to_serve_is_not_started_again() -> None:
    async def main() -> None:
        workers = Workers(lambda these: cast("Supervision", Failing(these)))
        with pytest.raises(UnavailableError, match="died"):
            await workers.start_own()
        assert cast("Failing", workers.supervision).killed == [(OWN, False)]
        assert not workers._own

    asyncio.run(main())
