"""A broker on a real database that kills itself with SIGKILL at its N-th step.

Run as ``python -m tests.live.crash_driver STATE LOGIN PORT DATABASE STEP`` with the login's password on standard input.
A step is the moment before or after a call to the store or to the engine, once the task is open. STEP 0 is never
reached: the script then runs to its end and prints the number of steps there were. A negative STEP kills after that
many tenths of a millisecond instead, wherever that is: between two statements, or within one.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from remit.broker import Broker
from remit.core import scope
from remit.core.audit import Event
from remit.core.principal import Operator
from remit.core.request import Bounds, GrantRequest
from remit.core.secret import Secret
from remit.core.task import Plan, Subject
from remit.keys.file import FileSealer, load_kek
from remit.kinds.postgres.engine import PostgresEngine
from remit.kinds.postgres.plan import plan
from remit.ports import Clock, Issued, Resource, Write
from remit.stores.sqlite import SqliteStore
from tests.support.kinds import register, serving

OPERATOR = Operator(Subject("unix://host#0", "local-uid"))
DETAIL = {"type": "postgres", "resource": "warehouse", "actions": ["select"], "tables": ["sales.revenue"]}

Step = Callable[[], None]


def nothing() -> None:
    """Do not die."""


class DyingStore(SqliteStore):
    """A store whose process may die before and after a commit."""

    step: Step = staticmethod(nothing)

    async def commit(self, writes: Sequence[Write], events: Sequence[Event]) -> None:
        self.step()
        await super().commit(writes, events)
        self.step()


class DyingEngine(PostgresEngine):
    """An engine whose process may die before and after a call."""

    step: Step = staticmethod(nothing)

    async def issue(self, plan: Plan, expires_at: datetime) -> Issued:
        self.step()
        issued = await super().issue(plan, expires_at)
        self.step()
        return issued

    async def revoke(self, plan: Plan, receipt: Mapping[str, str] | None) -> None:
        self.step()
        await super().revoke(plan, receipt)
        self.step()

    async def revoke_many(self, plans: Sequence[Plan]) -> frozenset[str]:
        self.step()
        done = await super().revoke_many(plans)
        self.step()
        return done

    async def clean(self, plans: Sequence[Plan]) -> frozenset[str]:
        self.step()
        gone = await super().clean(plans)
        self.step()
        return gone


def broker(state: Path, clock: Clock, step: Step = nothing) -> tuple[Broker, DyingStore]:
    """Return a broker over ``state`` that dies where ``step`` says."""
    sealer = FileSealer(load_kek(state.parent / "kek", create=not (state.parent / "kek").exists()))
    store = DyingStore(state, sealer)

    def engine(resource: Resource, secret: Secret | None) -> DyingEngine:
        made = DyingEngine(resource, secret, clock=clock, random=secrets.token_bytes)
        made.step = step
        return made

    made = Broker(
        store=store,
        **serving(engine, plan),
        sealer=sealer,
        clock=clock,
        new_id=lambda prefix: f"{prefix}_{secrets.token_urlsafe(16)}",
    )
    return made, store


async def story(state: Path, resource: Resource, password: Secret, die_at: int) -> int:
    """Open, delegate, issue three times, revoke one, revoke the child, sweep; return how many steps that took."""
    count = itertools.count(1)
    taken = [0]

    def step() -> None:
        taken[0] = next(count)
        if taken[0] == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    made, store = broker(state, lambda: datetime.now(UTC), step)
    await made.start()
    await made.put_resource(OPERATOR, resource, password)
    details = scope.parse([DETAIL])
    root = await made.open(
        OPERATOR, GrantRequest(details, Bounds(timedelta(minutes=10), depth=1, fan_out=2), purpose="crash")
    )
    child = await made.delegate(OPERATOR, root.id, GrantRequest(details))
    taken[0], store.step = 0, step
    if die_at < 0:
        threading.Timer(-die_at / 10_000, os.kill, (os.getpid(), signal.SIGKILL)).start()
    count = itertools.count(1)
    one = await made.issue(OPERATOR, child.id, details[0])
    await made.issue(OPERATOR, child.id, details[0])
    await made.issue(OPERATOR, root.id, details[0])
    await made.revoke_lease(OPERATOR, one.lease.id)
    await made.revoke(OPERATOR, child.id)
    await made.sweep()
    store.step = nothing
    await made.stop()
    return taken[0]


def warehouse(login: str, port: str, database: str) -> Resource:
    """Return the resource that the test made a database for."""
    address = f"postgresql://{login}@127.0.0.1:{port}/{database}"
    return Resource(
        "warehouse",
        "postgres",
        address,
        scope.parse([DETAIL]),
        None,
        {"tls": "loopback", "accept": ["public-connect", "public-temp"]},
    )


def main(arguments: Sequence[str]) -> Awaitable[int]:
    """Run the story."""
    state, login, port, database, die_at = arguments
    return story(Path(state), warehouse(login, port, database), Secret(sys.stdin.read()), int(die_at))


async def _main() -> None:
    sys.stdout.write(f"{await main(sys.argv[1:])}\n")


if __name__ == "__main__":
    register()
    asyncio.run(_main())
