"""What was stored under a clock that was ahead, once the right time is accepted."""

from __future__ import annotations

from datetime import timedelta

import pytest

from remit.broker.sessions import LoginRevocations
from remit.errors import ConflictError, RemitError
from tests.broker.asking import House, kept
from tests.broker.world import OPERATOR, START, World, run
from tests.sessions.login_scene import Issuer, alive, said

AHEAD = timedelta(days=100)


def test_time_goes_back_at_that_entry_alone_and_only_when_all_has_ended() -> None:
    async def scenario() -> None:
        world = World(now=START + AHEAD)
        broker = await world.ready()
        root = await world.opened(broker)
        world.now = START
        broker = world.broker()
        await broker.start()
        assert broker.wall.behind
        with pytest.raises(ConflictError, match="a task is open"):
            await broker.wall.accept(OPERATOR)
        await broker.close(OPERATOR, broker._tasks.task_of(root.id).id)
        before, now = await broker.wall.accept(OPERATOR)
        assert (before, now) == (START + AHEAD, START)
        assert [(e.event, e.at) for e in (await world.events())[-2:]] == [
            ("task.close", START + AHEAD),
            ("clock.accept", START),
        ]
        broker = world.broker()
        await broker.start()
        assert not broker.wall.behind
        assert alive(broker, await world.opened(broker))

    run(scenario())


def test_a_logout_that_was_heard_under_the_wrong_clock_bars_no_login_after_it() -> None:
    async def scenario() -> None:
        issuer = Issuer()
        issuer.world.now = START + AHEAD
        broker = await issuer.world.ready()
        await broker.signal([said()])
        issuer.world.now = START
        broker = issuer.world.broker()
        await broker.start()
        await broker.wall.accept(OPERATOR)
        broker = issuer.world.broker()
        await broker.start()
        with pytest.raises(RemitError):
            await issuer.opened(broker)  # it logged in before
        issuer.world.later(60)
        assert alive(broker, await issuer.opened(broker))

    run(scenario())


def test_what_was_asked_under_the_wrong_clock_has_lapsed_and_takes_no_room() -> None:
    async def scenario() -> None:
        house = House()
        house.world.now = START + AHEAD
        broker = await house.world.ready()
        root = await house.root(broker)
        item = await house.ask(broker, root)
        await broker.close(OPERATOR, broker._tasks.task_of(root.id).id)
        house.world.now = START
        broker = house.world.broker()
        await broker.start()
        await broker.wall.accept(OPERATOR)
        broker = house.world.broker()
        await broker.start()
        assert [(one.id, one.asked_at, one.expires_at) for one in kept(broker)] == [(item.id, START, START)]
        house.world.later(3_600)
        await house.ask(broker, await house.root(broker))
        assert len(kept(broker)) == 1  # the other was forgotten

    run(scenario())


def test_a_broker_that_hears_no_issuer_goes_by_the_wall_as_well() -> None:
    async def scenario() -> None:
        world = World(now=START + AHEAD)
        broker = await world.ready()
        await broker.note(OPERATOR, "key.rotate", "done")
        world.now = START
        hears_none = LoginRevocations()
        broker = world.broker(revocations=lambda _: hears_none)
        await broker.start()
        assert list(hears_none.brought_back(START)) == []
        assert await broker.wall.accept(OPERATOR) == (START + AHEAD, START)
        assert not broker.wall.behind

    run(scenario())
