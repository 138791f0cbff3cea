"""A web worker that reads strangers' bytes, and is theirs: it decides, and opens, as nobody who has not logged in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from remit.broker import Broker
from remit.core.approval import Approval, Verdict, login_nonce
from remit.core.grant import Subject
from remit.core.principal import Human
from remit.core.secret import Secret
from remit.errors import DeniedError, GrantTokenError, NotFoundError, RemitError, StepUpError
from remit.identity.humans import IssuedHumans, Registration
from remit.link import roles
from tests.broker.asking import House, everybody, wide
from tests.broker.world import World, run
from tests.identity.issuing import START, URL, Clock, issuer, signed
from tests.link.two_ends import TwoEnds, linked

ALICE, BOB = f"{URL}#alice", f"{URL}#bob"
STRONG = "urn:mfa"
STATE = "of-the-login"
TASK = replace(wide(ttl=timedelta(minutes=1)), purpose="draft the CFO summary")


@dataclass
class Taken:
    """What somebody has who has taken over a web worker while a request waits for Alice."""

    link: TwoEnds
    broker: Broker
    item: Approval
    house: House

    def token(self, **over: object) -> str:
        """Return what the issuer signs when Alice logs in to decide, but for ``over`` (None: left out)."""
        at = int(self.house.world.now.timestamp())
        claims = {"iss": URL, "sub": "alice", "aud": "web", "iat": at, "exp": at + 600, "auth_time": at, "acr": STRONG}
        told = {**claims, "nonce": login_nonce(self.item, STATE), **over}
        return signed({name: value for name, value in told.items() if value is not None})

    def said(self, token: str, **over: Any) -> Human:
        """Return Alice as whoever decides on this, whatever the token says."""
        now = self.house.world.now
        alice, until = Subject(ALICE, STRONG, now, ("pwd", "otp")), now + timedelta(minutes=5)
        nonce = login_nonce(self.item, STATE)
        made_up = Human(alice, "a-digest", now, until, "web", nonce, confidential=True, token=token, state=STATE)
        return replace(made_up, **over)


@asynccontextmanager
async def taken(*, believed: bool = True) -> AsyncIterator[Taken]:
    world = World(now=START, decide=everybody, step_up={ALICE: (STRONG,)})
    house, clock = House(world), Clock()
    site = issuer(clock=clock)
    clients = [Registration(site, "web", Secret("s" * 16)), Registration(site, "public")]
    humans = (IssuedHumans(clients, "https://remit.test", clock),) if believed else ()
    broker = await world.ready()
    root = await house.root(broker, sub=ALICE)
    item = await house.ask(broker, root)
    async with linked(world, broker, roles.WEB, None, *humans) as link:
        yield Taken(link, broker, item, house)


HOUR = int(timedelta(hours=1).total_seconds())
FORGED: Mapping[str, tuple[Callable[[Taken], Human], type[RemitError]]] = {
    "nobody logged in": (lambda t: t.said(""), GrantTokenError),
    "no token": (lambda t: t.said("a.b.c"), GrantTokenError),
    "a claim was changed": (lambda t: t.said(f"{t.token(sub='bob').rpartition('.')[0]}.AAAA"), GrantTokenError),
    "somebody else logged in": (lambda t: t.said(t.token(sub="bob")), NotFoundError),
    "for another request": (lambda t: t.said(t.token(nonce="n")), StepUpError),
    "for no request": (lambda t: t.said(t.token(nonce=STATE)), StepUpError),
    "in another login": (lambda t: t.said(t.token(), state="another"), StepUpError),
    "as if with no login": (lambda t: t.said(t.token(), state=None), StepUpError),
    "by a public client": (lambda t: t.said(t.token(aud="public")), DeniedError),
    "by a weak login": (lambda t: t.said(t.token(acr="urn:password")), StepUpError),
    "before it was asked": (lambda t: t.said(t.token(auth_time=int(START.timestamp()) - HOUR)), StepUpError),
    "at a time not said": (lambda t: t.said(t.token(auth_time=None)), StepUpError),
}


@pytest.mark.parametrize("forged", FORGED)
def test_nobody_decides_whom_the_issuer_did_not_let_in_for_this(forged: str) -> None:
    made, error = FORGED[forged]

    async def body() -> None:
        async with taken() as here:
            with pytest.raises(error):
                await here.link.broker.approve(here.item.id, here.item.digest, made(here), page=True)
            assert here.broker._approvals.get(here.item.id).verdict is Verdict.PENDING

    run(body())


def test_who_logged_in_decides_as_the_issuer_says_who_they_are_once() -> None:
    async def body() -> None:
        async with taken() as here:
            human = here.said(here.token(), subject=Subject(BOB, "urn:anything"), digest="d", confidential=False)
            await here.link.broker.approve(here.item.id, here.item.digest, human, page=True)
            found = here.broker._approvals.get(here.item.id)
            assert (found.verdict, found.by and found.by.sub, found.by and found.by.acr) == (
                Verdict.APPROVED,
                ALICE,
                STRONG,
            )
            with pytest.raises(GrantTokenError, match="used"):
                await here.link.broker.open(replace(human, digest="another"), TASK)

    run(body())


def test_nobody_refuses_or_opens_a_task_as_a_human_of_whom_there_is_no_token() -> None:
    async def body() -> None:
        async with taken() as here:
            with pytest.raises(GrantTokenError):
                await here.link.broker.refuse(here.item.id, here.item.digest, here.said(""), page=True)
            with pytest.raises(GrantTokenError):
                await here.link.broker.open(here.said(""), TASK)
            assert here.broker._approvals.get(here.item.id).verdict is Verdict.PENDING
            opened = await here.link.broker.open(here.said(here.token(sub="bob")), TASK)
            assert opened.subject.sub == BOB
        async with taken(believed=False) as here:
            with pytest.raises(DeniedError, match="no issuer is configured"):
                await here.link.broker.approve(here.item.id, here.item.digest, here.said(here.token()), page=True)

    run(body())
