"""What the dearest messages of a worker cost the authority's loop at one go, as CPU of the thread: 5 ms at most.

The calls are made from the tables of methods and types (``tests/support/worst.py``), and sent to a broker in a loop
that is measured. What is over the bound is measured again, five times in all: the least counts, as what disturbs only
adds, and it counts by the pace of the machine (``tests/support/measured.py``).
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
import typing
from collections.abc import Coroutine, Iterator
from functools import partial
from pathlib import Path

import pytest

from remit.compose.kinds import BUILT_IN
from remit.link import roles
from remit.link.messages import (
    MAX_CALL,
    MAX_ENDED,
    MAX_USES,
    Acted,
    Batch,
    Call,
    EndedUse,
    FromWorker,
    from_worker,
    method,
)
from remit.link.roles import WorkerRole
from remit.link.values import encode
from remit.ports.broker import Use, UseRequest
from tests.broker.world import SEARCH, World, child, holder, run
from tests.link.worst_calls import SCOPED, Scene, scene
from tests.support.measured import best, measured, pace
from tests.support.worst import pairs

BOUND = 0.005  # seconds
DEEP = {**SEARCH, "uses": 1_000_000}


@pytest.fixture
def memory() -> Iterator[Path]:
    """Return a directory that no disk is behind, where there is one: what is measured is CPU."""
    there = Path("/dev/shm")  # noqa: S108 - mode 0700, and of a name of its own
    with tempfile.TemporaryDirectory(dir=there if there.is_dir() else None) as made:
        yield Path(made) / "state"


def _dear(it: Scene, names: list[str], *, whole: bool, about: str) -> Iterator[tuple[float, str]]:
    """Yield the calls that cost more than they may."""
    for name in names:
        for shape, call, number in it.calls_of(name, whole=whole):
            cost = best(partial(it.cost, call, number), BOUND)
            it.dearest = max(it.dearest, (cost, f"{name} ({about}; {shape})"))
            if cost > BOUND:
                yield cost, f"{name}: {shape}; {about}; {it.loop.where[:200]}"


@pytest.mark.slow
@pytest.mark.attack("DOS-09")
@pytest.mark.parametrize("role", [roles.EDGE, roles.WEB], ids=lambda role: role.name)
def test_no_call_of_a_worker_holds_the_authority_s_loop_for_long(memory: Path, role: WorkerRole) -> None:
    with measured("authority") as (loop,), scene(memory, loop, role) as it:
        found, whole, methods = list[tuple[float, str]](), True, sorted(role.methods)
        for about, pair in [each for kind in sorted(BUILT_IN) for each in pairs(kind)]:
            it.bound(pair)
            it.fresh()
            names = methods if whole else [name for name in methods if SCOPED & {*method(name).parameters.values()}]
            found += _dear(it, names, whole=whole, about=about)
            whole = False
        sys.stdout.write(f"\nthe dearest call: {it.dearest[0] * 1000:.1f} ms, {it.dearest[1]}\n")
        assert not found, max(found)
        assert it.reached.names >= role.methods, (
            f"{role.methods - it.reached.names}: a method has no call that is let in: see `Scene.given`"
        )


def test_every_kind_of_message_has_a_worst_one() -> None:
    assert set(typing.get_args(FromWorker)) == {Call, Batch, Acted}  # of calls above, of batches below


@pytest.mark.parametrize(
    "make",
    [
        lambda: Batch([], [EndedUse("r", "done", None, None)] * ((MAX_CALL - 200) // 10)),
        lambda: Batch(
            [UseRequest("grt_" + "x" * 22, "search", "GET", f"req_{i}", 0) for i in range(MAX_USES)],
            [EndedUse(f"req_{'x' * 22}.{i}", "done", None, "200") for i in range(MAX_ENDED)],
        ),
    ],
)
def test_no_batch_takes_long_to_read(make: typing.Callable[[], Batch]) -> None:
    data = encode(make())
    assert len(data) <= MAX_CALL

    def cost() -> float:
        before = time.thread_time()
        from_worker(data)
        return time.thread_time() - before

    assert best(cost, BOUND) <= BOUND


async def _longest_step(story: Coroutine[object, None, object]) -> float:
    """Run a story; return the CPU of its longest turn."""
    longest, result = 0.0, object()
    while True:
        before = time.thread_time()
        try:
            story.send(None)
        except StopIteration as end:
            result = end.value
        longest = max(longest, time.thread_time() - before)
        if isinstance(result, list):
            assert all(isinstance(each, Use) for each in result)
            return longest
        await asyncio.sleep(0)


def test_a_full_batch_of_uses_deep_down_in_four_tasks_gives_way_in_between(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        leaves = []
        for _ in range(4):
            grant = await world.opened(broker, DEEP, depth=62, fan_out=1)
            for left in range(61, -1, -1):
                wanted = child(DEEP, depth=left, fan_out=1)
                made = await broker.delegate(holder(broker, grant), grant.id, wanted)
                grant = made.grant
            leaves.append(grant.id)

        async def nothing(*_: object) -> None:
            await asyncio.sleep(0)

        world.store.commit = nothing  # type: ignore[assignment,method-assign]  # a thread does that
        asked = [UseRequest(leaves[i % 4], "search", "GET", f"req_a.{i}", 0) for i in range(MAX_USES)]
        assert min([await _longest_step(broker.uses(asked)) for _ in range(5)]) / pace() <= BOUND

    run(body())
