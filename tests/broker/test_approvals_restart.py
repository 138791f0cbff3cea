"""Approvals over a restart, a commit that fails, and two who come at once."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest

from remit.broker import Broker
from remit.broker import broker as broker_module
from remit.core.approval import Approval, Verdict, state
from remit.core.principal import Holder, Human
from remit.errors import (
    ApprovalError,
    ConflictError,
    IntegrityError,
    LapsedError,
    NotFoundError,
    UnavailableError,
    UsedError,
)
from remit.ports import PutRecord, Record
from remit.ports.broker import APPROVAL_LIFE
from tests.broker.asking import ANN, House, kept, shown, wide
from tests.broker.world import OPERATOR, holder, run


async def restarted(house: House) -> Broker:
    """Return another broker on the same state."""
    broker = house.world.broker()
    await broker.start()
    return broker


def test_what_was_asked_decided_and_used_is_so_after_a_restart(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        root = await house.root(broker, fan_out=5)
        pending = await house.ask(broker, root)
        approved = await house.approved(broker, root, wide(label="b"))
        used = await house.approved(broker, root, wide(label="c"))
        child = (await broker.delegate(holder(broker, root), root.id, wide(label="c"), used)).grant
        again = await restarted(house)
        assert await shown(again, OPERATOR) == await shown(broker, OPERATOR)
        assert again._approvals.get(pending.id) == pending
        with pytest.raises(UsedError):
            await again.delegate(holder(again, root), root.id, wide(label="c"), used)
        made = (await again.delegate(holder(again, root), root.id, wide(label="b"), approved)).grant
        assert {grant.approval for grant in (child, made)} == {used.id, approved.id}

    run(body())


def test_what_a_client_asked_from_afar_lapses_with_the_memory_of_its_client(house: House) -> None:
    """What it would redeem is gone, so that nobody approves of what then comes to nothing."""

    async def body() -> None:
        broker = await house.world.ready()
        wanted = wide(ttl=timedelta(minutes=5))
        waits = await house.ask(broker, await house.root(broker))
        item = await broker.ask_to_open("cli", replace(wanted, purpose="why"), approver=ANN)
        no = await broker.ask_to_open("app", replace(wanted, purpose="else"), approver=ANN)
        await broker.refuse(no.id, no.digest, house.human(no.digest))
        house.world.later(1)
        again = await restarted(house)
        states = {one.id: state(one, house.world.now) for one in await shown(again, OPERATOR)}
        assert states == {waits.id: "pending", item.id: "lapsed", no.id: "denied"}
        for decide in (again.approve, again.refuse):
            with pytest.raises(LapsedError):
                await decide(item.id, item.digest, house.human(item.digest))
        with pytest.raises(ApprovalError, match="refused this before"):
            await again.ask_to_open("app", replace(wanted, purpose="more"), approver=ANN)
        assert (await again.ask_to_open("cli", replace(wanted, purpose="why"), approver=ANN)).id != item.id

    run(body())


def test_what_another_version_asked_is_left_out_and_logged_and_hides_nothing_else(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        item = await house.ask(broker, await house.root(broker))
        odd = {"apr_a": "{}", "apr_b": "[", "apr_c": item.request.replace("/v1/**", "v1"), "apr_d": "[]"}
        for name, request in odd.items():
            await store(house, replace(item, id=name, request=request))
        old = json.loads(item.request)
        del old["claims"]  # which were not told when this was asked
        await store(house, replace(item, id="apr_old", request=json.dumps(old)))
        again = await restarted(house)
        assert {one.id for one in await shown(again, OPERATOR)} == {item.id, "apr_old"}
        for name in odd:
            assert f"approval {name} cannot be read" in caplog.text
            with pytest.raises(NotFoundError):
                again._approvals.get(name)

    run(body())


async def store(house: House, item: Approval) -> None:
    """Put an approval on record, whoever wrote it."""
    until = item.expires_at + APPROVAL_LIFE
    await house.store.commit([PutRecord(Record("approval", item.id, 1, msgspec.json.encode(item), until))], ())


def test_what_was_asked_in_a_task_that_nobody_knows_any_more_hides_nothing_else(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "RECENT", 1)

    async def body() -> None:
        broker = await house.world.ready()
        root = await house.root(broker)
        gone = await house.approved(broker, root)
        await broker.revoke(OPERATOR, root.id)
        house.world.later(timedelta(hours=2).total_seconds())
        item = await house.ask(broker, await house.root(broker))
        again = await restarted(house)
        assert again._approvals.get(gone.id) == gone
        assert await shown(again, OPERATOR) == [item]
        with pytest.raises(NotFoundError):
            again._approvals.look(OPERATOR, gone.id)

    run(body())


def test_what_cannot_be_read_is_not_served(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        until = house.world.now + timedelta(days=1)
        await house.store.commit([PutRecord(Record("approval", "apr_x", 1, b'{"id": 1}', until))], ())
        del broker
        with pytest.raises(IntegrityError, match="cannot be read"):
            await restarted(house)

    run(body())


@pytest.mark.parametrize("outcome", ["lost", "durable"])
@pytest.mark.parametrize("step", ["ask", "approve", "deny", "consume", "open"])
def test_a_commit_that_fails_leaves_what_the_store_says(house: House, step: str, outcome: str) -> None:
    """In doubt memory is read anew: a write whose answer was lost counts, one that was lost does not."""
    late = outcome == "durable"

    async def body() -> None:
        broker = await house.world.ready()
        root = await house.root(broker)
        item = await house.ask(broker, root)
        house.world.later(1)
        opening = await broker.ask_to_open("cli", replace(wide(ttl=timedelta(minutes=5)), purpose="why"))
        if step == "consume":
            item = await broker.approve(item.id, item.digest, house.human(item.digest))
        if step == "open":
            opening = await broker.approve(opening.id, opening.digest, house.human(opening.digest), page=True)
        house.store.fail, house.store.late = [UnavailableError()], late
        with pytest.raises(UnavailableError):
            await take(broker, step, item, opening, holder(broker, root), house.human(item.digest))
        house.store.late = False
        again = await restarted(house)
        assert {(one.id, one.rev, one.verdict) for one in kept(broker)} == {
            (one.id, one.rev, one.verdict) for one in kept(again)
        }
        verdict = broker._approvals.get(opening.id if step == "open" else item.id).verdict
        before = Verdict.APPROVED if step in {"consume", "open"} else Verdict.PENDING
        after = {"approve": Verdict.APPROVED, "deny": Verdict.DENIED, "ask": Verdict.PENDING}
        assert verdict is (after.get(step, Verdict.CONSUMED) if late else before)
        grants = sum(len(task.grants) for task in list(again._tasks))
        assert grants == (2 if late and step in {"consume", "open"} else 1)
        assert len(kept(broker)) == (3 if late and step == "ask" else 2)

    run(body())


async def take(broker: Broker, step: str, item: Approval, opening: Approval, agent: Holder, human: Human) -> None:
    """Take one step of an approval's life."""
    match step:
        case "ask":
            await broker.ask(agent, agent.grant, wide(label="b"))
        case "approve":
            await broker.approve(item.id, item.digest, human)
        case "deny":
            await broker.refuse(item.id, item.digest, human)
        case "consume":
            await broker.delegate(agent, agent.grant, wide(), item)
        case "open":
            await broker.open(opening, replace(wide(ttl=timedelta(minutes=5)), purpose="why"))


def test_of_two_decisions_at_once_one_counts(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        item = await house.ask(broker, await house.root(broker))
        results = await asyncio.gather(
            broker.approve(item.id, item.digest, house.human(item.digest)),
            broker.refuse(item.id, item.digest, house.human(item.digest)),
            return_exceptions=True,
        )
        assert isinstance(results[0], Approval)
        assert isinstance(results[1], ConflictError)
        assert broker._approvals.get(item.id).verdict is Verdict.APPROVED

    run(body())


def test_of_two_uses_at_once_one_is_made(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        root = await house.root(broker)
        item = await house.approved(broker, root)
        results = await asyncio.gather(
            *(broker.delegate(holder(broker, root), root.id, wide(), item) for _ in range(3)), return_exceptions=True
        )
        assert [type(result) for result in results[1:]] == [UsedError, UsedError]
        assert len(broker._tasks.task_of(root.id).grants) == 2

    run(body())
