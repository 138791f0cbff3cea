"""A worker speaks for a workload that showed over its link who it is: as that, by its key, as often as that counts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from remit.broker import Broker
from remit.core.grant import Grant
from remit.core.principal import Holder, Workload
from remit.core.request import Binding, GrantRequest
from remit.errors import DeniedError, GrantTokenError, RemitError, UsedError
from remit.jose.token import TokenSpec
from remit.link import answering, roles
from remit.link.roles import WorkerRole
from remit.ports.broker import Presented
from remit.ports.identity import Workloads
from remit.ports.runs import DelegatedToRun, LaunchRequest
from remit.web.verifier import attested
from tests.broker.asking import NARROW, House, everybody, wide
from tests.broker.world import START, World, child, holder, run
from tests.link.two_ends import TwoEnds, linked, minting

PAY, ADS = "spiffe://prod.test/pay", "spiffe://prod.test/ads"
KEY, OTHER = "k" * 43, "o" * 43
END = START + timedelta(hours=1)
TEAM = {"team": "red"}


class Platform(Workloads):
    """A trust domain whose credentials say what they are worth."""

    async def assertion(self, token: str, kind: str) -> Workload:
        once = token if kind == "once" else None
        return Workload(token.partition(" ")[0], "jwt-svid", END, TEAM, digest=once)

    async def named(self, wit: str) -> Workload:
        return Workload(wit, "wit", END, jkt=KEY)

    async def certified(self, chain: Any) -> Workload:
        return Workload(chain[0].decode() if chain else "", "x509-svid", END, x5t="x" * 43)

    async def proven(self, wit: str, wpt: str, target: str, token: str | None) -> Workload:
        once = f"{wpt} {target} {token}"
        return Workload(wit, "wit", END, jkt=KEY, digest=once, until=START + timedelta(minutes=5))


@dataclass
class Taken:
    """What somebody has who has taken over a worker that an agent, the holder of ``root``, speaks to."""

    link: TwoEnds
    broker: Broker
    root: Grant
    world: World

    @property
    def remote(self) -> Any:
        return self.link.broker

    @property
    def holder(self) -> Holder:
        return holder(self.broker, self.root)


@asynccontextmanager
async def taken(role: WorkerRole) -> AsyncIterator[Taken]:
    world = World(decide=everybody)
    house = House(world)
    broker = await world.ready()
    root = await house.root(broker, depth=2, fan_out=20, jkt=KEY)
    tokens = minting(world, broker)
    text = (await tokens.mint(root.id, TokenSpec())).token or ""
    async with linked(world, broker, role, tokens, Platform()) as link:
        await link.broker.present(text)
        yield Taken(link, broker, root, world)


def task(binding: Binding) -> GrantRequest:
    return replace(wide(ttl=timedelta(minutes=1)), purpose="draft the CFO summary", binding=binding)


def child_of(binding: Binding) -> GrantRequest:
    return replace(child(NARROW, depth=0, fan_out=0), binding=binding)


def wide_for(binding: Binding) -> GrantRequest:
    return replace(wide(), binding=binding)


def of(workload: Workload, **more: Any) -> GrantRequest:
    return task(replace(attested(Binding(jkt=KEY), workload), **more))


async def _shown(taken: Taken, token: str = PAY) -> Workload:
    found: Workload = await taken.remote.assertion(token, "often")
    return found


async def _once(taken: Taken, token: str = f"{PAY} 1", *, spent: bool = True) -> Workload:
    found: Workload = await taken.remote.assertion(token, "once")
    if spent:
        await taken.remote.spend(found)
        return replace(found, digest=None)
    return found


async def _made_up(here: Taken) -> object:
    workload = Workload(PAY, "jwt-svid", END)
    return await here.remote.open(workload, of(workload))


async def _another(here: Taken) -> object:
    ads = await _shown(here, ADS)
    return await here.remote.open(ads, of(replace(ads, id=PAY)))


async def _both(here: Taken) -> object:
    ads, pay = await _shown(here, ADS), await _shown(here)
    return await here.remote.open(ads, of(pay))


async def _claims(here: Taken) -> object:
    pay = await _shown(here)
    return await here.remote.open(pay, of(pay, claims=(("team", "blue"),)))


async def _nameless_claims(here: Taken) -> object:
    return await here.remote.delegate(here.holder, here.root.id, child_of(Binding(KEY, claims=(("team", "red"),))))


async def _unspent(here: Taken) -> object:
    pay = await _once(here, spent=False)
    return await here.remote.open(pay, of(pay))


async def _as_if_spent(here: Taken) -> object:
    pay = replace(await _once(here, spent=False), digest=None)
    return await here.remote.open(pay, of(pay))


async def _twice(here: Taken) -> object:
    pay = await _once(here)
    await here.remote.open(pay, of(pay))
    return await here.remote.open(pay, of(pay))


async def _late(here: Taken) -> object:
    pay = await _shown(here)
    here.world.now = END
    return await here.remote.open(pay, of(pay))


async def _proof_over(here: Taken) -> object:
    pay: Workload = await here.remote.proven(PAY, "a-proof", "https://remit.test", None)
    await here.remote.spend(pay)
    here.world.now = START + timedelta(minutes=5)
    return await here.remote.open(replace(pay, digest=None), of(pay))


async def _read(here: Taken) -> object:
    pay = await here.remote.named(PAY)
    return await here.remote.open(pay, of(pay))


async def _other_key(here: Taken) -> object:
    pay: Workload = await here.remote.proven(PAY, "a-proof", "https://remit.test", None)
    await here.remote.spend(pay)
    return await here.remote.open(replace(pay, digest=None), of(pay, jkt=OTHER))


async def _of_an_opener(here: Taken) -> object:
    return await here.remote.delegate(here.holder, here.root.id, child_of(Binding(KEY, identity=PAY)))


async def _child_of_another_key(here: Taken) -> object:
    pay = await here.remote.named(PAY)
    wanted = child_of(attested(Binding(jkt=OTHER), pay))
    return await here.remote.delegate(here.holder, here.root.id, wanted, None, pay)


async def _asked(here: Taken) -> object:
    return await here.remote.ask(here.holder, here.root.id, wide_for(Binding(KEY, identity=PAY)), None)


async def _refreshed(here: Taken) -> object:
    return await here.remote.rotate_refresh_token(Presented("d" * 43, PAY, KEY, None, attested=True), "f" * 43)


async def _burnt(here: Taken) -> object:
    return await here.remote.spend(Workload(PAY, "jwt-svid", END, digest="of another's token"))


async def _as_principal(here: Taken) -> object:
    return await here.remote.approvals(await _shown(here))


async def _launched(here: Taken) -> object:
    launch = LaunchRequest(DelegatedToRun(child_of(Binding(identity=PAY))), "namespace", "/run/x")
    return await here.remote.begin_run(here.holder, launch, None)


Forged = Mapping[str, Callable[[Taken], Awaitable[object]]]
BY_EITHER: Forged = {
    "a child of whoever comes": _of_an_opener,
    "claims of nobody": _nameless_claims,
    "a child by a credential of another key": _child_of_another_key,
    "what a human is asked for": _asked,
    "a credential that was not shown": _burnt,
    "somebody who looks around": _as_principal,
}
BY_WEB: Forged = {
    "made up": _made_up,
    "by another's credential": _another,
    "two at a time": _both,
    "with other claims": _claims,
    "before it counted": _unspent,
    "as if it had counted": _as_if_spent,
    "twice, by what counts once": _twice,
    "after its end": _late,
    "after the end of its proof": _proof_over,
    "by what anybody may have read": _read,
    "with another key": _other_key,
    "a client of refresh tokens": _refreshed,
}
CASES = {
    **{f"{how}, at web": (roles.WEB, forged) for how, forged in {**BY_EITHER, **BY_WEB}.items()},
    **{f"{how}, at an edge": (roles.EDGE, forged) for how, forged in {**BY_EITHER, "a run": _launched}.items()},
}


@pytest.mark.parametrize("case", CASES)
def test_no_worker_names_a_workload_that_has_not_shown_there_that_it_is_that(case: str) -> None:
    role, forged = CASES[case]

    async def body() -> None:
        async with taken(role) as here:
            with pytest.raises(DeniedError):
                await forged(here)

    run(body())


def test_a_workload_opens_a_task_as_often_as_its_credential_counts() -> None:
    async def body() -> None:
        async with taken(roles.WEB) as here:
            pay = await _shown(here)
            for _ in range(2):
                opened = await here.remote.open(replace(pay, expires_at=END + timedelta(days=9)), of(pay))
                assert (opened.subject.sub, opened.grant.agent, opened.grant.binding.claims) == (
                    PAY,
                    PAY,
                    (("team", "red"),),
                )
            once = await _once(here)
            assert (await here.remote.open(once, of(once))).subject.sub == PAY
            with pytest.raises(UsedError):
                await _once(here)
            ads: Workload = await here.remote.certified([ADS.encode()])
            assert (await here.remote.open(ads, task(attested(Binding(x5t="x" * 43), ads)))).subject.sub == ADS
            with pytest.raises(GrantTokenError):  # it is known who asks, and by no token that there is
                await here.remote.rotate_refresh_token(Presented("d" * 43, PAY, KEY, None, attested=True), "f" * 43)

    run(body())


@pytest.mark.parametrize("role", [roles.EDGE, roles.WEB], ids=lambda role: role.name)
def test_a_child_is_a_workload_that_an_agent_showed_a_credential_of(role: WorkerRole) -> None:
    async def body() -> None:
        async with taken(role) as here:
            wit = await here.remote.named(PAY)
            wanted = child_of(attested(Binding(jkt=KEY), wit))
            made = await here.remote.delegate(here.holder, here.root.id, wanted, None, wit)
            assert (made.grant.agent, made.grant.attested) == (PAY, True)
            ads = await _once(here, f"{ADS} 1", spent=False)
            view = await here.remote.ask(here.holder, here.root.id, wide_for(attested(Binding(KEY), ads)), ads)
            assert view.approval.verb == "grant.delegate"
            again = await _once(here, f"{ADS} 1", spent=False)
            with pytest.raises(UsedError):
                await here.remote.delegate(
                    here.holder, here.root.id, child_of(attested(Binding(KEY), again)), None, again
                )

    run(body())


def test_whom_a_human_is_asked_about_may_show_who_it_is_when_it_comes_back() -> None:
    async def body() -> None:
        async with taken(roles.WEB) as here:
            pay = Workload(PAY, "jwt-svid", END, TEAM)
            assert PAY in await here.remote.to_open(of(pay))
            assert (await here.remote.ask_to_open("client", of(pay))).verb == "task.open"

    run(body())


def test_what_is_remembered_of_workloads_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "SHOWN", 2)
    monkeypatch.setattr(answering, "SHOWN_OF_ONE", 2)

    async def body() -> None:
        async with taken(roles.WEB) as here:
            oldest, *newer = [await _shown(here, f"{PAY}/{i}") for i in range(3)]
            for each in newer:
                await here.remote.open(each, of(each))
            with pytest.raises(DeniedError):
                await here.remote.open(oldest, of(oldest))
            spent = [await _once(here, f"{ADS} {i}") for i in range(3)]
            for each in spent[1:]:
                await here.remote.open(each, of(each))
            with pytest.raises(RemitError):
                await here.remote.open(spent[0], of(spent[0]))

    run(body())
