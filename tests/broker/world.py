"""A broker on a store in memory, with a target that can be told to misbehave."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519

from remit.broker import Broker
from remit.core import audit, scope
from remit.core.audit import Event
from remit.core.policy import Policy, within_bounds
from remit.core.principal import Holder, Operator
from remit.core.request import Bounds, GrantRequest
from remit.core.scope import Scope
from remit.core.secret import Secret
from remit.core.task import Grant, Plan, Revocation, Subject
from remit.errors import EngineError, IntegrityError
from remit.keys.signers import FileSigner
from remit.ports import Engine, Finding, Issued, Resource, Store
from remit.sessions.revocations import SessionRevocations
from tests.grant_requests import changed
from tests.support.kinds import serving
from tests.support.memory_store import MemoryStore

NOTE = FileSigner(ed25519.Ed25519PrivateKey.from_private_bytes(b"n" * 32))  # signs checkpoints
START = datetime(2026, 1, 1, tzinfo=UTC)
TABLE = {"type": "postgres", "resource": "warehouse", "actions": ["select"], "tables": ["sales.revenue"], "ttl": 600}
SEARCH = {"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/v1/**"], "args": "any", "uses": 3}


def details(*raw: Mapping[str, object]) -> Scope:
    """Read details in wire form."""
    return scope.parse([dict(item) for item in raw])


def child(*raw: Mapping[str, object], **more: object) -> GrantRequest:
    """Return what a sub-agent asks for."""
    return changed(GrantRequest(details(*raw), Bounds(depth=1, fan_out=2)), more)


class ClearSealer:
    """Seals nothing, but binds to the associated data as a real one does."""

    def seal(self, plaintext: bytes, associated: bytes) -> bytes:
        return associated + b"|" + plaintext[::-1]

    def open(self, sealed: bytes, associated: bytes) -> bytes:
        head, _, tail = sealed.rpartition(b"|")
        if head != associated:
            raise IntegrityError
        return tail[::-1]

    def mac(self, data: bytes) -> bytes:
        return data[:32]


@dataclass
class Target:
    """A target's accounts: name -> end."""

    accounts: dict[str, datetime] = field(default_factory=dict)
    residue: set[str] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)
    fail: set[str] = field(default_factory=set)
    error: Exception | None = None
    revocation: Revocation = Revocation.BY_NAME
    during_issue: Callable[[], Awaitable[object]] | None = None
    during_revoke: Callable[[str], Awaitable[object]] | None = None
    closed: int = 0

    def check(self, verb: str) -> None:
        if verb in self.fail:
            raise self.error or EngineError


@dataclass
class PlainEngine:
    """The three required methods and no more."""

    target: Target

    @property
    def revocation(self) -> Revocation:
        return self.target.revocation

    async def issue(self, plan: Plan, expires_at: datetime) -> Issued:
        self.target.check("issue")
        self.target.accounts[plan.name] = expires_at
        if self.target.during_issue is not None:
            await self.target.during_issue()
        return Issued({"user": plan.name, "password": Secret("p4ss")})

    async def revoke(self, plan: Plan, _receipt: Mapping[str, str] | None) -> None:
        self.target.check("revoke")
        if self.target.during_revoke is not None:
            await self.target.during_revoke(plan.name)
        self.target.accounts.pop(plan.name, None)


class Handles(PlainEngine):
    """The target chooses the handle."""

    async def issue(self, plan: Plan, expires_at: datetime) -> Issued:
        self.target.accounts["handle-7"] = expires_at
        if self.target.during_issue is not None:
            await self.target.during_issue()
        return Issued({"user": plan.name}, {"handle": "handle-7"})

    async def revoke(self, plan: Plan, receipt: Mapping[str, str] | None) -> None:
        await super().revoke(plan, receipt)
        self.target.accounts.pop(receipt["handle"] if receipt else "", None)


