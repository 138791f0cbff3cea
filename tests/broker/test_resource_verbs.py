"""Resources and secrets on record, and bounds that bind what is live already."""

from __future__ import annotations

from dataclasses import replace

import pytest

from remit.core import scope
from remit.core.secret import Secret
from remit.errors import NotFoundError, RevokedError
from remit.ports import Finding
from tests.broker.world import OPERATOR, TABLE, World, run, search, warehouse


def test_a_changed_bound_leaves_its_digest_on_record_and_a_stored_secret_its_own_entry(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        await broker.put_resource(OPERATOR, search())
        await broker.put_secret(OPERATOR, "search", Secret("rotated-0123456789ab"))
        last = [(e.event, e.resource, e.detail_s256) for e in await world.events()][-3:]
        bound = scope.digest(search().bound)
        assert last == [
            ("resource.put", "search", bound),
            ("resource.put", "search", bound),
            ("secret.put", "search", None),
        ]

    run(body())


def test_a_removed_resource_ends_the_tasks_that_hold_it(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        both, one = await world.opened(broker), await world.opened(broker, TABLE)
        await broker.delete_resource(OPERATOR, "search")
        with pytest.raises(RevokedError):
            broker._tasks.check(both.id)
        broker._tasks.check(one.id)
        with pytest.raises(NotFoundError):
            await broker.delete_resource(OPERATOR, "search")

    run(body())


def test_a_wider_bound_ends_nothing(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        wider = (*warehouse().bound, *scope.parse([{**TABLE, "tables": ["sales.cost"]}]))
        await broker.put_resource(OPERATOR, replace(warehouse(), bound=wider), Secret("admin-pw"))
        broker._tasks.check(root.id)

    run(body())


def test_what_is_kept_sealed_says_so_in_every_grant(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        assert (await world.opened(broker)).posture.at_rest == "kek-file"

    run(body())


def test_looking_at_a_resource_tells_what_is_wrong_there_and_changes_nothing(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        size = await broker._store.size()
        world.target.findings = [Finding("superuser", "the login is superuser", acceptable=False)]
        assert await broker.check_resource("warehouse") == world.target.findings
        assert list(await broker.check_resource("search")) == []
        assert await broker._store.size() == size

    run(body())
