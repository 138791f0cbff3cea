"""What the dearest messages of a worker cost the authority's loop at one go, as CPU of the thread, best of three.

The design allows 5 ms, and the dearest needs 4 on a calm machine. What is asserted is three times that: other work
makes the caches of a test machine cold.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress

import pytest

from remit.core import scope
from remit.core.request import GrantRequest
from remit.errors import RemitError
from remit.link.messages import MAX_CALL, MAX_ENDED, MAX_USES, Batch, Call, EndedUse, from_worker, method
from remit.link.values import encode
from remit.ports.broker import Use, UseRequest
from tests.broker.world import SEARCH, World, child, details, holder, run

BOUND = 0.015  # seconds
DEEP = {**SEARCH, "uses": 1_000_000}
N = MAX_CALL - 200
PATHS = {"type": "http", "resource": "search", "actions": ["GET"], "paths": [f"/{i:x}" for i in range(200)]}


def _turn(act: Callable[[], object]) -> float:
    before = time.thread_time()
    with suppress(RemitError):
        act()
    return time.thread_time() - before


def _read(data: bytes) -> None:
    call = from_worker(data)
    if isinstance(call, Call):
        method(call.method).arguments(call.arguments)


def _delegate(value: object) -> bytes:
    return encode(Call(1, "delegate", [None, "grt_1", value, None, None, None]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: _delegate([[]] * N),
        lambda: _delegate([{}] * N),
        lambda: _delegate([1] * N),
        lambda: _delegate({f"{i:x}": 1 for i in range(N // 8)}),
        lambda: encode(Call(1, "signal", [[{}] * N])),
        lambda: method("open").call(1, {"o": None, "r": GrantRequest(details(*[PATHS] * 5)), "p": None}),
        lambda: method("open").call(1, {"o": None, "r": GrantRequest(scope.read([PATHS] * 11)), "p": None}),
        lambda: encode(Batch([], [EndedUse("r", "done", None, None)] * (N // 10))),
        lambda: encode(
            Batch(
                [UseRequest("grt_" + "x" * 22, "search", "GET", f"req_{i}", 0) for i in range(MAX_USES)],
                [EndedUse(f"req_{'x' * 22}.{i}", "done", None, "200") for i in range(MAX_ENDED)],
            )
        ),
    ],
)
def test_no_message_takes_long_to_read(make: Callable[[], bytes]) -> None:
    World().broker()  # kinds are known
    data = make()
    assert len(data) <= MAX_CALL
    assert min(_turn(lambda: _read(data)) for _ in range(3)) < BOUND


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
        assert min([await _longest_step(broker.uses(asked)) for _ in range(3)]) < BOUND

    run(body())
