from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest
from msgspec import structs

from remit.broker import Broker
from remit.broker.run_records import KIND, RunRecords
from remit.core.grant import Posture
from remit.core.principal import Holder
from remit.core.request import Bounds, GrantRequest
from remit.core.scope import Access
from remit.core.secret import Secret
from remit.core.task import Grant
from remit.errors import ConflictError, IntegrityError, UnavailableError
from remit.keys.file import FileSealer
from remit.ports import PutRecord
from remit.ports.runs import KeptRun, ReachedHost, RunListener, RunReach
from tests.broker.world import OPERATOR, SEARCH, World, details, run

CHANNEL = Posture(custody="channel")
NARROW = GrantRequest(details({**SEARCH, "uses": 1}), Bounds(timedelta(minutes=5)))
HOSTS = {"search.test": ReachedHost("search", "/v1")}
REACH = RunReach(HOSTS, "its certificate", Secret("the key of its authority"), {"*.files.test": "files"})
PLACEHOLDER = "sk-placeholder-of-the-run"


def kept(task: str, grant: str, rev: int = 1) -> KeptRun:
    listeners = (RunListener("gateway", port=8471), RunListener("channel", path="/run/remit/channel.sock"))
    places: dict[str, int | str] = {"gateway": 8471, "channel": "/run/remit/channel.sock"}
    placeholders = {"search": PLACEHOLDER}
    more = (("namespace",), "/run/1.sock", listeners, placeholders, places, b"\0" * 32, REACH)
    return KeptRun("run_1", rev, task, grant, "task", None, *more)


async def held(broker: Broker) -> tuple[str, Grant]:
    """Open a task whose root a channel holds."""
    view = await broker.open(OPERATOR, replace(NARROW, purpose="run"), CHANNEL)
    return view.task, view.grant


def test_a_run_is_kept_as_it_was_over_a_restart_and_each_hand_over_replaces_the_one_before(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        task, grant = await held(broker)
        for rev in (1, 2):
            await broker.runs.keep(kept(task, grant.id, rev), grant.expires_at)
        with pytest.raises(ConflictError):
            await broker.runs.keep(kept(task, grant.id, 2), grant.expires_at)
        again = world.broker()
        await again.start()
        assert await again.runs.load() == [kept(task, grant.id, 2)]
        events = [event for event in await world.events() if event.event == "run.serve"]
        assert [(event.decision, event.grant, event.request) for event in events] == [("done", grant.id, "run_1")] * 2

    run(body())


def test_a_run_that_is_over_is_not_loaded(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        (task, grant), (other, ended) = await held(broker), await held(broker)
        await broker.runs.keep(kept(task, grant.id), world.now)  # it has ended
        assert await broker.runs.load() == []
        await broker.runs.keep(replace_id(kept(other, ended.id)), ended.expires_at)
        assert len(await broker.runs.load()) == 1
        await broker.close(OPERATOR, other)
        assert await broker.runs.load() == []

    run(body())


def replace_id(one: KeptRun) -> KeptRun:
    return KeptRun("run_2", *(getattr(one, name) for name in KeptRun.__struct_fields__[1:]))


def test_what_is_kept_is_sealed_for_its_own_place(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        task, grant = await held(broker)
        sealed = RunRecords(broker._tasks, FileSealer(b"k" * 32))
        await sealed.keep(kept(task, grant.id), grant.expires_at)
        [record] = await world.store.records(KIND)
        assert PLACEHOLDER.encode() not in record.body
        assert await sealed.load() == [kept(task, grant.id)]
        await world.store.commit((PutRecord(replace(record, id="run_2")),), ())
        with pytest.raises(IntegrityError):
            await sealed.load()

    run(body())


def test_a_record_that_is_none_is_a_damaged_state(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        task, grant = await held(broker)
        await broker.runs.keep(kept(task, grant.id), grant.expires_at)
        [record] = await world.store.records(KIND)
        await world.store.commit((PutRecord(replace(record, rev=2, body=b"7")),), ())
        with pytest.raises(IntegrityError):
            await broker.runs.load()

    run(body())


@pytest.mark.parametrize("known", [False, True], ids=["none at all", "none that are passed on"])
def test_a_record_of_a_broker_that_knew_no_hosts_is_read(world: World, known: bool) -> None:  # noqa: FBT001
    async def body() -> None:
        broker = await world.ready()
        task, grant = await held(broker)
        sealer = FileSealer(b"k" * 32)
        records = RunRecords(broker._tasks, sealer)
        await records.keep(kept(task, grant.id), grant.expires_at)
        [record] = await world.store.records(KIND)
        opened = sealer.open(msgspec.json.decode(record.body, type=bytes), b"run run_1 1")
        members = msgspec.json.decode(opened, type=dict[str, object])
        reach = members.pop("reach")
        assert isinstance(reach, dict)
        assert reach.pop("passed") == {"*.files.test": "files"}
        members |= {"reach": reach} if known else {}
        sealed = sealer.seal(msgspec.json.encode({**members, "rev": 2}), b"run run_1 2")
        await world.store.commit((PutRecord(replace(record, rev=2, body=msgspec.json.encode(sealed))),), ())
        assert await records.load() == [
            structs.replace(kept(task, grant.id, 2), reach=replace(REACH, passed={}) if known else None)
        ]

    run(body())


def test_what_is_held_by_a_channel_is_told_with_a_root_as_its_task(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        task, root = await held(broker)
        other = await world.opened(broker)
        part = (await broker.delegate(OPERATOR, other.id, NARROW, posture=CHANNEL)).grant
        await broker.delegate(OPERATOR, other.id, NARROW)
        ended, _ = await held(broker)
        await broker.close(OPERATOR, ended)
        apart = broker._tasks.task_of(other.id).id
        assert sorted(broker.runs.held(), key=lambda each: each[0].task) == sorted(
            [(Holder(task, root.id), "task"), (Holder(apart, part.id), "grant")], key=lambda each: each[0].task
        )

    run(body())


def test_under_a_grant_that_waits_for_its_run_nothing_is_permitted_and_ends_go_on(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        part = (await broker.delegate(OPERATOR, root.id, replace(NARROW, bounds=Bounds(depth=1, fan_out=1)))).grant
        below = (await broker.delegate(OPERATOR, part.id, NARROW)).grant
        task = broker._tasks.task_of(root.id).id
        broker.runs.wait(part.id)
        for grant in (part, below):
            holder = Holder(task, grant.id)
            for asked in (
                broker.grant(grant.id),
                broker.use(grant.id, Access("search", "GET", "/v1/search"), "r", 0),
                broker.issue(holder, grant.id, details(SEARCH)[0]),
                broker.delegate(holder, grant.id, NARROW),
            ):
                with pytest.raises(UnavailableError, match="yet to come back"):
                    await asked
        assert (await broker.grant(root.id)).id == root.id
        broker.runs.served(part.id)
        assert (await broker.grant(below.id)).id == below.id
        broker.runs.wait(part.id)
        assert (await broker.revoke(OPERATOR, part.id)).state == "closed"

    run(body())
