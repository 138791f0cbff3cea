"""What every implementation of ``ports.Store`` must do.

Run it against yours::

    from remit.testing.store_contract import CASES, store_contract


    @pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
    def test_my_store_keeps_the_contract(case, tmp_path):
        store_contract(case, lambda: MyStore(tmp_path))

The factory opens the store; called again after ``close``, it must open the same state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import wraps

from remit.core.audit import encode, read
from remit.core.grant import GrantContext
from remit.core.request import GrantRequest
from remit.core.task import Change, nothing
from remit.core.tree import consistency_path, inclusion_path, leaf_hash, root_of, verify_consistency, verify_inclusion
from remit.errors import ConflictError, NotFoundError
from remit.ports import (
    DeleteResource,
    NotedEnd,
    PutRecord,
    PutResource,
    PutSecret,
    Record,
    SealedSecret,
    Spend,
    Store,
    UsedToken,
    Write,
)
from remit.testing import raises
from remit.testing.samples import NOW, RESOURCE, SCOPE, event, opening, task_with_leases

Open = Callable[[], Store]
Case = Callable[[Open], Coroutine[None, None, None]]


def store_contract(case: Case, factory: Open) -> None:
    """Run one case."""
    asyncio.run(case(factory))


def _on_one(case: Callable[[Store], Awaitable[None]]) -> Case:
    """Return a case that opens a store, tries ``case`` on it, and closes it."""

    @wraps(case)
    async def opened(factory: Open) -> None:
        store = factory()
        await case(store)
        await store.close()

    return opened


async def _fill(store: Store, changes: Sequence[Change]) -> None:
    for change in changes:
        await store.commit([change], [event(task=change.head.id)])


async def a_task_loads_exactly_as_it_was_committed(store: Store) -> None:
    """Every field of head, grants, leases and plans, the order of children, instants to the microsecond."""
    task, changes = task_with_leases()
    await _fill(store, changes)
    assert await store.load(task.id) == task
    assert await store.load(task.id) == task


async def an_unknown_task_is_not_found(store: Store) -> None:
    await raises(NotFoundError, store.load("task_unknown"))


async def a_change_on_another_revision_conflicts_and_changes_nothing(store: Store) -> None:
    """Compare-and-set on the revision; the events and the other writes of the commit do not stay either."""
    first = opening()
    await store.commit([first], [event()])
    task = nothing("task_1").apply(first)
    second = task.revoke(task.head.root)
    for stale in (first, replace(second, base=5, head=replace(second.head, rev=6))):
        writes: list[Write] = [Spend("task_1", "g", 0, 9), PutResource(RESOURCE), UsedToken("b", NOW), stale]
        await raises(ConflictError, store.commit(writes, [event("grant.revoke")]))
    assert await store.load("task_1") == task
    assert (list(await store.spent("task_1")), list(await store.resources())) == ([], [])
    assert await store.size() == 1
    await store.commit([UsedToken("b", NOW), second], [event("grant.revoke")])
    assert (await store.load("task_1")).head.closed


async def the_first_change_of_a_task_has_base_zero(store: Store) -> None:
    change = opening()
    await raises(ConflictError, store.commit([replace(change, base=3, head=replace(change.head, rev=4))], []))
    await raises(NotFoundError, store.load("task_1"))


async def a_revision_grows_by_one(store: Store) -> None:
    change = opening()
    for rev in (0, 2):
        await raises(ConflictError, store.commit([replace(change, head=replace(change.head, rev=rev))], [event()]))
    await store.commit([change], [event()])


async def a_commit_may_hold_several_changes_of_a_task(store: Store) -> None:
    """In their order; out of order none of them stays."""
    task, changes = task_with_leases()
    await raises(ConflictError, store.commit(changes[::-1], [event()]))
    await raises(NotFoundError, store.load(task.id))
    await store.commit(changes, [event()])
    assert await store.load(task.id) == task


async def of_rival_changes_one_wins(store: Store) -> None:
    change = opening()
    await store.commit([change], [])
    task = nothing("task_1").apply(change)
    rivals = [task.delegate("task_1_root", f"grt_{i}", GrantRequest(SCOPE[:1]), GrantContext(), NOW) for i in range(16)]
    outcomes = await asyncio.gather(*(store.commit([rival], [event()]) for rival in rivals), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None)] + [ConflictError] * 15
    assert await store.load("task_1") == task.apply(rivals[0])
    assert await store.size() == 1


async def changes_of_a_task_may_be_queued_one_upon_another(store: Store) -> None:
    task, changes = task_with_leases()
    await asyncio.gather(*(store.commit([change], [event()]) for change in changes))
    assert await store.load(task.id) == task


async def a_conflict_does_not_take_its_neighbours_with_it(store: Store) -> None:
    """Only what is built upon a commit that failed fails with it."""
    stale = replace(opening("task_x"), base=1)
    commits: list[list[Write]] = [
        [opening("task_1")],
        [stale],
        [opening("task_2")],
        [PutResource(RESOURCE), stale],
        [opening("task_3")],
    ]
    outcomes = await asyncio.gather(*(store.commit(some, [event()]) for some in commits), return_exceptions=True)
    assert [isinstance(outcome, ConflictError) for outcome in outcomes] == [False, True, False, True, False]
    assert (sorted(await store.tasks(9)), await store.size()) == (["task_1", "task_2", "task_3"], 3)
    assert list(await store.resources()) == []


async def open_tasks_and_tasks_with_leases_are_unsettled(store: Store) -> None:
    """Until the last lease of a closed task is forgotten."""
    task, changes = task_with_leases()
    await _fill(store, [*changes, opening("task_2")])
    closing = task.revoke(task.head.root)
    other = nothing("task_2").apply(opening("task_2"))
    await _fill(store, [closing, other.revoke(other.head.root)])
    assert list(await store.unsettled()) == [task.id]
    task = task.apply(closing)
    task = task.apply(done := task.settle(frozenset(task.leases), frozenset(), frozenset(), NOW + timedelta(days=1)))
    gone = task.cleaned(frozenset(task.leases))
    await _fill(store, [done, gone])
    assert list(await store.unsettled()) == []
    assert await store.load(task.id) == task.apply(gone)


async def tasks_are_listed_newest_first(store: Store) -> None:
    """By when they were opened, not by when they last changed."""
    await _fill(store, [opening(f"task_{number}") for number in (3, 1, 2)])
    task = nothing("task_3").apply(opening("task_3"))
    await _fill(store, [task.revoke(task.head.root)])
    assert list(await store.tasks(9)) == ["task_2", "task_1", "task_3"]
    assert list(await store.tasks(2)) == ["task_2", "task_1"]


async def a_counter_holds_its_last_value(store: Store) -> None:
    values = [Spend("task_1", "grt_a", 0, used) for used in range(1, 9)]
    await asyncio.gather(*(store.commit([value], [event()]) for value in values))
    await store.commit([Spend("task_1", "grt_a", 1, 5), Spend("task_2", "grt_a", 0, 7)], [])
    found = sorted(await store.spent("task_1"), key=lambda spend: spend.index)
    assert found == [Spend("task_1", "grt_a", 0, 8), Spend("task_1", "grt_a", 1, 5)]
    assert list(await store.spent("task_9")) == []


async def resources_are_put_replaced_and_deleted(store: Store) -> None:
    """Listed by name; deleting an unknown one is an error."""
    other = replace(RESOURCE, name="a", kind="sample-tables", bound=(), secret=None, settings={})
    await store.commit([PutResource(RESOURCE), PutResource(other)], [event("resource.put")])
    assert list(await store.resources()) == [other, RESOURCE]
    changed = replace(RESOURCE, destination="https://elsewhere.example")
    await store.commit([PutResource(changed), DeleteResource("a")], [event("resource.put")])
    assert list(await store.resources()) == [changed]
    await raises(NotFoundError, store.commit([DeleteResource("a")], [event("resource.delete")]))
    assert await store.size() == 2


async def a_secret_is_replaced_one_version_at_a_time(store: Store) -> None:
    await raises(NotFoundError, store.secret("key"))
    secret = SealedSecret("key", 1, "search", "https://api.search.example/base", bytes(range(256)))
    await raises(ConflictError, store.commit([PutSecret(replace(secret, version=2))], []))
    await store.commit([PutSecret(secret)], [])
    assert await store.secret("key") == secret
    newer = replace(secret, version=2, sealed=b"\x00new")
    rivals = (store.commit([PutSecret(newer)], []), store.commit([PutSecret(newer)], []))
    outcomes = await asyncio.gather(*rivals, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), ConflictError]
    assert await store.secret("key") == newer


async def a_resource_takes_its_secret_with_it(store: Store) -> None:
    """Also when both were put in the same group; other secrets stay, and it can be put again."""
    secret = SealedSecret("key", 1, "search", "https://api.search.example", b"sealed")
    other = replace(secret, name="other", resource="b")
    await store.commit([PutResource(RESOURCE), PutSecret(secret), PutSecret(other)], [])
    moved = replace(secret, version=2, resource="b")
    await store.commit([PutSecret(moved), DeleteResource("search")], [])
    assert (await store.secret("key"), await store.secret("other")) == (moved, other)
    await store.commit([PutResource(RESOURCE), PutSecret(replace(secret, version=3))], [])
    await store.commit([DeleteResource("search")], [])
    await raises(NotFoundError, store.secret("key"))
    assert await store.secret("other") == other
    await asyncio.gather(
        store.commit([PutResource(RESOURCE), PutSecret(secret)], []), store.commit([DeleteResource("search")], [])
    )
    await raises(NotFoundError, store.secret("key"))
    await store.commit([PutResource(RESOURCE), PutSecret(secret)], [])
    assert await store.secret("key") == secret


async def a_value_burns_once(store: Store) -> None:
    burn = UsedToken("digest", NOW + timedelta(hours=1))
    commits = (store.commit([burn, opening(f"task_{number}")], [event()]) for number in range(16))
    outcomes = await asyncio.gather(*commits, return_exceptions=True)
    assert sum(outcome is None for outcome in outcomes) == 1
    assert len(await store.tasks(99)) == await store.size() == 1
    await raises(ConflictError, store.commit([burn], []))


async def a_record_is_replaced_one_revision_at_a_time(factory: Open) -> None:
    """Of rivals one wins, kinds do not mix, and everything is there after a reopening."""
    store = factory()
    first = Record("approval", "apr_1", 1, b'{"a":1}', NOW + timedelta(hours=1))
    rivals = [replace(first, rev=2, body=b'{"a":%d}' % number) for number in range(8)]
    await store.commit([PutRecord(first), PutRecord(replace(first, id="apr_0"))], [event()])
    await raises(ConflictError, store.commit([PutRecord(first)], [event()]))
    won = await asyncio.gather(*(store.commit([PutRecord(r)], [event()]) for r in rivals), return_exceptions=True)
    assert [type(error) for error in won].count(ConflictError) == len(rivals) - 1
    await raises(ConflictError, store.commit([PutRecord(replace(first, rev=4))], [event()]))
    await store.commit([PutRecord(replace(first, kind="signal"))], [event()])
    await store.close()

    store = factory()
    assert [record.id for record in await store.records("approval")] == ["apr_0", "apr_1"]
    assert (await store.records("approval"))[1] == rivals[won.index(None)]
    assert list(await store.records("signal")) == [replace(first, kind="signal")]
    assert list(await store.records("other")) == []
    await store.close()


async def entries_stand_in_the_order_of_calls(store: Store) -> None:
    await asyncio.gather(*(store.commit([], [event(request=f"{i}a"), event(request=f"{i}b")]) for i in range(200)))
    entries = await store.entries(0, 1_000)
    assert [read(entry).request for entry in entries] == [f"{i}{half}" for i in range(200) for half in "ab"]
    assert [entry.seq for entry in entries] == list(range(400))
    assert entries[7].leaf == encode(7, event(request="3b"))
    assert list(await store.entries(398, 9)) == list(entries[398:])
    assert list(await store.entries(0, 2)) == list(entries[:2])
    assert list(await store.entries(400, 2)) == []


async def the_tree_and_its_proofs_are_those_of_the_entries(store: Store) -> None:
    """At every size around whole tiles."""
    assert await store.root() == (0, root_of(()))
    for start in range(0, 700, 100):
        await store.commit([], [event(request=str(start + number)) for number in range(100)])
    hashes = [leaf_hash(entry.leaf) for entry in await store.entries(0, 1_000)]
    assert list(await store.leaves(0, 700)) == hashes
    assert list(await store.leaves(250, 300)) == hashes[250:300]
    size, root = await store.root()
    assert (size, root) == (700, root_of(hashes))
    for old in (1, 2, 255, 256, 257, 512, 511, 699, 700):
        assert await store.root(old) == (old, root_of(hashes[:old]))
        proof = await store.nodes(consistency_path(old, size))
        verify_consistency(old, root_of(hashes[:old]), size, root, proof)
        verify_inclusion(hashes[old - 1], old - 1, size, await store.nodes(inclusion_path(old - 1, size)), root)
    await raises(NotFoundError, store.root(701))


async def nothing_is_written_twice_or_lost_over_a_reopening(factory: Open) -> None:
    store = factory()
    task, changes = task_with_leases()
    await _fill(store, changes)
    secret = SealedSecret("key", 1, "search", "https://api.search.example", b"sealed")
    burn = UsedToken("digest", NOW + timedelta(hours=1))
    await store.commit([PutResource(RESOURCE), PutSecret(secret), Spend(task.id, "g", 0, 3), burn], [event()])
    head = await store.root()
    await store.close()

    store = factory()
    assert await store.load(task.id) == task
    assert (list(await store.resources()), await store.secret("key")) == ([RESOURCE], secret)
    assert list(await store.spent(task.id)) == [Spend(task.id, "g", 0, 3)]
    assert await store.root() == head
    await raises(ConflictError, store.commit([burn], []))
    closing = task.revoke(task.head.root)
    await store.commit([closing, PutSecret(replace(secret, version=2)), Spend(task.id, "g", 0, 4)], [event()])
    await store.close()

    store = factory()
    assert await store.load(task.id) == task.apply(closing)
    assert await store.size() == head[0] + 1
    await store.close()


async def what_ended_is_noted_in_place_of_what_was_noted_before(factory: Open) -> None:
    """Whole tasks, grants, leases and nothing; over a reopening."""
    store = factory()
    assert list(await store.noted_ends()) == []
    for ends in ([NotedEnd("task_1", ("grt_a", "grt_b"), ("lse_c",))], [], [NotedEnd("task_1"), NotedEnd("task_2")]):
        await store.note_ends(ends)
        assert list(await store.noted_ends()) == ends
        await store.close()
        store = factory()
        assert list(await store.noted_ends()) == ends
    await store.close()


CASES: tuple[Case, ...] = (
    _on_one(a_task_loads_exactly_as_it_was_committed),
    _on_one(an_unknown_task_is_not_found),
    _on_one(a_change_on_another_revision_conflicts_and_changes_nothing),
    _on_one(the_first_change_of_a_task_has_base_zero),
    _on_one(a_revision_grows_by_one),
    _on_one(a_commit_may_hold_several_changes_of_a_task),
    _on_one(of_rival_changes_one_wins),
    _on_one(changes_of_a_task_may_be_queued_one_upon_another),
    _on_one(a_conflict_does_not_take_its_neighbours_with_it),
    _on_one(open_tasks_and_tasks_with_leases_are_unsettled),
    _on_one(tasks_are_listed_newest_first),
    _on_one(a_counter_holds_its_last_value),
    _on_one(resources_are_put_replaced_and_deleted),
    _on_one(a_secret_is_replaced_one_version_at_a_time),
    _on_one(a_resource_takes_its_secret_with_it),
    _on_one(a_value_burns_once),
    a_record_is_replaced_one_revision_at_a_time,
    _on_one(entries_stand_in_the_order_of_calls),
    _on_one(the_tree_and_its_proofs_are_those_of_the_entries),
    nothing_is_written_twice_or_lost_over_a_reopening,
    what_ended_is_noted_in_place_of_what_was_noted_before,
)
