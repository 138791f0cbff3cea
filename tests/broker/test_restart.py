"""What a broker finds after a restart, what its sweep ends, and a log or a clock that was set back."""

from __future__ import annotations

import pytest

from remit.broker import Broker
from remit.broker.checkpoints import Checkpoints
from remit.core.audit import Checkpoint, checkpoint
from remit.core.scope import Access
from remit.core.secret import Secret
from remit.core.task import Closure
from remit.errors import (
    ExpiredError,
    IntegrityError,
    NotFoundError,
    RevokedError,
    UnavailableError,
)
from tests.broker.samples import DETAIL
from tests.broker.world import (
    OPERATOR,
    ClearSealer,
    FullEngine,
    PlainEngine,
    World,
    on_end,
    run,
)
from tests.support.kinds import serving
from tests.uses import permitted_use


def test_a_restart_finds_everything_again(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        issued = await broker.issue(OPERATOR, root.id, DETAIL)
        await permitted_use(broker, root.id, Access("search", "GET", "/v1/search"), "r")
        again = world.broker()
        await again.start()
        assert again._tasks.task_of_lease(issued.lease.id).id == again._tasks.task_of(root.id).id
        assert again._tasks.spent[root.id, 1] == 1
        await permitted_use(again, root.id, Access("search", "GET", "/v1/search"), "r")
        assert (await again.revoke(OPERATOR, root.id)).state is Closure.CLOSED

    run(body())


def test_the_sweep_closes_what_is_over_and_forgets_it(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        await broker.issue(OPERATOR, root.id, DETAIL)
        ended: set[str] = set()
        on_end(broker, ended.update)
        world.later(601)
        await broker.sweep()
        assert world.target.accounts == {}
        world.later(300)
        await broker.sweep()
        assert root.id in ended
        assert list(broker._tasks) == []

    run(body())


def test_one_tasks_trouble_does_not_hold_up_the_others(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        first, second = await world.opened(broker), await world.opened(broker)
        for grant in (first, second):
            await broker.issue(OPERATOR, grant.id, DETAIL)
        world.later(601)
        commit = world.store.commit
        failed: list[int] = []

        async def once(writes: object, events: object) -> None:
            if not failed:
                failed.append(1)
                raise UnavailableError
            await commit(writes, events)  # type: ignore[arg-type]  # as it came

        world.store.commit = once  # type: ignore[method-assign]  # a test stands in its way
        await broker.sweep()
        assert failed
        assert world.target.accounts == {}

    run(body())


def test_a_clock_set_back_revives_nothing_and_extends_nothing(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        world.later(901)
        await broker.sweep()
        world.later(-3600)
        again = world.broker()
        await again.start()
        with pytest.raises(UnavailableError, match="clock"):
            await world.opened(again)
        with pytest.raises(ExpiredError):
            again._tasks.check(root.id)

    run(body())


class KeptCheckpoint:
    """A second place that remembers one checkpoint."""

    def __init__(self, size: int, root: bytes) -> None:
        self.size, self.root = size, root

    async def last(self) -> Checkpoint:
        return checkpoint("remit.test/log", self.size, self.root, NoSigner())

    async def keep(self, size: int, root: bytes, epoch: int, known: Checkpoint | None) -> tuple[Checkpoint, bool]:
        del epoch
        last = await self.last()
        return (last, False) if known != last else (checkpoint("remit.test/log", size, root, NoSigner()), True)


class NoSigner:
    """A signer whose signature nobody checks here."""

    def sign(self, _data: bytes) -> bytes:
        return b"\0" * 64

    def public_jwk(self) -> dict[str, str]:
        return {"kty": "OKP", "crv": "Ed25519", "x": "A" * 43}


@pytest.mark.parametrize("size", [2, 100])
def test_a_rolled_back_log_ends_every_task_and_serves_nothing(world: World, size: int) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        await broker.issue(OPERATOR, root.id, DETAIL)
        again = Broker(
            store=world.store,
            **serving(world._engine),
            sealer=broker._registry._sealer,
            clock=lambda: world.now,
            new_id=lambda prefix: prefix,
            witness=KeptCheckpoint(size, b"\1" * 32),
        )
        await again.start()
        assert world.target.accounts == {}
        with pytest.raises(IntegrityError):
            await world.opened(again)
        with pytest.raises(IntegrityError):
            await permitted_use(again, root.id, Access("search", "GET", "/v1/x"), "r")

    run(body())


def test_an_extended_log_serves(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        _, head = await broker._store.root(2)
        again = world.broker()
        again.checkpoints = Checkpoints(again._tasks, again._revoker, KeptCheckpoint(2, head))
        await again.start()
        await world.opened(again)
        assert await broker.nodes(((0, 1),)) == await world.store.nodes(((0, 1),))
        await again.stop()

    run(body())


def test_what_cannot_be_tidied_up_now_is_left_for_later(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        first, second = await broker.issue(OPERATOR, root.id, DETAIL), await broker.issue(OPERATOR, root.id, DETAIL)
        await broker.revoke(OPERATOR, root.id)
        assert len(world.target.residue) == 2
        lost = broker._registry._resources.pop("warehouse")
        await broker._registry.close()
        await broker.sweep()
        assert set(broker._tasks.task_of(root.id).leases) == {first.lease.id, second.lease.id}
        broker._registry._resources["warehouse"] = lost
        world.engine = PlainEngine
        await broker.sweep()
        assert len(world.target.residue) == 2
        await broker._registry.close()
        world.engine = FullEngine
        await broker.sweep()
        assert world.target.residue == set()

    run(body())


def test_what_seals_handles_is_a_live_grants_own_and_the_same_after_a_restart(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        one, other = await world.opened(broker), await world.opened(broker)
        key = await broker.handle_key(one.id)
        assert key == Secret(ClearSealer().mac(f"handles\n{one.id}".encode()))
        assert key != await broker.handle_key(other.id)
        again = world.broker()
        await again.start()
        assert key == await again.handle_key(one.id)
        await again.revoke(OPERATOR, one.id)
        with pytest.raises(RevokedError):
            await again.handle_key(one.id)
        with pytest.raises(NotFoundError):
            await again.handle_key("grt_none")

    run(body())
