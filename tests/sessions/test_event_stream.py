"""What receivers are still to be told of ended tasks: in order, once they have taken it no more, across restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from remit.broker import Broker
from remit.core.audit import Entry
from remit.core.request import GrantRequest
from remit.errors import UnavailableError
from remit.sessions import transmitter
from remit.sessions.transmitter import EndedTask, EventStream
from tests.broker.world import OPERATOR, SEARCH, World, details, holder, run
from tests.sessions.login_scene import Brittle


@pytest.fixture
def world() -> World:
    """Return a fresh world."""
    return World()


async def ended(world: World, broker: Broker) -> str:
    """Open and close a task; return its id."""
    grant = await world.opened(broker)
    task = broker._tasks.task_of(grant.id).id
    await broker.close(OPERATOR, task)
    return task


def tasks(found: object) -> list[str | None]:
    """Return the tasks of what is pending."""
    assert isinstance(found, tuple)
    return [one.event.task for one in found if isinstance(one, EndedTask)]


def test_a_receiver_is_told_of_what_ends_from_when_it_is_known(world: World) -> None:
    async def scenario() -> None:
        broker = await world.ready()
        stream = EventStream(broker.sessions)
        await ended(world, broker)
        assert await stream.pending("siem", 9) == ()
        first, second = await ended(world, broker), await ended(world, broker)
        assert tasks(await stream.pending("siem", 9)) == [first, second]
        assert tasks(await stream.pending("siem", 1)) == [first]
        assert await stream.pending("other", 9) == ()

    run(scenario())


def test_what_was_taken_is_not_told_again_in_whatever_order(world: World) -> None:
    async def scenario() -> None:
        broker = await world.ready()
        stream = EventStream(broker.sessions)
        assert await stream.pending("siem", 9) == ()
        expected = [await ended(world, broker) for _ in range(3)]
        found = await stream.pending("siem", 9)
        await stream.acknowledge("siem", [found[1].seq, 10_000])
        assert tasks(await stream.pending("siem", 9)) == [expected[0], expected[2]]
        await stream.acknowledge("siem", [found[0].seq, found[1].seq])
        assert tasks(await stream.pending("siem", 9)) == [expected[2]]
        await stream.acknowledge("siem", [])
        log = [event for event in await world.events() if event.event == "signal.tell"]
        assert [(event.task, event.resource) for event in log] == [(expected[1], "siem"), (expected[0], "siem")]

    run(scenario())


class Slow(Brittle):
    """A store whose next read of the log can be held up."""

    held: asyncio.Event | None = None

    async def entries(self, start: int, limit: int) -> Sequence[Entry]:
        found, held = await super().entries(start, limit), self.held
        self.held = None
        if held is not None:
            self.reached.set()
            await held.wait()
        return found


def test_what_was_taken_is_not_told_again_to_whoever_asked_before(world: World) -> None:
    async def scenario() -> None:
        store = world.store = Slow()
        broker = await world.ready()
        stream = EventStream(broker.sessions)
        assert await stream.pending("siem", 9) == ()
        await ended(world, broker)
        store.held = held = asyncio.Event()
        early = asyncio.create_task(stream.pending("siem", 9))
        await store.reached.wait()
        [found] = await stream.pending("siem", 9)
        await stream.acknowledge("siem", [found.seq])
        held.set()
        assert await early == ()
        assert await stream.pending("siem", 9) == ()

    run(scenario())


def test_only_the_end_of_a_whole_task_is_told(world: World) -> None:
    async def scenario() -> None:
        broker = await world.ready()
        stream = EventStream(broker.sessions)
        assert await stream.pending("siem", 9) == ()
        root = await world.opened(broker)
        child = (await broker.delegate(holder(broker, root), root.id, GrantRequest(details(SEARCH)))).grant
        await broker.revoke(OPERATOR, child.id)
        assert await stream.pending("siem", 9) == ()
        await broker.revoke(OPERATOR, root.id)
        assert tasks(await stream.pending("siem", 9)) == [broker._tasks.task_of(root.id).id]

    run(scenario())


def test_a_restart_forgets_nothing_that_was_not_taken(world: World) -> None:
    async def scenario() -> None:
        broker = await world.ready()
        stream = EventStream(broker.sessions)
        assert await stream.pending("siem", 9) == ()
        first, second, third = [await ended(world, broker) for _ in range(3)]
        found = await stream.pending("siem", 9)
        await stream.acknowledge("siem", [found[1].seq])
        again = world.broker()
        await again.start()
        streamed = EventStream(again.sessions)
        assert tasks(await streamed.pending("siem", 9)) == [first, third]
        await streamed.acknowledge("siem", [found[0].seq])
        assert tasks(await streamed.pending("siem", 9)) == [third]
        assert second not in tasks(await streamed.pending("siem", 9))

    run(scenario())


def test_what_could_not_be_noted_is_told_again() -> None:
    async def scenario() -> None:
        store = Brittle()
        world = World(store=store)
        broker = await world.ready()
        stream = EventStream(broker.sessions)
        assert await stream.pending("siem", 9) == ()
        task = await ended(world, broker)
        found = await stream.pending("siem", 9)
        store.fail.append(UnavailableError())
        with pytest.raises(UnavailableError):
            await stream.acknowledge("siem", [found[0].seq])
        assert tasks(await stream.pending("siem", 9)) == [task]
        await stream.acknowledge("siem", [found[0].seq])
        assert await stream.pending("siem", 9) == ()

    run(scenario())


def test_a_receiver_whose_place_cannot_be_kept_is_not_begun_with() -> None:
    async def scenario() -> None:
        store = Brittle()
        broker = await World(store=store).ready()
        stream = EventStream(broker.sessions)
        store.fail.append(UnavailableError())
        with pytest.raises(UnavailableError):
            await stream.pending("siem", 9)
        assert await stream.pending("siem", 9) == ()

    run(scenario())


def test_many_that_ask_at_once_see_the_same(world: World) -> None:
    async def scenario() -> None:
        broker = await world.ready()
        stream = EventStream(broker.sessions)
        assert await asyncio.gather(*(stream.pending("siem", 9) for _ in range(3))) == [(), (), ()]
        task = await ended(world, broker)
        for found in await asyncio.gather(*(stream.pending("siem", 9) for _ in range(3))):
            assert tasks(found) == [task]

    run(scenario())


def test_a_place_moves_on_by_itself_past_what_is_of_no_interest(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transmitter, "STRIDE", 3)

    async def scenario() -> None:
        broker = await world.ready()
        stream = EventStream(broker.sessions)
        assert await stream.pending("siem", 9) == ()
        before = await revisions(world)
        for _ in range(4):
            await world.opened(broker)
        assert await stream.pending("siem", 9) == ()
        assert await revisions(world) == before + 1
        assert await stream.pending("siem", 9) == ()
        assert await revisions(world) == before + 1

    run(scenario())


async def revisions(world: World) -> int:
    """Return how often places were kept."""
    return sum(record.rev for record in await world.store.records(transmitter.KIND))
