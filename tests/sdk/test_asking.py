"""Asking from Python: a denial leads to a question, a human's yes to exactly what was asked for, once."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import Any

import httpx
import pytest

from remit.errors import (
    ApprovalError,
    AttenuationError,
    DeniedError,
    InvalidRequestError,
    LapsedError,
    PendingError,
    UsedError,
)
from remit.sdk import Approval, AsyncClient, Bounds, Client, Task, asking, detail, verbs
from remit.sdk._wire import ApiCall
from remit.sdk.dpop import DPoPKey
from tests.sdk.plane import Served

NARROW = detail("search", paths=["/v1/search"])
WIDE = detail("search", paths=["/v1/search", "/v1/all"])
BOUNDS = Bounds("10m", depth=1, fan_out=2)


def opened(client: Client, **more: Any) -> Task:
    """Open a task that holds one path."""
    return client.task("draft", grants=[NARROW], bounds=Bounds(**{"ttl": "10m", "depth": 1, "fan_out": 2, **more}))


def approve(client: Client, approval: Approval, verdict: str = "approve") -> None:
    """Decide as the owner of the state."""
    seen = client.run(asking.approval(approval.id))
    client.run(asking.decide(approval.id, verdict, seen["digest"]))


def test_an_agent_goes_on_from_a_denial_when_a_human_approves(plane: Served, client: Client) -> None:
    with opened(client) as task:
        with pytest.raises(AttenuationError, match="wider") as denied:
            task.delegate("all", grants=[WIDE])
        assert "task.ask" in str(denied.value.help)
        approval = task.ask("all", grants=[WIDE], ttl="5m")
        assert approval.asked.url == f"{plane.base}/approvals/{approval.id}"
        assert approval.asked.expires_at - plane.world.now <= timedelta(minutes=10)
        approve(client, approval)
        with approval.wait() as sub:
            granted = plane.broker._tasks.check(sub.id).grant
            assert (granted.approval, granted.label, granted.parent) == (approval.id, "all", task.id)
            assert granted.scope[0].texts("paths") == ("/v1/all", "/v1/search")
            assert sub.opened.bound_to is not None
            assert granted.binding.jkt == sub.opened.bound_to.key.thumbprint()
        with pytest.raises(UsedError):
            approval.wait()


def test_an_agent_waits_while_the_human_makes_up_their_mind(plane: Served, client: Client) -> None:
    with opened(client) as task:
        approval = task.ask(grants=[WIDE])
        with Client(plane.place) as human:
            deciding = threading.Timer(0.2, approve, (human, approval))
            deciding.start()
            assert approval.wait("30s").task_id == task.task_id
            deciding.join()


def test_each_way_it_can_end_has_its_error(plane: Served, client: Client) -> None:
    with opened(client) as task:
        refused, pending, lapsed = (task.ask(name, grants=[WIDE]) for name in ("a", "b", "c"))
        approve(client, refused, "deny")
        with pytest.raises(ApprovalError, match="a human refused"):
            refused.wait()
        with pytest.raises(PendingError) as waits:
            pending.wait(0)
        assert pending.id in str(waits.value.help)
        plane.world.later(601)
        with pytest.raises(LapsedError) as over:
            lapsed.wait(0)
        assert "ask again" in (over.value.help or "")


def test_nobody_is_asked_for_what_is_held_already(client: Client) -> None:
    with opened(client) as task, pytest.raises(InvalidRequestError, match="needs no approval"):
        task.ask(grants=[NARROW])


def test_every_bound_is_asked_for_and_made_as_it_was_seen(plane: Served, client: Client) -> None:
    with opened(client, delegates=["spiffe://prod.test/**"], unattested=False) as task:
        root = plane.broker._tasks.check(task.id).grant
        assert (root.delegates, root.bounds.unattested) == (("spiffe://prod.test/**",), False)
        approval = task.ask(
            grants=[NARROW], ttl=60, depth=2, fan_out=3, exercise=False, delegates=["spiffe://dev.test/*"]
        )
        assert approval.asked.document["exceeds"] == ["depth", "fan_out", "delegates", "unattested"]
        approve(client, approval)
        made = plane.broker._tasks.check(approval.wait().id).grant
        assert (made.bounds.depth, made.bounds.fan_out, made.bounds.exercise, made.bounds.unattested) == (
            2,
            3,
            False,
            True,
        )
        assert made.delegates == ("spiffe://dev.test/*",)
        assert made.expires_at - made.opened_at == timedelta(seconds=60)


def test_in_a_run_an_agent_asks_and_cannot_answer(plane: Served, client: Client) -> None:
    with opened(client) as task, Client(plane.channel(task.id)) as inside:
        own = inside.own()
        approval = own.ask("all", grants=[WIDE])
        assert approval.asked.bound_to is None
        assert [item["approval"] for item in inside.run(asking.approvals())] == [approval.id]
        for verdict in ("approve", "deny"):
            with pytest.raises(DeniedError, match="no agent decides"):
                inside.run(asking.decide(approval.id, verdict, plane.broker._approvals.get(approval.id).digest))
        approve(client, approval)
        child = approval.wait()
        assert child.opened.token is None
        assert plane.broker._tasks.check(child.id).grant.approval == approval.id


def test_the_async_client_asks_the_same(plane: Served, client: Client) -> None:
    async def work() -> None:
        async with AsyncClient(plane.place) as own:
            task = await own.task("draft", grants=[NARROW], bounds=BOUNDS)
            approval = await task.ask("all", grants=[WIDE], ttl="5m")
            seen = await asyncio.to_thread(client.run, asking.approval(approval.id))
            await asyncio.to_thread(client.run, asking.decide(approval.id, "approve", seen["digest"]))
            async with approval.wait("30s") as sub:
                assert plane.broker._tasks.check(sub.id).grant.approval == approval.id
            await task.close()

    asyncio.run(work())


def test_a_proof_is_made_anew_with_the_servers_nonce() -> None:
    """One question, refused for want of a nonce, is asked once more with it."""
    with_key = verbs.DPoPBinding(DPoPKey(), "http://127.0.0.1:1", "http://127.0.0.1:1/oauth/token")
    flow = asking.ask_for("grt_1", [], [{"type": "http", "resource": "x"}], Bounds(), bound_to=with_key)
    first: ApiCall = next(flow)
    refusal = httpx.Response(401, json={"code": "use-nonce", "detail": "x"}, headers={"dpop-nonce": "n1"})
    second = flow.send(refusal)
    assert isinstance(first.body, dict)
    assert isinstance(second.body, dict)
    assert first.body["req_cnf"] == second.body["req_cnf"]
    assert first.body["req_cnf_proof"] != second.body["req_cnf_proof"]


def test_waiting_asks_in_turns_and_stops_with_the_decision() -> None:
    flow = asking.decided("apr_1", 60)
    waits: list[Any] = [next(flow).query["wait"]]
    waits += [flow.send(httpx.Response(200, json={"state": "pending"})).query["wait"] for _ in range(2)]
    with pytest.raises(StopIteration) as done:
        flow.send(httpx.Response(200, json={"state": "pending"}))
    assert (waits, done.value.value["state"]) == ([25, 25, 10], "pending")
