"""A link between two real processes, of which one dies or stands still."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from remit.core.audit import ungrouped
from remit.core.scope import Access
from remit.core.secret import Secret
from remit.errors import UnavailableError
from remit.link.frames import LinkSockets, pair
from remit.link.worker import connect
from tests.broker.world import OPERATOR, World, run
from tests.link.far_process import FOREVER
from tests.link.two_ends import Heard, served


@asynccontextmanager
async def far(role: str, sockets: LinkSockets, *grant: str) -> AsyncIterator[tuple[Process, str]]:
    """Run one end in a process of its own; yield it, and the first line that it says."""
    numbers = [sock.fileno() for sock in sockets]
    command = ["-m", "tests.link.far_process", role, *map(str, numbers), *grant]
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=PIPE, pass_fds=numbers)
    for sock in sockets:
        sock.close()
    assert process.stdout is not None
    try:
        yield process, (await process.stdout.readline()).decode().strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - another process makes it so
            await asyncio.sleep(0.005)


def test_a_worker_that_is_killed_leaves_every_use_with_an_outcome(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker, FOREVER)
        ours, theirs = pair()
        end, gone, _ = await served(world, broker, theirs)
        async with far("worker", ours, root.id) as (process, _):
            await _until(lambda: bool(end._open))
            process.kill()
            await _until(lambda: gone == ["authority"])
        while end._stories:
            await asyncio.gather(*end._stories)
        named: dict[str, list[str]] = {"resource.use": [], "resource.outcome": []}
        for event in await world.events():
            if event.event in named and event.request is not None:
                named[event.event] += ungrouped(event.request)
        assert len(named["resource.use"]) == len(set(named["resource.use"]))
        assert sorted(named["resource.use"]) == sorted(named["resource.outcome"])
        assert {e.decision for e in await world.events() if e.event == "resource.outcome"} == {"unknown"}
        report = await broker.revoke(OPERATOR, root.id)
        assert report.state == "closed"

    run(body())


def test_an_authority_that_is_killed_lets_nobody_wait_at_the_worker(world: World) -> None:
    del world

    async def body() -> None:
        ours, theirs = pair()
        async with far("authority", theirs) as (process, grant):
            ended = asyncio.Event()
            link = await connect(ours, Heard(), ended.set)
            await link.authority.redeem_run(Secret(grant))
            access = Access("search", "GET", "/v1/x")
            assert (await link.authority.use(grant, access, "req_a.0", 0)).grant == grant
            process.send_signal(signal.SIGSTOP)
            waiting = [asyncio.ensure_future(link.authority.use(grant, access, f"req_b.{i}", 0)) for i in range(300)]
            waiting += [asyncio.ensure_future(link.authority.status_list()) for _ in range(40)]
            await asyncio.sleep(0)
            process.kill()
            await ended.wait()
            found = await asyncio.gather(*waiting, return_exceptions=True)
            assert {type(each) for each in found} == {UnavailableError}
            with pytest.raises(UnavailableError):
                await link.authority.status_list()

    run(body())


def test_a_worker_that_stands_still_is_killed_and_only_then_an_end_is_closed(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker, FOREVER)
        ours, theirs = pair()
        end, gone, stuck = await served(world, broker, theirs)
        async with far("worker", ours, root.id) as (process, said):
            assert said == root.id
            await _until(lambda: bool(end._open))
            process.send_signal(signal.SIGSTOP)
            revoking = asyncio.create_task(broker.revoke(OPERATOR, root.id))
            await _until(lambda: bool(stuck))
            assert not revoking.done()
            os.kill(process.pid, signal.SIGKILL)
            assert (await revoking).state == "closed"
            assert gone == ["authority"]
            assert end.lost

    run(body())
