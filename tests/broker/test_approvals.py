"""Asking humans at the broker: who may ask, look and decide; one use in the commit that makes what was approved."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest

from remit.broker import Broker
from remit.broker import approvals as module
from remit.broker import broker as broker_module
from remit.core.approval import Approval, Verdict, state
from remit.core.grant import APPROVED
from remit.core.principal import Holder, Human, Principal, Signal
from remit.errors import (
    ApprovalError,
    ConflictError,
    DeniedError,
    ExpiredError,
    GrantTokenError,
    IntegrityError,
    LapsedError,
    LimitError,
    NotFoundError,
    PendingError,
    RemitError,
    RevokedError,
    StepUpError,
    UnavailableError,
    UsedError,
)
from remit.ports import PutRecord, Record
from remit.ports.broker import APPROVAL_LIFE
from tests.broker.asking import ANN, BOB, NARROW, WIDE, House, kept, wide
from tests.broker.world import OPERATOR, SEARCH, STRANGER, World, details, holder, run
from tests.grant_requests import changed


async def shown(broker: Broker, principal: Principal) -> list[Approval]:
    return [view.approval for view in await broker.approvals(principal)]


@pytest.fixture
def house() -> House:
    """Return a house over a fresh world."""
    return House()


# -- from a denial to a grant -----------------------------------------------------------------------------------------


def test_what_a_human_approved_is_made_once_and_says_so(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        root = await house.root(broker)
        item = await house.asked(broker, root)
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
        pending = await house.asked(broker, root)
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


# -- who may look and decide ------------------------------------------------------------------------------------------


def test_an_agent_sees_what_was_asked_for_its_own_subtree_and_no_more(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        root = await house.root(broker, fan_out=2, depth=2)
        child = (
            await broker.delegate(holder(broker, root), root.id, wide({**SEARCH, "paths": ["/v1/search"]}, depth=1))
        ).grant
        other = await house.root(broker)
        above, below = await house.asked(broker, root), await house.asked(broker, child)
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
        item = await house.asked(broker, root)
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
        item = await house.asked(broker, await house.root(broker))
        with pytest.raises(error):
            await broker.approve(item.id, item.digest, house.human(item.digest, **more))  # type: ignore[arg-type]
        assert broker._approvals.get(item.id) == item
        assert (await house.told())[-1] == ("approval.approve", "deny", error.code)

    run(body())


def test_a_login_for_anything_else_decides_nothing_and_none_decides_twice(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        root = await house.root(broker)
        first, second = await house.asked(broker, root), await house.asked(broker, root, wide(label="b"))
        for nonce in (None, second.digest):
            with pytest.raises(StepUpError, match="not made to decide on this"):
                await broker.approve(first.id, first.digest, house.human(nonce))
        used = house.human(first.digest)
        await broker.approve(first.id, first.digest, used)
        with pytest.raises(UsedError, match="this login was used before"):
            await broker.refuse(second.id, second.digest, replace(used, nonce=second.digest))
        with pytest.raises(UsedError):  # and it opens no task
            await broker.open(used, replace(wide(ttl=timedelta(minutes=1)), purpose="another"))
        assert broker._approvals.get(second.id).verdict is Verdict.PENDING

    run(body())


def test_the_owner_of_the_state_decides_for_themselves_and_not_for_others(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        mine, anns = await house.world.opened(broker, {**SEARCH, "paths": ["/v1/a"]}), await house.root(broker)
        own, others = await house.asked(broker, mine), await house.asked(broker, anns)
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
            await house.asked(broker, root, wide(depth=3))
        assert await shown(broker, OPERATOR) == []

    run(body())


def test_a_login_that_the_issuer_has_ended_neither_decides_nor_is_acted_on(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        opened_by = replace(house.human(), subject=replace(house.human().subject, sid="s-0"))
        asking = changed(wide({**SEARCH, "paths": ["/v1/search"]}), {"ttl": timedelta(minutes=9)})
        root = (await broker.open(opened_by, replace(asking, purpose="why"))).grant
        first, second = await house.asked(broker, root), await house.asked(broker, root, wide(label="b"))
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
        item = await house.asked(broker, root)
        await broker.revoke(holder(broker, root), root.id)
        with pytest.raises(RevokedError):
            await broker.approve(item.id, item.digest, house.human(item.digest))
        assert broker._approvals.get(item.id).verdict is Verdict.PENDING
        refused = await broker.refuse(item.id, item.digest, house.human(item.digest))
        assert refused.verdict is Verdict.DENIED
        with pytest.raises(RevokedError):
            await house.asked(broker, root)

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


# -- waiting ----------------------------------------------------------------------------------------------------------


def test_whoever_waits_hears_of_the_decision_at_once(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        item = await house.asked(broker, await house.root(broker))
        waiting = [asyncio.create_task(broker._approvals.wait(item.id, 60)) for _ in range(2)]
        await asyncio.sleep(0)
        await broker.approve(item.id, item.digest, house.human(item.digest))
        assert [(await one).verdict for one in waiting] == [Verdict.APPROVED] * 2
        assert (await broker._approvals.wait(item.id, 60)).verdict is Verdict.APPROVED

    run(body())


def test_waiting_ends_with_the_time_that_was_given_and_at_once_when_it_has_lapsed(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        item = await house.asked(broker, await house.root(broker))
        assert (await broker._approvals.wait(item.id, 0.01)).verdict is Verdict.PENDING
        house.world.now = item.expires_at
        assert (await broker._approvals.wait(item.id, 60)).verdict is Verdict.PENDING
        with pytest.raises(NotFoundError):
            await broker._approvals.wait("apr_999", 0)

    run(body())


# -- not to tire anybody ----------------------------------------------------------------------------------------------


def test_what_a_human_refused_is_not_asked_again_while_they_remember(house: House) -> None:
    """Nor is what holds all of it, under another name, for another key or another time; less may be asked."""

    async def body() -> None:
        broker = await house.world.ready()
        root = await house.root(broker)
        item = await house.asked(broker, root)
        await broker.refuse(item.id, item.digest, house.human(item.digest))
        for again in (wide(), wide(label="else"), wide(jkt="k" * 43), wide(ttl=timedelta(seconds=9)), wide(depth=3),
                      wide({**SEARCH, "paths": ["/v1/**"]}), wide(WIDE, NARROW)):  # fmt: skip
            with pytest.raises(ApprovalError, match="refused this before"):
                await house.asked(broker, root, again)
        await house.asked(broker, root, wide({**SEARCH, "paths": ["/v1/one"]}))
        house.world.now = item.expires_at
        assert (await house.asked(broker, root)).id != item.id

    run(body())


def test_a_client_that_a_named_human_refused_asks_them_for_nothing_and_nobody_answers_for_others(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        wanted = wide(ttl=timedelta(minutes=5))
        item = await broker.ask_to_open("cli", replace(wanted, purpose="why"), approver=ANN)
        await broker.refuse(item.id, item.digest, house.human(item.digest))
        for purpose in ("why", "else"):
            with pytest.raises(ApprovalError, match="refused this before"):
                await broker.ask_to_open("cli", replace(wanted, purpose=purpose), approver=ANN)
        for client, approver in (("cli", BOB), ("app", ANN)):
            await broker.ask_to_open(client, replace(wanted, purpose="why"), approver=approver)
        for _ in range(2):  # whoever came: that one said no speaks for nobody else
            item = await broker.ask_to_open("cli", replace(wanted, purpose="why"))
            await broker.refuse(item.id, item.digest, house.human(item.digest, sub=BOB), page=True)
        house.world.later(APPROVAL_LIFE.total_seconds())
        await broker.ask_to_open("cli", replace(wanted, purpose="why"), approver=ANN)

    run(body())


@pytest.mark.parametrize(("acr", "counts"), [("urn:mfa", True), ("pwd", False)])
def test_who_comes_to_the_page_proves_themselves_as_their_issuer_is_configured(
    house: House, acr: str, *, counts: bool
) -> None:
    """Nobody is named there when it is asked, so that it is looked up when somebody decides."""

    async def body() -> None:
        broker = await house.world.ready()
        item = await broker.ask_to_open("cli", replace(wide(ttl=timedelta(minutes=5)), purpose="why"))
        assert item.acr == ()
        human = house.human(item.digest, acr=acr)
        if counts:
            assert (await broker.approve(item.id, item.digest, human, page=True)).verdict is Verdict.APPROVED
            return
        with pytest.raises(StepUpError, match="strongly enough") as caught:
            await broker.approve(item.id, item.digest, human, page=True)
        assert "urn:mfa" in str(caught.value.help)
        done = await broker.refuse(item.id, item.digest, replace(human, digest="another"), page=True)
        assert done.verdict is Verdict.DENIED

    run(body())


def test_a_task_asks_so_often_in_a_time_whatever_became_of_it(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        root, other = await house.root(broker), await house.root(broker)
        for number in range(module.MAX_OF_TASK):
            item = await house.asked(broker, root, wide({**SEARCH, "paths": [f"/v1/{number}"]}))
            if number % 2:
                await broker.refuse(item.id, item.digest, house.human(item.digest))
        house.world.later(60)
        with pytest.raises(LimitError) as caught:
            await house.asked(broker, root, wide({**SEARCH, "paths": ["/v1/more"]}))
        assert caught.value.retry_after == (APPROVAL_LIFE - timedelta(seconds=60)).total_seconds()
        await house.asked(broker, other)
        house.world.later(APPROVAL_LIFE.total_seconds())
        await house.asked(broker, root, wide({**SEARCH, "paths": ["/v1/more"]}))

    run(body())


def test_a_client_has_so_many_requests_that_wait_and_all_clients_together(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_OF_CLIENT", 2)
    monkeypatch.setattr(module, "MAX_PENDING", 3)
    monkeypatch.setattr(module, "RESERVED", 0)

    async def body() -> None:
        broker = await house.world.ready()
        wanted = wide(ttl=timedelta(minutes=5))
        for client in ("one", "one", "two"):
            await broker.ask_to_open(client, replace(wanted, purpose="why"))
        for client in ("one", "three"):
            with pytest.raises(LimitError):
                await broker.ask_to_open(client, replace(wanted, purpose="why"))
        assert (await house.told())[-1] == ("approval.ask", "deny", "limit")

    run(body())


@pytest.mark.attack("OAU-11")
@pytest.mark.parametrize("many", ["app-{}", "https://bad.test/{}"])
def test_whoever_asks_under_many_names_keeps_no_other_name_waiting(
    house: House, monkeypatch: pytest.MonkeyPatch, many: str
) -> None:
    monkeypatch.setattr(module, "MAX_OF_CLIENT", 2)
    monkeypatch.setattr(module, "MAX_PENDING", 12)
    monkeypatch.setattr(module, "RESERVED", 1)

    async def body() -> None:
        broker = await house.world.ready()
        wanted = wide(ttl=timedelta(minutes=5))
        for _ in range(2):
            for number in range(8):
                with suppress(LimitError):
                    await broker.ask_to_open(many.format(number), replace(wanted, purpose="why"))
        await broker.ask_to_open("https://good.test/app", replace(wanted, purpose="why"))
        await broker.ask_to_open("own", replace(wanted, purpose="why"))
        with pytest.raises(LimitError):
            await broker.ask_to_open("own", replace(wanted, purpose="why"))

    run(body())


def test_what_is_reserved_for_names_that_have_nothing_waiting_is_bounded_too(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_PENDING", 2)
    monkeypatch.setattr(module, "MAX_WAITING", 4)

    async def body() -> None:
        broker = await house.world.ready()
        wanted = wide(ttl=timedelta(minutes=5))
        for number in range(4):
            await broker.ask_to_open(f"app-{number}", replace(wanted, purpose="why"))
        with pytest.raises(LimitError):
            await broker.ask_to_open("own", replace(wanted, purpose="why"))

    run(body())


def test_a_request_that_lapses_soon_counts_as_long_as_it_is_kept(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OF_CLIENT", 2)

    async def body() -> None:
        broker = await house.world.ready()
        wanted = wide(ttl=timedelta(minutes=5))
        for _ in range(2):
            await broker.ask_to_open("one", replace(wanted, purpose="why"), approver=ANN, life=timedelta(seconds=1))
        house.world.later(2)
        with pytest.raises(LimitError) as refused:
            await broker.ask_to_open("one", replace(wanted, purpose="why"), approver=ANN, life=timedelta(seconds=1))
        assert refused.value.retry_after == 598
        house.world.later(598)
        await broker.ask_to_open("one", replace(wanted, purpose="why"), approver=ANN, life=timedelta(seconds=1))

    run(body())


def test_what_anybody_may_answer_takes_no_room_of_what_names_a_human(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes to a page asks the former, without being anybody; a running task waits for the latter."""
    monkeypatch.setattr(module, "MAX_OF_CLIENT", 2)
    monkeypatch.setattr(module, "MAX_PENDING", 2)
    monkeypatch.setattr(module, "RESERVED", 0)

    async def body() -> None:
        broker = await house.world.ready()
        root, wanted = await house.root(broker), wide(ttl=timedelta(minutes=5))
        for approver in (None, ANN):
            for _ in range(2):
                await broker.ask_to_open("cli", replace(wanted, purpose="why"), approver=approver)
            for client in ("cli", "app"):
                with pytest.raises(LimitError):
                    await broker.ask_to_open(client, replace(wanted, purpose="why"), approver=approver)
        assert (await house.asked(broker, root)).task is not None

    run(body())