class FullEngine(PlainEngine):
    """Every optional ability too."""

    async def renew(self, plan: Plan, _receipt: Mapping[str, str] | None, expires_at: datetime) -> None:
        self.target.check("renew")
        self.target.accounts[plan.name] = expires_at

    async def revoke_many(self, plans: Sequence[Plan]) -> frozenset[str]:
        self.target.check("revoke")
        done = [plan for plan in plans if plan.name not in self.target.fail]
        for plan in done:
            self.target.accounts.pop(plan.name, None)
            self.target.residue.add(plan.name)
        return frozenset(plan.name for plan in done)

    async def clean(self, plans: Sequence[Plan]) -> frozenset[str]:
        self.target.check("clean")
        gone = frozenset(plan.name for plan in plans)
        self.target.residue -= gone
        return gone

    async def inspect(self) -> Sequence[Finding]:
        return self.target.findings

    async def close(self) -> None:
        self.target.closed += 1
        self.target.check("close")


@dataclass
class World:
    """Everything around a broker, to look at and to disturb."""

    store: Store = field(default_factory=MemoryStore)
    target: Target = field(default_factory=Target)
    now: datetime = START
    engine: type[PlainEngine] = FullEngine
    ids: itertools.count[int] = field(default_factory=itertools.count)
    decide: Policy = within_bounds
    step_up: dict[str, tuple[str, ...]] = field(default_factory=dict)  # human -> the acr that decide

    def broker(self, **more: Any) -> Broker:
        if self.step_up:
            more["step_up"] = lambda sub: self.step_up.get(sub, ())
        more.setdefault("revocations", SessionRevocations)
        more.setdefault("sign", lambda size, root: audit.checkpoint("remit.test/audit", size, root, NOTE))
        return Broker(
            store=self.store,
            **serving(self._engine),
            sealer=ClearSealer(),
            clock=lambda: self.now,
            new_id=lambda prefix: f"{prefix}_{next(self.ids)}",
            at_rest="kek-file",
            decide=self.decide,
            **more,
        )

    def _engine(self, _resource: Resource, _secret: Secret | None) -> Engine:
        return self.engine(self.target)

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    async def ready(self) -> Broker:
        broker = self.broker()
        await broker.start()
        await broker.put_resource(OPERATOR, warehouse(), Secret("admin-pw"))
        await broker.put_resource(OPERATOR, search(), Secret("api-key-0123456789ab"))
        return broker

    async def opened(self, broker: Broker, *raw: Mapping[str, object], **more: object) -> Grant:
        wanted = GrantRequest(details(*(raw or (TABLE, SEARCH))), Bounds(timedelta(minutes=15), depth=3, fan_out=3))
        return (await broker.open(OPERATOR, changed(wanted, {"purpose": "draft the CFO summary", **more}))).grant

    async def events(self) -> list[Event]:
        return [audit.read(entry) for entry in await self.store.entries(0, await self.store.size())]


async def confirmed(broker: Broker) -> None:
    """Let what confirms a lease that was handed out be recorded."""
    for _ in range(3):
        await broker._tasks.durable()


OPERATOR = Operator(Subject("unix://host#1000", "local-uid"))
STRANGER = Operator(Subject("unix://host#1001", "local-uid"))


def warehouse(destination: str = "postgresql://broker@127.0.0.1:5432/db", **settings: object) -> Resource:
    """Return the database resource."""
    bound = {key: value for key, value in TABLE.items() if key != "ttl"}
    return Resource(
        "warehouse", "postgres", destination, details({**bound, "actions": ["select", "insert"]}), None, settings
    )


def search(destination: str = "https://search.test") -> Resource:
    """Return the HTTP resource."""
    bound = {key: value for key, value in SEARCH.items() if key != "uses"}
    return Resource("search", "http", destination, details(bound), None, {})


def holder(broker: Broker, grant: Grant) -> Holder:
    """Return the caller that holds ``grant``."""
    return Holder(broker._tasks.task_of(grant.id).id, grant.id)


def run(coroutine: Awaitable[None]) -> None:
    """Run a test's coroutine."""

    async def main() -> None:
        await coroutine

    asyncio.run(main())


def on_end(broker: Broker, told: Callable[[frozenset[str]], object]) -> None:
    """Call back at once with the grants that a broker says have ended, before any edge has heard of it."""
    notices = broker._tasks.notices
    tell = notices.tell

    def telling(grants: frozenset[str] = frozenset(), *others: frozenset[str], **more: frozenset[str]) -> None:
        if grants:
            told(grants)
        tell(grants, *others, **more)

    notices.tell = telling  # type: ignore[method-assign]  # a test stands in its way
