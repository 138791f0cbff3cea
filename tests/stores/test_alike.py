"""The embedded store does what the store in memory does, whatever is committed, together or apart, over restarts."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from hypothesis import event as count
from hypothesis import given, settings
from hypothesis import strategies as st

from remit.core.grant import GrantContext
from remit.core.request import Bounds, GrantRequest
from remit.core.task import Change, nothing
from remit.errors import ConflictError, NotFoundError, RemitError
from remit.keys.file import FileSealer
from remit.ports import DeleteResource, PutResource, PutSecret, SealedSecret, Spend, Store, UsedToken, Write
from remit.stores.sqlite import SqliteStore
from remit.testing.samples import NOW, RESOURCE, SCOPE, event, lease, opening
from tests.support.memory_store import MemoryStore

Commit = Sequence[Write]


def histories() -> list[Change]:
    """Return changes of two tasks, some of which follow from one another and some of which are rivals."""
    found = []
    for name in ("task_a", "task_b"):
        first = opening(name)
        task = nothing(name).apply(first)
        root = task.head.root
        child = task.delegate(
            root, f"{name}_child", GrantRequest(SCOPE[:2], Bounds(depth=1, fan_out=1)), GrantContext(), NOW
        )
        planned = task.plan(lease(f"{name}_lse", root), NOW)
        grown = task.apply(child)
        ended = grown.revoke(root)
        later = grown.plan(lease(f"{name}_other", f"{name}_child"), NOW)
        gone = replace(grown.apply(later).revoke_leases(()), forget=(f"{name}_other",))
        found += [first, child, planned, ended, later, gone]
    return found


NAMES = st.sampled_from(["one", "two"])
WRITES: st.SearchStrategy[Write] = st.one_of(
    st.sampled_from(histories()),
    st.builds(Spend, st.just("task_a"), NAMES, st.integers(0, 1), st.integers(0, 9)),
    st.builds(lambda name, secret: PutResource(replace(RESOURCE, name=name, secret=secret)), NAMES, st.none() | NAMES),
    st.builds(DeleteResource, NAMES),
    st.builds(
        lambda name, version, resource: PutSecret(SealedSecret(name, version, resource, "d", b"%d" % version)),
        NAMES,
        st.integers(1, 3),
        NAMES,
    ),
    st.builds(UsedToken, NAMES, st.just(NOW + timedelta(days=1))),
)
COMMITS = st.lists(WRITES, max_size=3)
GROUPS = st.lists(st.lists(COMMITS, min_size=1, max_size=5), min_size=1, max_size=6)


async def outcomes(store: Store, group: Sequence[Commit]) -> list[type]:
    """Commit a group at once; return what became of each."""
    done = (store.commit(list(commit), [event(request=str(n))]) for n, commit in enumerate(group))
    return [type(outcome) for outcome in await asyncio.gather(*done, return_exceptions=True)]


async def content(store: Store) -> list[object]:
    """Return everything that can be read."""
    found: list[object] = [list(await store.tasks(9)), sorted(await store.unsettled()), list(await store.resources())]
    for name in ("task_a", "task_b"):
        found.append(sorted((spend.grant, spend.index, spend.used) for spend in await store.spent(name)))
        found.append(await answer(store.load(name)))
    found += [await answer(store.secret(name)) for name in ("one", "two")]
    return [*found, list(await store.entries(0, 1_000)), await store.root(), list(await store.leaves(0, 1_000))]


async def answer(question: Awaitable[object]) -> object:
    """Return the answer, or the type of the error."""
    try:
        return await question
    except RemitError as error:
        return type(error)


@settings(max_examples=60)
@given(GROUPS)
def test_both_stores_end_alike(groups: list[list[Commit]]) -> None:
    async def both(place: Path) -> None:
        memory: Store = MemoryStore()
        for group in groups:
            sqlite: Store = SqliteStore(place / "state", FileSealer(b"k" * 32))
            expected = await outcomes(memory, group)
            assert await outcomes(sqlite, group) == expected
            for kind in (ConflictError, NotFoundError, type(None)):
                if kind in expected:
                    count(kind.__name__)
            assert await content(sqlite) == await content(memory)
            await sqlite.close()

    with tempfile.TemporaryDirectory() as place:
        asyncio.run(both(Path(place)))
