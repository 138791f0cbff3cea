"""What a human approved is made once, exactly as they saw it, in the commit that uses the approval up."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from remit.core.approval import Verdict
from remit.core.grant import APPROVED
from remit.errors import (
    ApprovalError,
    LapsedError,
    NotFoundError,
    PendingError,
    RemitError,
    RevokedError,
    UsedError,
)
from tests.broker.asking import ANN, BOB, House, wide
from tests.broker.world import OPERATOR, SEARCH, World, details, holder, run
from tests.grant_requests import changed


def test_what_a_human_approved_is_made_once_and_says_so(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        root = await house.root(broker)
        item = await house.ask(broker, root)
        assert (item.approver, item.asker, item.acr, item.verdict) == (ANN, root.id, ("urn:mfa",), Verdict.PENDING)
        approved = await broker.approve(item.id, item.digest, house.human(item.digest))
        assert approved.by is not None
        assert (approved.by.sub, approved.by.acr) == (ANN, "urn:mfa")
        child = (await broker.delegate(holder(broker, root), root.id, wide(), approved)).grant
        assert (child.approval, child.covers, child.parent) == (item.id, (APPROVED,), root.id)
        assert child.scope[0].texts("paths") == ("/v1/**",)
        assert broker._approvals.get(item.id).result == child.id
        with pytest.raises(UsedError):
            await broker.delegate(holder(broker, root), root.id, wide(), approved)
        assert len(broker._tasks.task_of(root.id).grants) == 2

    run(body())


def test_every_step_is_in_the_audit_with_the_human_and_the_digest(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        root = await house.root(broker)
        item = await house.approved(broker, root)
        child = (await broker.delegate(holder(broker, root), root.id, wide(), item)).grant
        ask, approve, delegate = (await house.world.events())[-3:]
        assert [(e.event, e.decision) for e in (ask, approve, delegate)] == [
            ("approval.ask", "done"),
            ("approval.approve", "allow"),
            ("grant.delegate", "allow"),
        ]
        assert {e.approval for e in (ask, approve, delegate)} == {item.id}
        assert ask.detail_s256 == approve.detail_s256 == item.digest
        assert (approve.subject, approve.action, approve.grant) == (ANN, "grant.delegate", root.id)
        assert (delegate.grant, delegate.lineage) == (child.id, (root.id, child.id))

    run(body())


@pytest.mark.parametrize(
    "more",
    [
        {"scope": details({**SEARCH, "paths": ["/**"]})},
        {"depth": 2},
        {"fan_out": 3},
        {"ttl": timedelta(minutes=1)},
        {"exercise": False},
        {"jkt": "k" * 43},
        {"label": "else"},
        {"delegates": ()},
    ],
    ids=lambda more: next(iter(more)),
)
def test_nothing_but_what_was_approved_is_made(house: House, more: dict[str, object]) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        root = await house.root(broker, unattested=True)
        item = await house.approved(broker, root)
        with pytest.raises(RemitError):
            await broker.delegate(holder(broker, root), root.id, changed(wide(), more), item)
        assert broker._approvals.get(item.id).verdict is Verdict.APPROVED
        assert len(broker._tasks.task_of(root.id).grants) == 1

    run(body())


def test_an_approval_counts_under_the_grant_it_was_asked_for_alone(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        first, second = await house.root(broker), await house.root(broker)
        item = await house.approved(broker, first)
        with pytest.raises(NotFoundError):
            await broker.delegate(holder(broker, second), second.id, wide(), item)
        with pytest.raises(NotFoundError):
            await broker.open(item, replace(changed(wide(), {"ttl": timedelta(minutes=1)}), purpose="another"))

    run(body())


def test_what_was_refused_pending_or_lapsed_makes_nothing(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        root = await house.root(broker)
        pending = await house.ask(broker, root)
        with pytest.raises(PendingError):
            await broker.delegate(holder(broker, root), root.id, wide(), pending)
        refused = await broker.refuse(pending.id, pending.digest, house.human(pending.digest))
        with pytest.raises(ApprovalError, match="a human refused"):
            await broker.delegate(holder(broker, root), root.id, wide(), refused)
        other = wide({**SEARCH, "paths": ["/v1/less"]})
        item = await house.approved(broker, root, other)
        house.world.now = item.expires_at
        with pytest.raises(LapsedError):
            await broker.delegate(holder(broker, root), root.id, other, item)
        assert len(broker._tasks.task_of(root.id).grants) == 1

    run(body())


def test_a_task_that_was_asked_for_is_opened_once_for_whoever_approved(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        wanted = wide(ttl=timedelta(minutes=5))
        item = await broker.ask_to_open("cli", replace(wanted, purpose="why"))
        assert (item.approver, item.asker, item.acr) == (None, "cli", ())
        with pytest.raises(PendingError):
            await broker.open(item, replace(wanted, purpose="why"))
        human = house.human(item.digest, sub=BOB, acr="pwd")
        approved = await broker.approve(item.id, item.digest, human, page=True)
        with pytest.raises(ApprovalError, match="something else was approved"):
            await broker.open(approved, replace(wanted, purpose="another purpose"))
        root = (
            await broker.open(approved, replace(changed(wanted, {"jkt": "k" * 43}), purpose="why"))
        ).grant  # the key was not part of it
        assert broker._tasks.task_of(root.id).head.subject.sub == BOB
        assert root.client == "cli"
        assert (root.approval, root.binding.jkt, broker._approvals.get(item.id).result) == (item.id, "k" * 43, root.id)
        with pytest.raises(UsedError):
            await broker.open(approved, replace(wanted, purpose="why"))
        assert len(list(broker._tasks)) == 1

    run(body())


def test_a_key_that_the_human_saw_is_the_only_one_that_counts(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        wanted = wide(ttl=timedelta(minutes=5), jkt="k" * 43)
        item = await broker.ask_to_open("cli", replace(wanted, purpose="why"), approver=ANN)
        assert (item.approver, item.acr) == (ANN, ("urn:mfa",))
        approved = await broker.approve(item.id, item.digest, house.human(item.digest))
        for key in (None, "j" * 43):
            with pytest.raises(ApprovalError, match="something else"):
                await broker.open(approved, replace(changed(wanted, {"jkt": key}), purpose="why"))
        assert ((await broker.open(approved, replace(wanted, purpose="why"))).grant).binding.jkt == "k" * 43

    run(body())


def test_a_child_is_made_by_the_id_of_its_approval_with_the_key_it_was_asked_for(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        root = await house.root(broker)
        item = await house.ask(broker, root, wide(jkt="k" * 43))
        with pytest.raises(PendingError):
            await broker.delegate_approved(item.id, "k" * 43)
        await broker.approve(item.id, item.digest, house.human(item.digest))
        opening = await broker.ask_to_open("cli", replace(wide(ttl=timedelta(minutes=5), jkt="k" * 43), purpose="why"))
        for name, key in ((item.id, "j" * 43), (opening.id, "k" * 43), ("apr_guess", "k" * 43)):
            with pytest.raises(NotFoundError):
                await broker.delegate_approved(name, key)
        child = (await broker.delegate_approved(item.id, "k" * 43)).grant
        assert (child.parent, child.approval, child.binding.jkt) == (root.id, item.id, "k" * 43)

    run(body())


def test_a_task_is_ended_by_the_id_of_the_approval_that_opened_it_and_by_no_other(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        root = await house.root(broker)
        below = await house.ask(broker, root, wide())
        wanted = replace(wide(ttl=timedelta(minutes=5)), purpose="why")
        item = await broker.ask_to_open("cli", wanted)
        approved = await broker.approve(item.id, item.digest, house.human(item.digest), page=True)
        for name in (item.id, below.id, "apr_guess"):  # nothing was opened by any of them so far
            with pytest.raises(NotFoundError):
                await broker.revoke_opened(name, UsedError())
        opened = (await broker.open(approved, wanted)).grant
        await broker.revoke_opened(item.id, UsedError())
        with pytest.raises(RevokedError):
            await broker.delegate(holder(broker, opened), opened.id, wide())
        assert (await broker.grant(root.id)).grant == root
        [denied] = [event for event in await house.world.events() if event.action == "redeem"]
        assert (denied.decision, denied.grant) == ("deny", opened.id)

    run(body())


def test_in_local_mode_the_owner_may_ask_themselves(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker, {**SEARCH, "paths": ["/v1/a"]})
        item = (await broker.ask(OPERATOR, root.id, wide())).approval
        assert (item.asker, item.approver) == (OPERATOR.subject.sub, OPERATOR.subject.sub)
        await broker.approve(item.id, item.digest, OPERATOR)
        assert ((await broker.delegate(OPERATOR, root.id, wide(), item)).grant).approval == item.id

    run(body())
