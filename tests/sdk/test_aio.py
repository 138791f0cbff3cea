from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from remit.errors import AttenuationError, NotFoundError, UnavailableError
from remit.sdk import AsyncClient, Bounds, Place, acurrent, atask, current, detail, verbs
from remit.sdk.grant import current_grant
from tests.sdk.plane import Served

BOUNDS = Bounds("15m", depth=2, fan_out=2)


def with_client(plane: Served, work: Callable[[AsyncClient], Awaitable[None]], place: Place | None = None) -> None:
    """Run something with a client in a loop of its own."""

    async def main() -> None:
        async with AsyncClient(place or plane.place) as client:
            await work(client)

    asyncio.run(main())


def test_a_task_is_open_within_its_block_and_closed_after_it(plane: Served) -> None:
    async def work(client: AsyncClient) -> None:
        async with client.task("draft", grants=["search"], bounds=BOUNDS) as task:
            assert not plane.broker._tasks.task_of(task.id).head.closed
        assert plane.broker._tasks.task_of(task.id).head.closed
        assert task.report.state == "closed"

    with_client(plane, work)


def test_a_task_that_is_awaited_stays_open_until_it_is_closed(plane: Served) -> None:
    async def work(client: AsyncClient) -> None:
        task = await client.task("draft", grants=["search"], bounds=BOUNDS)
        assert not plane.broker._tasks.task_of(task.id).head.closed
        assert (await task.close()).state == "closed"

    with_client(plane, work)


def test_a_child_is_narrower_and_ends_with_its_block(plane: Served) -> None:
    async def work(client: AsyncClient) -> None:
        async with client.task("draft", grants=["search"], bounds=BOUNDS) as task:
            async with task.delegate("research", grants=[detail("search", paths=["/v1/search"])]) as child:
                assert plane.broker._tasks.check(child.id).grant.scope[0].texts("paths") == ("/v1/search",)
            assert plane.broker._tasks.task_of(child.id).grant(child.id).revoked

    with_client(plane, work)


def test_a_lease_yields_its_credential_and_is_gone_after_the_block(plane: Served) -> None:
    async def work(client: AsyncClient) -> None:
        async with client.task("draft", grants=["warehouse"], bounds=BOUNDS) as task:
            async with task.lease("warehouse") as credential:
                assert credential.user in plane.world.target.accounts
            assert plane.world.target.accounts == {}

    with_client(plane, work)


def test_a_lease_can_be_renewed_and_revoked(plane: Served) -> None:
    async def work(client: AsyncClient) -> None:
        task = await client.task("draft", grants=["warehouse"], bounds=BOUNDS)
        lease = await task.lease("warehouse")
        before = lease.expires_at
        plane.world.later(60)
        assert await lease.renew("10m") > before
        assert (await lease.revoke()).state == "closed"

    with_client(plane, work)


def test_a_task_can_be_renewed(plane: Served) -> None:
    async def work(client: AsyncClient) -> None:
        async with client.task("draft", grants=["warehouse"], bounds=BOUNDS) as task:
            assert await task.renew("1h") > plane.world.now + timedelta(minutes=59)

    with_client(plane, work)


def test_a_refusal_is_the_same_error_as_in_the_blocking_client(plane: Served) -> None:
    async def work(client: AsyncClient) -> None:
        async with client.task("draft", grants=["search"], bounds=BOUNDS) as task:
            with pytest.raises(AttenuationError):
                await task.delegate(grants=[detail("search", paths=["/admin"])])

    with_client(plane, work)


def test_each_branch_of_a_fan_out_has_its_own_current_grant(plane: Served) -> None:
    async def branch(task: verbs.TokenResponse, seen: dict[str, str]) -> None:
        async with task.delegate(grants=["search"]) as child:  # type: ignore[attr-defined]  # a grant
            await asyncio.sleep(0)
            seen[child.id] = (await acurrent()).id

    async def work(client: AsyncClient) -> None:
        seen: dict[str, str] = {}
        async with client.task("draft", grants=["search"], bounds=BOUNDS) as task:
            await asyncio.gather(branch(task, seen), branch(task, seen))
            assert (await acurrent()).id == task.id
        assert len(seen) == 2
        assert all(own == current for own, current in seen.items())
        assert current_grant.get() is None

    with_client(plane, work)


def test_the_current_grant_is_the_same_in_both_colours(plane: Served) -> None:
    async def work(client: AsyncClient) -> None:
        async with client.task("draft", grants=["search"], bounds=BOUNDS) as task:
            assert current().id == task.id

    with_client(plane, work)


def test_a_token_is_proven_on_an_async_client_too(plane: Served) -> None:
    async def work(client: AsyncClient) -> None:
        async with client.task("draft", grants=["search"], bounds=BOUNDS) as task, httpx.AsyncClient() as http:
            answer = await http.get(f"{plane.base}/v1/self", auth=task.auth)
            assert answer.json()["grant"] == task.id

    with_client(plane, work)


def test_in_a_run_its_own_grant_is_current(plane: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(client: AsyncClient) -> None:
        task = await client.task("draft", grants=["search"], bounds=BOUNDS)
        place = await asyncio.to_thread(plane.channel, task.id)
        monkeypatch.setenv("REMIT_SOCKET", str(place.socket))
        monkeypatch.setenv("REMIT_GRANT", task.id)
        assert (await acurrent()).id == task.id
        async with atask("read", grants=["search"]) as inner:
            assert inner.task_id == task.task_id
            assert inner.opened.token is None
        await task.close()

    with_client(plane, work)


def test_outside_a_run_a_task_of_its_own_is_opened(plane: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMIT_SOCKET", str(plane.control))

    async def main() -> None:
        async with atask("draft", grants=["search"]) as task:
            assert plane.broker._tasks.check(task.id).grant.parent is None

    asyncio.run(main())


def test_without_a_run_or_a_task_nothing_is_current(plane: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMIT_SOCKET", str(plane.control))
    with pytest.raises(NotFoundError, match="in no run"):
        asyncio.run(acurrent())


def test_no_broker_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMIT_SOCKET", str(Path("/nowhere/control.sock")))

    async def main() -> None:
        await atask("draft", grants=["search"])

    with pytest.raises(UnavailableError, match="no broker answers"):
        asyncio.run(main())
