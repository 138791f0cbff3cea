"""kill -9 of the process that reaches databases at every step of issue and revoke, looked up in PostgreSQL."""

from __future__ import annotations

import asyncio
import secrets
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from remit.broker import Broker
from remit.core import scope
from remit.core.request import Bounds, GrantRequest
from remit.core.secret import Secret
from remit.core.task import LeaseState
from remit.errors import EngineError, RemitError
from remit.kinds.postgres.plan import plan
from remit.link.frames import pair
from remit.link.targets import TargetsLink
from remit.ports.reports import LogLine
from tests.broker.world import OPERATOR, ClearSealer
from tests.live import crash_driver
from tests.live.crash_driver import DETAIL
from tests.live.test_crash import ISSUE_BY, KILLED, left_behind, roles
from tests.live.warehouse import Warehouse, warehouse
from tests.support.kinds import NOTHING_LENT, simulated
from tests.support.memory_store import MemoryStore

pytestmark = [pytest.mark.live]


@dataclass
class Town:
    """An authority in this process, and workers that reach the database for it: each that dies has a successor."""

    house: Warehouse
    later: timedelta = timedelta(0)
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.link, self.served = TargetsLink(), asyncio.Event()
        kinds = simulated(lambda _resource, _secret: pytest.fail("an engine is made where none belongs"), plan)
        self.broker = Broker(
            store=MemoryStore(),
            kinds=kinds,
            engines={"postgres": self.link.targets},
            context=NOTHING_LENT,
            sealer=ClearSealer(),
            clock=lambda: datetime.now(UTC) + self.later,
            new_id=lambda prefix: f"{prefix}_{secrets.token_urlsafe(16)}",
        )

    async def started(self) -> None:
        self.served.set()

    async def failed(self, error: RemitError) -> None:
        raise error

    async def logged(self, lines: Sequence[LogLine]) -> None:
        raise AssertionError(lines)

    async def worker(self, die_at: int = 0) -> None:
        """Start a worker that dies at a step."""
        self.served.clear()
        ours, theirs = pair()
        await self.link.connect(ours, self, self.ended.set)
        self.ended.clear()  # it is not the one before that is meant from now on
        places = [str(sock.fileno()) for sock in theirs]
        command = [sys.executable, "-m", "tests.live.targets_driver", *places, str(die_at)]
        fds = [sock.fileno() for sock in theirs]
        self.running.append(await asyncio.to_thread(subprocess.Popen, command, pass_fds=fds))
        for sock in theirs:
            sock.close()
        await self.served.wait()

    async def resource(self, password: str) -> None:
        found = crash_driver.warehouse(self.house.login, str(self.house.server.port), self.house.name)
        await self.broker.put_resource(OPERATOR, found, Secret(password))

    async def stop(self) -> None:
        await self.broker.stop()
        self.link.close()
        for process in self.running:
            await asyncio.to_thread(process.wait, 10)


async def story(town: Town, die_at: int) -> int:
    """Issue and revoke while the worker dies at a step; say how it ended, and what the broker holds it to be."""
    await town.worker()
    await town.broker.start()
    await town.resource(town.house.password)
    await town.worker(die_at)  # which knows no engine: it is configured anew
    details, bounds = scope.parse([DETAIL]), Bounds(timedelta(minutes=10), depth=1, fan_out=2)
    root = await town.broker.open(OPERATOR, GrantRequest(details, bounds, purpose="crash"))
    child = await town.broker.delegate(OPERATOR, root.id, GrantRequest(details))
    leases = []
    for grant in (child, child, root):
        with suppress(RemitError):
            leases.append((await town.broker.issue(OPERATOR, grant.id, details[0])).lease.id)
    for lease in leases[:1]:
        await town.broker.revoke_lease(OPERATOR, lease)
    await town.broker.revoke(OPERATOR, child.id)
    await town.broker.sweep()
    died = await asyncio.to_thread(town.running[-1].wait, 10) if town.ended.is_set() else 0
    await town.worker()
    return died


async def recovered(town: Town) -> None:
    """Sweep past every deadline: the database has what the broker holds active then, and in the end nothing."""
    tasks = list(town.broker._tasks)
    for _ in range(3):
        town.later += ISSUE_BY
        await town.broker.sweep()
    leases = [lease for task in list(town.broker._tasks) for lease in task.leases.values()]
    assert roles(town.house) == {lease.plan.name for lease in leases if lease.state is LeaseState.ACTIVE}
    for task in tasks:
        assert (await town.broker.close(OPERATOR, task.id)).state == "closed"
    await town.broker.sweep()


@pytest.mark.slow
@pytest.mark.attack("CRA-01")
@pytest.mark.timeout(300)
def test_no_step_at_which_the_process_that_reaches_targets_dies_leaves_an_orphan() -> None:
    async def body(house: Warehouse, step: int) -> int:
        town = Town(house)
        try:
            died = await story(town, step)
            await recovered(town)
        finally:
            await town.stop()
        return died

    with warehouse() as house:
        step = 0
        while asyncio.run(body(house, step := step + 1)) == KILLED:
            assert left_behind(house) == set(), step
        assert step > 12


def test_a_lease_that_was_being_made_when_the_process_died_is_told_as_failed_and_ended() -> None:
    async def body(house: Warehouse) -> None:
        town = Town(house)
        try:
            await town.worker()
            await town.broker.start()
            await town.resource(house.password)
            await town.worker(2)  # when the role is made, and nobody knows it yet
            details = scope.parse([DETAIL])
            request = GrantRequest(details, Bounds(timedelta(minutes=10)), purpose="crash")
            root = await town.broker.open(OPERATOR, request)
            with pytest.raises(RemitError) as failed:
                await town.broker.issue(OPERATOR, root.id, details[0])
            assert failed.value.status >= 500
            assert len(roles(house)) == 1
            await town.worker()
            town.later += timedelta(seconds=2)
            await town.broker.sweep()
            assert roles(house) == set()
        finally:
            await town.stop()

    with warehouse() as house:
        asyncio.run(body(house))


def test_what_the_process_is_told_in_secret_is_in_no_error_and_no_log(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    async def body(house: Warehouse) -> str:
        town = Town(house)
        try:
            await town.worker()
            await town.broker.start()
            with pytest.raises(EngineError) as failed:
                await town.resource("canary-password")
        finally:
            await town.stop()
        return f"{failed.value!r} {failed.value.help}"

    with warehouse() as house:
        told = asyncio.run(body(house))
    assert "refused the login" in told
    assert "canary" not in told + caplog.text + "".join(capfd.readouterr())


def test_a_process_that_is_killed_while_many_wait_fails_each_of_them_and_the_next_serves() -> None:
    async def body(house: Warehouse) -> None:
        town = Town(house)
        try:
            await town.worker()
            await town.broker.start()
            await town.resource(house.password)
            details = scope.parse([DETAIL])
            request = GrantRequest(details, Bounds(timedelta(minutes=10)), purpose="crash")
            root = await town.broker.open(OPERATOR, request)
            issues = [asyncio.create_task(town.broker.issue(OPERATOR, root.id, details[0])) for _ in range(24)]
            await asyncio.sleep(0)
            town.running[-1].send_signal(signal.SIGKILL)
            outcomes = await asyncio.gather(*issues, return_exceptions=True)
            assert all(isinstance(each, RemitError) for each in outcomes)
            await town.ended.wait()
            await town.worker()
            await town.broker.issue(OPERATOR, root.id, details[0])
            await recovered(town)
            assert left_behind(house) == set()
        finally:
            await town.stop()

    with warehouse() as house:
        asyncio.run(body(house))
