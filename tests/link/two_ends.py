"""Both ends of a link in one loop: an edge or web, and the broker of a world behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from remit.broker import Broker
from remit.broker.pending import PendingMemory
from remit.compose.bound_grants import BoundGrants
from remit.core.secret import Secret
from remit.errors import NotFoundError
from remit.link import roles
from remit.link.authority import AuthorityEnd, serve
from remit.link.frames import LinkSockets, pair
from remit.link.roles import WorkerRole
from remit.link.worker import WorkerEnd, connect
from remit.ports.broker import Notice
from remit.ports.identity import Humans
from remit.ports.runs import RedeemedRun
from tests.broker.world import World
from tests.support.signing import Ring


@dataclass
class Heard:
    """What a worker heard, in order."""

    marked: list[frozenset[str]] = field(default_factory=list)
    severed: list[frozenset[str]] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)

    def mark(self, grants: frozenset[str]) -> None:
        self.marked.append(grants)

    def sever(self, grants: frozenset[str]) -> None:
        self.severed.append(grants)

    def noticed(self, notice: Notice) -> None:
        self.notices.append(notice)


@dataclass
class Tickets:
    """The runs that an edge may redeem: a ticket is the id of its grant."""

    broker: Broker

    async def begin_run(self, caller: object, launch: object, within: str | None = None) -> None:
        raise NotFoundError(f"{caller} asks for {launch} within {within}")

    async def redeem_run(self, ticket: Secret) -> RedeemedRun:
        view = await self.broker.grant(ticket.reveal())
        return RedeemedRun("run_1", view.holder, (), {}, None)


@dataclass
class TwoEnds:
    """A link, and what became of it."""

    worker: WorkerEnd
    authority: AuthorityEnd
    heard: Heard
    gone: list[str]  # which end said so
    stuck: list[AuthorityEnd]

    @property
    def broker(self) -> Any:
        """What the worker calls."""
        return self.worker.authority

    async def redeem(self, grant_id: str) -> None:
        """Let the worker name a grant, as the edge of its run."""
        await self.broker.redeem_run(Secret(grant_id))


@asynccontextmanager
async def linked(
    world: World, broker: Any, role: WorkerRole = roles.EDGE, tokens: BoundGrants | None = None, *more: object
) -> AsyncIterator[TwoEnds]:
    """Join a worker to the broker, and to ``more`` that answers it."""
    ours, theirs = pair()
    end, gone, stuck = await served(world, broker, theirs, role, tokens, *more)
    heard = Heard()
    link = await connect(ours, heard, lambda: gone.append("worker"))
    try:
        yield TwoEnds(link, end, heard, gone, stuck)
    finally:
        link.close()
        end.close()


def minting(world: World, broker: Any, humans: Humans | None = None) -> BoundGrants:
    """Return what mints tokens of a broker's grants; ``humans`` verifies ID tokens."""
    pending, issuer = PendingMemory(lambda: world.now), "https://remit.test"
    name = lambda prefix: f"{prefix}_1"  # noqa: E731 - short
    return BoundGrants(broker, Ring(), pending, issuer, lambda: world.now, name, b"n" * 32, humans=humans)


async def served(
    world: World,
    broker: Any,
    theirs: LinkSockets,
    role: WorkerRole = roles.EDGE,
    tokens: BoundGrants | None = None,
    *more: object,
    dies: bool = True,
) -> tuple[AuthorityEnd, list[str], list[AuthorityEnd]]:
    """Serve one end; ``dies``: the worker's process ends with its link."""
    gone, stuck = list[str](), list[AuthorityEnd]()

    def ended(one: AuthorityEnd) -> None:
        gone.append("authority")
        if dies:
            one.gone()

    tokens = tokens or minting(world, broker)
    ports = (broker, tokens._pending, tokens, Tickets(cast("Broker", broker)), *more)
    end = await serve(theirs, role, broker, ports, lambda: world.now, stuck=stuck.append, ended=ended)
    return end, gone, stuck
