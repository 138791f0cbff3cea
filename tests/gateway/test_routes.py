"""What is remembered of requests is bounded in bytes, whatever callers say."""

from __future__ import annotations

from remit.gateway.plane import ALL, ONE, BoundedCache
from tests.gateway.rig import http, play, rig


def test_what_is_kept_is_bounded_in_bytes_and_in_number() -> None:
    memory: BoundedCache[bytes, int] = BoundedCache()
    for size in (1, 100, ONE):
        most = 0
        for number in range(2_000):
            key = b"%0*d" % (size, number)
            memory.keep(key, len(key), number)
            assert memory.get(key) == number
            most = max(most, sum(map(len, memory)))
        assert most <= ALL
        assert len(memory) < ALL // 128
    memory.keep(b"x" * (ONE + 1), ONE + 1, 0)
    assert b"x" * (ONE + 1) not in memory


def test_a_listener_has_no_more_remembered_than_so_many_bytes() -> None:
    async def scene() -> None:
        async with rig(http(args="any")) as r:
            wire = await r.wire()
            for number in range(60):
                await wire.send(r.request(f"/api/v1/public/a?q={number}{'x' * 3_000}"))
                assert (await wire.reply()).status == 200
            listener = next(iter(r.gateway.connections.all)).listener
            for known in (listener._heads, listener._sections):
                assert 0 < sum(map(len, known)) <= ALL

    play(scene)
