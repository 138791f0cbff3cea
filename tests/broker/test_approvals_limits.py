"""How often humans are asked, by whom, and for how long what was asked is kept."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest

from remit.broker import approvals as module
from remit.core.approval import Verdict
from remit.errors import (
    ApprovalError,
    LimitError,
    StepUpError,
)
from remit.ports.broker import APPROVAL_LIFE
from tests.broker.asking import ANN, BOB, NARROW, WIDE, House, shown, wide
from tests.broker.world import OPERATOR, SEARCH, run


def test_what_a_human_refused_is_not_asked_again_while_they_remember(house: House) -> None:
    """Nor is what holds all of it, under another name, for another key or another time; less may be asked."""

    async def body() -> None:
        broker = await house.world.ready()
        root = await house.root(broker)
        item = await house.ask(broker, root)
        await broker.refuse(item.id, item.digest, house.human(item.digest))
        for again in (wide(), wide(label="else"), wide(jkt="k" * 43), wide(ttl=timedelta(seconds=9)), wide(depth=3),
                      wide({**SEARCH, "paths": ["/v1/**"]}), wide(WIDE, NARROW)):  # fmt: skip
            with pytest.raises(ApprovalError, match="refused this before"):
                await house.ask(broker, root, again)
        await house.ask(broker, root, wide({**SEARCH, "paths": ["/v1/one"]}))
        house.world.now = item.expires_at
        assert (await house.ask(broker, root)).id != item.id

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
            item = await house.ask(broker, root, wide({**SEARCH, "paths": [f"/v1/{number}"]}))
            if number % 2:
                await broker.refuse(item.id, item.digest, house.human(item.digest))
        house.world.later(60)
        with pytest.raises(LimitError) as caught:
            await house.ask(broker, root, wide({**SEARCH, "paths": ["/v1/more"]}))
        assert caught.value.retry_after == (APPROVAL_LIFE - timedelta(seconds=60)).total_seconds()
        await house.ask(broker, other)
        house.world.later(APPROVAL_LIFE.total_seconds())
        await house.ask(broker, root, wide({**SEARCH, "paths": ["/v1/more"]}))

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
        assert (await house.ask(broker, root)).task is not None

    run(body())


def test_what_is_over_is_forgotten_sooner_if_nobody_decided(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        root = await house.root(broker)
        pending, decided = await house.ask(broker, root), await house.approved(broker, root, wide(label="b"))
        house.world.now = pending.expires_at + APPROVAL_LIFE + timedelta(seconds=1)
        assert [item.id for item in await shown(broker, OPERATOR)] == [decided.id]
        house.world.now = pending.expires_at + module.KEPT + timedelta(seconds=1)
        assert await shown(broker, OPERATOR) == []

    run(body())
