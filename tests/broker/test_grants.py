"""Opening and delegating: by whom, once for each credential, and what a policy may make a human's business."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from remit.core.grant import APPROVED, Posture
from remit.core.policy import Decision, Question
from remit.core.principal import Workload
from remit.core.request import Binding, GrantRequest
from remit.errors import (
    AttenuationError,
    DeniedError,
    InvalidRequestError,
    NotFoundError,
    PolicyError,
    UnavailableError,
    UsedError,
)
from tests.broker.asking import ANN, BOB, NARROW, House, kept, wide
from tests.broker.world import OPERATOR, SEARCH, START, World, details, holder, run
from tests.grant_requests import changed

FIVE = timedelta(minutes=5)
BUILD = Workload("https://ci.test#repo", "oidc", START + FIVE, {"branch": "main"}, digest="once")


def test_a_human_opens_one_task_with_one_token_and_is_its_root(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        ann = house.human()
        root = (await broker.open(ann, replace(wide(ttl=FIVE), purpose="draft"))).grant
        assert broker._tasks.task_of(root.id).head.subject == ann.subject
        assert root.policy == "test-1"
        with pytest.raises(UsedError):
            await broker.open(ann, replace(wide(ttl=FIVE), purpose="draft"))
        assert len(list(broker._tasks)) == 1
        assert (await house.told())[-1] == ("task.open", "deny", "used")

    run(body())


def test_of_two_tasks_by_one_token_at_once_one_is_opened(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        ann = house.human()
        results = await asyncio.gather(
            *(broker.open(ann, replace(wide(ttl=FIVE), purpose="draft")) for _ in range(5)), return_exceptions=True
        )
        assert [type(result).__name__ for result in results].count("UsedError") == 4
        assert len(list(broker._tasks)) == 1

    run(body())


def test_a_workload_that_opens_a_task_acts_for_nobody_but_itself(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        wanted = wide(ttl=FIVE, agent=BUILD.id, attested=True)
        root = (await broker.open(BUILD, replace(wanted, purpose="nightly"))).grant
        subject = broker._tasks.task_of(root.id).head.subject
        assert (subject.sub, subject.acr, subject.groups) == (BUILD.id, "workload", ())
        assert len(list(broker._tasks)) == 1

    run(body())


def test_a_task_is_of_the_client_that_it_was_opened_by(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        humans = {
            None: house.human(),
            "app": replace(house.human(), brought_by="app"),
            "other": replace(house.human(), client="other", id_jag=True),
        }
        for client, human in humans.items():
            root = (await broker.open(human, replace(wide(ttl=FIVE), purpose="draft"))).grant
            event = (await house.world.events())[-1]
            assert (root.client, event.event, event.client) == (client, "task.open", client)

    run(body())


def test_a_credential_that_counts_once_counts_once_and_over_a_restart(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        await broker.spend(BUILD)
        with pytest.raises(UsedError):
            await broker.spend(BUILD)
        with pytest.raises(UsedError):
            await (await house.world.ready()).spend(BUILD)
        for _ in range(2):
            await broker.spend(replace(BUILD, digest=None))  # an SVID is made to be used again

    run(body())


def test_an_actors_credential_makes_one_child_and_a_second_one_leaves_the_task_as_it_is(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        root = await house.root(broker, fan_out=3)
        wanted = GrantRequest(details(NARROW), binding=Binding(identity=BUILD.id))
        as_root = holder(broker, root)
        with pytest.raises(AttenuationError):  # what makes no child uses nothing up
            await broker.delegate(as_root, root.id, replace(wanted, scope=wide().scope), actor=BUILD)
        await broker.delegate(as_root, root.id, wanted, actor=BUILD)
        with pytest.raises(UsedError):
            await broker.delegate(as_root, root.id, wanted, actor=BUILD)
        assert broker._tasks.check(root.id).grant.id == root.id
        assert len(broker._tasks.task_of(root.id).grants) == 2
        assert (await house.told())[-1] == ("grant.delegate", "deny", "used")

    run(body())


def test_what_a_human_is_asked_for_uses_up_the_actors_credential_too(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        root = await house.root(broker)
        asked = wide(agent=BUILD.id, attested=True)
        await broker.ask(holder(broker, root), root.id, asked, BUILD)
        with pytest.raises(UsedError):
            await broker.ask(holder(broker, root), root.id, replace(asked, label="again"), BUILD)

    run(body())


def test_without_policies_nobody_but_the_owner_opens_anything(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        for opener in (House(world).human(), BUILD):
            with pytest.raises(PolicyError, match="no policy allows"):
                await broker.open(opener, replace(wide(ttl=FIVE), purpose="why"))
        assert list(broker._tasks) == []
        denied = (await world.events())[-2:]
        assert [(e.event, e.decision, e.subject, e.policy) for e in denied] == [
            ("task.open", "deny", ANN, "local-1"),
            ("task.open", "deny", BUILD.id, "local-1"),
        ]
        assert all(e.cause and e.posture and e.detail_s256 for e in denied)

    run(body())


def test_a_request_that_is_for_a_child_opens_no_task(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        root = await house.root(broker)
        item = await house.approved(broker, root)
        with pytest.raises(NotFoundError):
            await broker.open(item, replace(wide(ttl=FIVE), purpose="why"))
        assert (await house.told())[-1] == ("task.open", "deny", "not-found")

    run(body())


def test_what_no_human_could_open_is_not_asked_for(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        for purpose, more in (("", {}), ("why", {"ttl": timedelta(days=1)}), ("why", {"depth": 65})):
            with pytest.raises(InvalidRequestError):
                await broker.ask_to_open("cli", replace(changed(wide(ttl=FIVE), more), purpose=purpose))
        assert kept(broker) == []
        assert (await house.told())[-1] == ("approval.ask", "deny", "invalid-request")
        item = await broker.ask_to_open("cli", replace(wide(ttl=FIVE), purpose="why"), approver=BOB)
        assert (item.approver, item.acr) == (BOB, ())

    run(body())


# -- a policy that wants a human ------------------------------------------------------------------------------------


def needs_a_human(question: Question) -> Decision:
    """Allow a sub-agent only where a human approved it, though its parent covers it."""
    if question.verb == "delegate" and question.approval is None:
        return Decision(allowed=False, reasons=("a human has to approve each sub-agent",), version="strict-1")
    return Decision(allowed=True, reasons=("anybody may",), version="strict-1")


def test_a_policy_can_want_a_humans_word_for_what_the_parent_covers(house: House) -> None:
    async def body() -> None:
        house.world.decide = needs_a_human
        broker = await house.world.ready()
        root = await house.root(broker)
        within = wide(NARROW)
        with pytest.raises(PolicyError, match="a human has to approve"):
            await broker.delegate(holder(broker, root), root.id, within)
        item = await house.approved(broker, root, within)
        child = (await broker.delegate(holder(broker, root), root.id, within, item)).grant
        assert (child.approval, child.policy, child.covers) == (item.id, "strict-1", (0,))
        assert APPROVED not in child.covers

    run(body())


def test_nobody_is_asked_for_what_the_grant_covers_or_a_policy_refuses_all_the_same(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        root = await house.root(broker)
        with pytest.raises(InvalidRequestError, match="needs no approval"):
            await house.ask(broker, root, wide(NARROW))
        beyond = wide({**NARROW, "paths": ["/admin"]})
        with pytest.raises(PolicyError, match="not as much of it as this asks for"):
            await house.ask(broker, root, beyond)
        assert kept(broker) == []
        assert (await house.told())[-2:] == [
            ("approval.ask", "deny", "invalid-request"),
            ("approval.ask", "deny", "policy"),
        ]

    run(body())


# -- what breaks ----------------------------------------------------------------------------------------------------


def test_a_delegation_that_is_cancelled_is_no_denial(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        root = await house.root(broker)
        house.store.fail = [asyncio.CancelledError()]  # type: ignore[list-item]  # as from whoever hung up
        with pytest.raises(asyncio.CancelledError):
            await broker.delegate(holder(broker, root), root.id, wide(NARROW))
        assert [event for event in await house.told() if event[1] == "deny"] == []
        assert len(broker._tasks.task_of(root.id).grants) == 1

    run(body())


def test_a_task_whose_opening_failed_is_not_there_and_its_token_can_be_used(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        ann = house.human()
        house.store.fail = [UnavailableError()]
        with pytest.raises(UnavailableError):
            await broker.open(ann, replace(wide(ttl=FIVE), purpose="draft"))
        assert list(broker._tasks) == []
        await broker.open(ann, replace(wide(ttl=FIVE), purpose="draft"))

    run(body())


def test_a_grants_receipt_has_its_key_and_posture(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        root = await house.root(broker)
        child = (await broker.delegate(holder(broker, root), root.id, changed(wide(NARROW), {"x5t": "x" * 43}))).grant
        hop = (await house.world.events())[-1]
        assert (hop.grant, hop.key, hop.posture) == (child.id, "x" * 43, "none/holder/kek-file")
        assert hop.detail_s256
        assert details(NARROW) == child.scope

    run(body())


def test_a_run_holds_a_grant_only_as_what_is_said_of_its_holder(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        bound = await world.opened(broker, jkt="k" * 43)
        inside = (
            await broker.delegate(
                OPERATOR, root.id, GrantRequest(details(SEARCH)), posture=Posture("namespace", "channel")
            )
        ).grant
        assert (await broker.attach(OPERATOR, root.id, Posture("host-net"))).grant == root
        with pytest.raises(DeniedError, match="bound to a key"):
            await broker.attach(OPERATOR, bound.id, Posture("namespace"))
        with pytest.raises(DeniedError, match="`namespace`, and this run would be `host-net`"):
            await broker.attach(OPERATOR, inside.id, Posture("host-net"))
        found = [(event.grant, event.decision) for event in await world.events() if event.event == "grant.attach"]
        assert found == [(root.id, "allow"), (bound.id, "deny"), (inside.id, "deny")]

    run(body())
