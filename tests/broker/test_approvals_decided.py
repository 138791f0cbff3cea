"""Who may look at what is asked of humans, who decides on it, and who waits for that."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from remit.broker import approvals as module
from remit.core.approval import Verdict, login_nonce
from remit.core.principal import Signal
from remit.errors import (
    ApprovalError,
    DeniedError,
    ExpiredError,
    GrantTokenError,
    NotFoundError,
    RemitError,
    RevokedError,
    StepUpError,
    UsedError,
)
from tests.broker.asking import ANN, BOB, House, shown, wide
from tests.broker.world import OPERATOR, SEARCH, STRANGER, holder, run
from tests.grant_requests import changed


def test_an_agent_sees_what_was_asked_for_its_own_subtree_and_no_more(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        root = await house.root(broker, fan_out=2, depth=2)
        child = (
            await broker.delegate(holder(broker, root), root.id, wide({**SEARCH, "paths": ["/v1/search"]}, depth=1))
        ).grant
        other = await house.root(broker)
        above, below = await house.ask(broker, root), await house.ask(broker, child)
        assert [item.id for item in await shown(broker, holder(broker, root))] == [above.id, below.id]
        assert [item.id for item in await shown(broker, holder(broker, child))] == [below.id]
        assert await shown(broker, holder(broker, other)) == []
        assert [item.id for item in await shown(broker, OPERATOR)] == [above.id, below.id]
        said = set()
        for caller, name in (
            (holder(broker, child), above.id),
            (holder(broker, other), above.id),
            (holder(broker, child), "apr_999"),
            (OPERATOR, "apr_999"),
        ):
            with pytest.raises(NotFoundError) as caught:
                broker._approvals.look(caller, name)
            said.add((caught.value.detail, caught.value.status))
        assert len(said) == 1

    run(body())


def test_no_agent_decides_not_even_on_its_own_request(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        root, other = await house.root(broker), await house.root(broker)
        item = await house.ask(broker, root)
        for decide in (broker.approve, broker.refuse):
            with pytest.raises(DeniedError, match="no agent decides"):
                await decide(item.id, item.digest, holder(broker, root))
            with pytest.raises(NotFoundError):
                await decide(item.id, item.digest, holder(broker, other))
        assert broker._approvals.get(item.id) == item
        denied = [e for e in await house.world.events() if e.event.startswith("approval.") and e.decision == "deny"]
        assert [(e.event, e.grant, e.code) for e in denied] == [
            ("approval.approve", root.id, "denied"),
            ("approval.deny", root.id, "denied"),
        ]

    run(body())


Deciding = dict[str, tuple[dict[str, object], type[RemitError]]]


NOT_ENOUGH: Deciding = {
    "another human": ({"sub": BOB}, NotFoundError),
    "another acr": ({"acr": "pwd"}, StepUpError),
    "a login from before": ({"auth_time": None}, StepUpError),
}


@pytest.mark.parametrize("how", NOT_ENOUGH)
def test_who_is_not_the_human_or_did_not_prove_it_enough_decides_nothing(house: House, how: str) -> None:
    async def body() -> None:
        more, error = NOT_ENOUGH[how]
        broker = await house.world.ready()
        item = await house.ask(broker, await house.root(broker))
        with pytest.raises(error):
            await broker.approve(item.id, item.digest, house.human(item.digest, **more))  # type: ignore[arg-type]  # fields of Subject
        assert broker._approvals.get(item.id) == item
        assert (await house.told())[-1] == ("approval.approve", "deny", error.code)

    run(body())


def test_a_login_for_anything_else_decides_nothing_and_none_decides_twice(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        root = await house.root(broker)
        first, second = await house.ask(broker, root), await house.ask(broker, root, wide(label="b"))
        for nonce in (None, second.digest):
            with pytest.raises(StepUpError, match="not made to decide on this"):
                await broker.approve(first.id, first.digest, house.human(nonce))
        state, other = login_nonce(first, "s"), login_nonce(second, "s")  # of a login at the page
        for human in (house.human(state), *(replace(house.human(each), state="t") for each in (state, first.digest))):
            with pytest.raises(StepUpError, match="not made to decide on this"):
                await broker.approve(first.id, first.digest, human)
        with pytest.raises(StepUpError, match="not made to decide on this"):
            await broker.approve(first.id, first.digest, replace(house.human(other), state="s"))
        used = replace(house.human(state), state="s")
        await broker.approve(first.id, first.digest, used)
        with pytest.raises(UsedError, match="this login was used before"):
            await broker.refuse(second.id, second.digest, replace(used, nonce=other))
        with pytest.raises(UsedError):  # and it opens no task
            await broker.open(used, replace(wide(ttl=timedelta(minutes=1)), purpose="another"))
        assert broker._approvals.get(second.id).verdict is Verdict.PENDING

    run(body())


def test_the_owner_of_the_state_decides_for_themselves_and_not_for_others(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        mine, anns = await house.world.opened(broker, {**SEARCH, "paths": ["/v1/a"]}), await house.root(broker)
        own, others = await house.ask(broker, mine), await house.ask(broker, anns)
        assert (await broker.approve(own.id, own.digest, OPERATOR)).by == OPERATOR.subject
        for decide in (broker.approve, broker.refuse):
            with pytest.raises(NotFoundError):
                await decide(others.id, others.digest, OPERATOR)
            with pytest.raises(NotFoundError):
                await decide("apr_999", others.digest, OPERATOR)
        with pytest.raises(DeniedError, match="somebody else"):
            await broker.ask(STRANGER, mine.id, wide())

    run(body())


def test_what_names_no_human_is_shown_and_decided_on_by_the_page_of_its_flow_alone(house: House) -> None:
    """RFC 8628 §5.4: the page has the user code, or is of the browser that asked; a list of ids has neither."""

    async def body() -> None:
        broker = await house.world.ready()
        item = await broker.ask_to_open("cli", replace(wide(ttl=timedelta(minutes=5)), purpose="why"))
        assert await shown(broker, OPERATOR) == []
        with pytest.raises(NotFoundError) as unknown:
            broker._approvals.look(OPERATOR, "apr_999")
        with pytest.raises(NotFoundError) as caught:
            broker._approvals.look(OPERATOR, item.id)
        assert (caught.value.detail, caught.value.status) == (unknown.value.detail, unknown.value.status)
        for decide in (broker.approve, broker.refuse):
            for by in (OPERATOR, house.human(item.digest), holder(broker, await house.root(broker))):
                with pytest.raises(NotFoundError):
                    await decide(item.id, item.digest, by)
        assert broker._approvals.get(item.id) == item
        done = await broker.approve(item.id, item.digest, house.human(item.digest), page=True)
        assert done.verdict is Verdict.APPROVED
        assert await shown(broker, OPERATOR) == []

    run(body())


def test_a_request_from_afar_is_listed_and_decided_on_by_the_human_it_names(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        root = await house.root(broker)
        item = await broker.ask_to_open("cli", replace(wide(ttl=timedelta(minutes=5)), purpose="why"), approver=ANN)
        assert await shown(broker, OPERATOR) == [item]
        assert broker._approvals.look(OPERATOR, item.id) == item
        assert await shown(broker, holder(broker, root)) == []
        for by in (OPERATOR, house.human(item.digest, sub=BOB), holder(broker, root)):
            with pytest.raises(NotFoundError):
                await broker.approve(item.id, item.digest, by)
        done = await broker.approve(item.id, item.digest, house.human(item.digest))
        assert done.verdict is Verdict.APPROVED

    run(body())


def test_a_task_that_a_workload_opened_has_nobody_to_ask(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        human = house.human(sub="spiffe://prod.test/agent", acr="workload")
        root = (await broker.open(human, replace(wide(ttl=timedelta(minutes=5)), purpose="batch"))).grant
        with pytest.raises(ApprovalError, match="no human is behind this task"):
            await house.ask(broker, root, wide(depth=3))
        assert await shown(broker, OPERATOR) == []

    run(body())


def test_a_login_that_the_issuer_has_ended_neither_decides_nor_is_acted_on(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        opened_by = replace(house.human(), subject=replace(house.human().subject, sid="s-0"))
        asking = changed(wide({**SEARCH, "paths": ["/v1/search"]}), {"ttl": timedelta(minutes=9)})
        root = (await broker.open(opened_by, replace(asking, purpose="why"))).grant
        first, second = await house.ask(broker, root), await house.ask(broker, root, wide(label="b"))
        await broker.approve(first.id, first.digest, house.human(first.digest, sid="s-1"))
        late = house.human(second.digest, sid="s-1")
        await broker.signal([Signal(house.world.now, "session-revoked", "event-1", sid="s-1")])
        broker._tasks.check(root.id)  # it was opened in another session
        with pytest.raises(GrantTokenError, match="ended this login"):
            await broker.approve(second.id, second.digest, late)
        with pytest.raises(GrantTokenError, match="ended this login"):
            await broker.delegate(holder(broker, root), root.id, wide(), first)
        assert len(broker._tasks.task_of(root.id).grants) == 1

    run(body())


def test_nothing_is_approved_for_a_grant_that_has_ended_but_it_can_be_refused(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        root = await house.root(broker)
        item = await house.ask(broker, root)
        await broker.revoke(holder(broker, root), root.id)
        with pytest.raises(RevokedError):
            await broker.approve(item.id, item.digest, house.human(item.digest))
        assert broker._approvals.get(item.id).verdict is Verdict.PENDING
        refused = await broker.refuse(item.id, item.digest, house.human(item.digest))
        assert refused.verdict is Verdict.DENIED
        with pytest.raises(RevokedError):
            await house.ask(broker, root)

    run(body())


def test_an_approval_makes_nothing_under_a_grant_that_ended_since(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        root = await house.root(broker)
        item = await house.approved(broker, root)
        await broker.revoke(OPERATOR, root.id)
        with pytest.raises(RevokedError):
            await broker.delegate(holder(broker, root), root.id, wide(), item)

    run(body())


def test_whoever_waits_hears_of_the_decision_at_once(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        item = await house.ask(broker, await house.root(broker))
        waiting = [asyncio.create_task(broker._approvals.wait(item.id, 60)) for _ in range(2)]
        await asyncio.sleep(0)
        await broker.approve(item.id, item.digest, house.human(item.digest))
        assert [(await one).verdict for one in waiting] == [Verdict.APPROVED] * 2
        assert (await broker._approvals.wait(item.id, 60)).verdict is Verdict.APPROVED

    run(body())


def test_waiting_ends_with_the_time_that_was_given_and_at_once_when_it_has_lapsed(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        item = await house.ask(broker, await house.root(broker))
        assert (await broker._approvals.wait(item.id, 0.01)).verdict is Verdict.PENDING
        house.world.now = item.expires_at
        assert (await broker._approvals.wait(item.id, 60)).verdict is Verdict.PENDING
        with pytest.raises(NotFoundError):
            await broker._approvals.wait("apr_999", 0)

    run(body())


def test_a_login_of_a_public_client_decides_nothing_and_the_request_waits_on(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        item = await house.ask(broker, await house.root(broker))
        public = replace(house.human(item.digest), confidential=False)
        for decide in (broker.approve, broker.refuse):
            with pytest.raises(DeniedError, match="public client") as caught:
                await decide(item.id, item.digest, public)
            assert caught.value.help == module.CONFIDENTIAL
        assert broker._approvals.get(item.id).verdict is Verdict.PENDING
        assert (await house.told())[-2:] == [
            ("approval.approve", "deny", "denied"),
            ("approval.deny", "deny", "denied"),
        ]
        approved = await broker.approve(item.id, item.digest, house.human(item.digest))  # the login was not used up
        assert approved.verdict is Verdict.APPROVED

    run(body())


@pytest.mark.parametrize(("closed", "error"), [(False, ExpiredError), (True, RevokedError)])
def test_an_agent_whose_task_is_over_and_swept_is_told_how_it_ended_when_it_looks_at_what_it_asked(
    house: House,
    error: type[RemitError],
    closed: bool,  # noqa: FBT001 - a parameter
) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        root = await house.root(broker, ttl=timedelta(minutes=5))
        me, item = holder(broker, root), await house.ask(broker, root)
        if closed:
            await broker.close(OPERATOR, me.task)
            broker._tasks.forget(me.task)
        else:
            house.world.later(301)
            await broker.sweep()
        assert list(broker._tasks) == []
        with pytest.raises(error):
            broker._approvals.look(me, item.id)

    run(body())