def test_what_is_over_is_forgotten_sooner_if_nobody_decided(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        root = await house.root(broker)
        pending, decided = await house.asked(broker, root), await house.approved(broker, root, wide(label="b"))
        house.world.now = pending.expires_at + APPROVAL_LIFE + timedelta(seconds=1)
        assert [item.id for item in await shown(broker, OPERATOR)] == [decided.id]
        house.world.now = pending.expires_at + module.KEPT + timedelta(seconds=1)
        assert await shown(broker, OPERATOR) == []

    run(body())


# -- restarts and failures --------------------------------------------------------------------------------------------


async def restarted(house: House) -> Broker:
    """Return another broker on the same state."""
    broker = house.world.broker()
    await broker.start()
    return broker


def test_what_was_asked_decided_and_used_is_so_after_a_restart(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        root = await house.root(broker, fan_out=5)
        pending = await house.asked(broker, root)
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
        waits = await house.asked(broker, await house.root(broker))
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
        item = await house.asked(broker, await house.root(broker))
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
        item = await house.asked(broker, await house.root(broker))
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
        item = await house.asked(broker, root)
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
        item = await house.asked(broker, await house.root(broker))
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


# -- opening ----------------------------------------------------------------------------------------------------------


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


def test_in_local_mode_the_owner_may_ask_themselves(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker, {**SEARCH, "paths": ["/v1/a"]})
        item = (await broker.ask(OPERATOR, root.id, wide())).approval
        assert (item.asker, item.approver) == (OPERATOR.subject.sub, OPERATOR.subject.sub)
        await broker.approve(item.id, item.digest, OPERATOR)
        assert ((await broker.delegate(OPERATOR, root.id, wide(), item)).grant).approval == item.id

    run(body())


def test_a_login_of_a_public_client_decides_nothing_and_the_request_waits_on(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        item = await house.asked(broker, await house.root(broker))
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
        me, item = holder(broker, root), await house.asked(broker, root)
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
