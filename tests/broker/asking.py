"""A human at an issuer, an agent that asks, and a store that can be told to fail: what the tests of approvals share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from remit.broker import Broker
from remit.core.approval import Approval
from remit.core.audit import Event
from remit.core.policy import Decision, Question
from remit.core.principal import Human, Principal
from remit.core.request import Bounds, GrantRequest
from remit.core.task import Grant, Subject
from remit.ports import Write
from tests.broker.world import SEARCH, TABLE, World, details, holder
from tests.grant_requests import changed
from tests.support.memory_store import MemoryStore

ANN, BOB = "https://idp.test#ann", "https://idp.test#bob"
MFA = "urn:mfa"
NARROW = {**SEARCH, "paths": ["/v1/search"]}
WIDE = {**SEARCH, "paths": ["/v1/**"], "uses": 3}


def everybody(question: Question) -> Decision:
    """Allow whatever resources allow, to any human."""
    del question
    return Decision(allowed=True, reasons=("anybody may",), version="test-1")


class Brittle(MemoryStore):
    """A memory store whose next writes can be told to fail, before or after they are durable."""

    def __init__(self) -> None:
        super().__init__()
        self.fail: list[Exception] = []
        self.late = False  # fail after the write has gone through: its answer is lost

    async def commit(self, writes: Sequence[Write], events: Sequence[Event]) -> None:
        if writes and self.fail:
            if self.late:
                await super().commit(writes, events)
            raise self.fail.pop(0)
        await super().commit(writes, events)


@dataclass
class House:
    """A world in which humans of an issuer open tasks, and decide with a login made for one request."""

    world: World = field(default_factory=lambda: World(store=Brittle(), decide=everybody, step_up={ANN: (MFA,)}))
    logins: int = 0

    @property
    def store(self) -> Brittle:
        """The store."""
        assert isinstance(self.world.store, Brittle)
        return self.world.store

    def human(self, nonce: str | None = None, sub: str = ANN, acr: str = MFA, **more: object) -> Human:
        """Return a human by a login of just now, by a token that was never seen before."""
        self.logins += 1
        now = self.world.now
        subject = replace(Subject(sub, acr, now, ("pwd", "otp"), sid="s-1"), **more)  # type: ignore[arg-type]  # its fields
        until = now + timedelta(minutes=5)
        return Human(subject, f"token-{self.logins}", now, until, "remit", nonce, confidential=True)

    async def root(self, broker: Broker, *raw: dict[str, object], sub: str = ANN, **more: object) -> Grant:
        """Open a task for a human, narrow, with one hop and one child unless ``more`` says else."""
        wanted = GrantRequest(details(*(raw or (NARROW,))), Bounds(timedelta(minutes=15), depth=1, fan_out=1))
        return (
            await broker.open(self.human(sub=sub), replace(changed(wanted, more), purpose="draft the CFO summary"))
        ).grant

    async def ask(self, broker: Broker, parent: Grant, wanted: GrantRequest | None = None) -> Approval:
        """Let the holder of ``parent`` ask for a child that exceeds it."""
        return (await broker.ask(holder(broker, parent), parent.id, wanted or wide())).approval

    async def approved(self, broker: Broker, parent: Grant, wanted: GrantRequest | None = None) -> Approval:
        """Ask, and let Ann approve."""
        item = await self.ask(broker, parent, wanted)
        return await broker.approve(item.id, item.digest, self.human(item.digest))

    async def told(self) -> list[tuple[str, str, str | None]]:
        """Return name, decision and code of every audit entry but those of resources."""
        events = await self.world.events()
        return [(e.event, e.decision, e.code) for e in events if not e.event.startswith("resource")]


def kept(broker: Broker) -> list[Approval]:
    """Return all that is asked of humans, oldest first: also what no list shows, because its flow's own page does."""
    return list(broker._approvals._kept.values())


async def shown(broker: Broker, principal: Principal) -> list[Approval]:
    """Return the approvals that a principal is shown."""
    return [(await broker.look(name, principal)).approval for name in await broker.approvals(principal)]


def wide(*raw: dict[str, object], **more: object) -> GrantRequest:
    """Return what exceeds a narrow root: other paths."""
    return changed(GrantRequest(details(*(raw or (WIDE,)))), more)


__all__ = ["ANN", "BOB", "MFA", "NARROW", "TABLE", "WIDE", "Brittle", "House", "everybody", "kept", "shown", "wide"]
