"""The in-memory heads: what a failed commit does, and how a live grant is looked up."""

from __future__ import annotations

import asyncio

import pytest

from remit.broker import tasks as tasks_module
from remit.broker.broker import RECENT
from remit.broker.tasks import TaskCache
from remit.core.request import Binding, GrantRequest
from remit.core.task import Task
from remit.errors import ConflictError, NotFoundError, UnavailableError
from remit.jose import token
from tests.broker.world import OPERATOR, TABLE, World, child, details, run


def test_a_failed_commit_that_gives_takes_the_head_back_to_the_store(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        commit = world.store.commit

        async def refuse(*_: object) -> None:
            raise UnavailableError

        world.store.commit = refuse  # type: ignore[method-assign,assignment]  # it fails

        with pytest.raises(UnavailableError):
            await broker.delegate(OPERATOR, root.id, child(TABLE))
        world.store.commit = commit  # type: ignore[method-assign]  # a test stands in its way
        assert list(broker._tasks.task_of(root.id).grants) == [root.id]
        await broker.delegate(OPERATOR, root.id, child(TABLE))

    run(body())


def test_a_task_that_could_not_be_opened_does_not_exist(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()

        async def refuse(*_: object) -> None:
            raise UnavailableError

        world.store.commit = refuse  # type: ignore[method-assign,assignment]  # it fails
        with pytest.raises(UnavailableError):
            await world.opened(broker)
        assert list(broker._tasks) == []

    run(body())


def test_changes_of_one_task_queue_on_the_head_and_all_become_durable(world: World) -> None:
    async def body() -> None:

        broker = await world.ready()
        root = await world.opened(broker, fan_out=50)
        kids = await asyncio.gather(*(broker.delegate(OPERATOR, root.id, child(TABLE)) for _ in range(50)))
        stored: Task = await world.store.load(broker._tasks.task_of(root.id).id)
        assert {kid.id for kid in kids} <= set(stored.grants)
        assert stored == broker._tasks.task_of(root.id)

    run(body())


def test_a_change_made_elsewhere_is_a_conflict_and_then_known(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        other = world.broker()
        await other.start()
        await other.revoke(OPERATOR, root.id)
        with pytest.raises(ConflictError):
            await broker.issue(OPERATOR, root.id, details(TABLE)[0])
        assert broker._tasks.task_of(root.id).head.closed

    run(body())


def test_what_is_not_loaded_is_not_found(world: World) -> None:
    async def body() -> None:
        heads = TaskCache(world.store, lambda: world.now)
        heads.forget("task_unknown")
        for look in (heads.live, heads.check, heads.task, heads.task_of, heads.task_of_lease):
            with pytest.raises(NotFoundError):
                look("unknown")

    run(body())


def test_an_event_of_an_unknown_grant_carries_what_is_known(world: World) -> None:
    event = TaskCache(world.store, lambda: world.now).event("resource.use", "deny", "grt_x", code="not-found")
    assert (event.grant, event.code, event.task, event.lineage) == ("grt_x", "not-found", None, ())


@pytest.mark.parametrize("whole", [True, False])
def test_the_place_of_what_ended_is_not_given_again_across_a_restart_while_its_token_could_live(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    whole: bool,  # noqa: FBT001 - a parameter
) -> None:
    """Else the token would be good again to whoever goes by the status list."""
    monkeypatch.setattr(tasks_module, "PLACES", 64)

    async def body() -> None:
        broker = await world.ready()
        ended = await world.opened(broker, jkt="key", fan_out=5)
        if not whole:
            ended = (
                await broker.delegate(OPERATOR, ended.id, GrantRequest(details(TABLE), binding=Binding(jkt="other")))
            ).grant
        await broker.revoke(OPERATOR, ended.id)
        if not whole:
            await broker.close(OPERATOR, broker._tasks.task_of(ended.id).id)
        for _ in range(RECENT):
            await broker.close(OPERATOR, broker._tasks.task_of((await world.opened(broker)).id).id)
        await broker.stop()
        world.later(token.LIFE.total_seconds())
        broker = await world.ready()
        assert ended.status not in [(await world.opened(broker, jkt="key")).status for _ in range(62)]

    run(body())


def test_what_ended_before_the_last_life_of_a_token_is_not_loaded_for_its_place(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        ended = await world.opened(broker, jkt="key")
        await broker.revoke(OPERATOR, ended.id)
        for _ in range(RECENT):
            await broker.close(OPERATOR, broker._tasks.task_of((await world.opened(broker)).id).id)
        await broker.stop()
        world.later(token.LIFE.total_seconds() + token.SKEW + 1)
        broker = await world.ready()
        with pytest.raises(NotFoundError):
            broker._tasks.task_of(ended.id)

    run(body())
