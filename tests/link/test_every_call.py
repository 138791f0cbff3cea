"""Every method of a role with every principal and value that a worker can make up: it learns and changes nothing.

The calls are generated from the table of roles and the annotations of the protocols: a call that the worker may make,
with one argument after the other in the place of each that it should not be able to say.
"""

from __future__ import annotations

import asyncio
import math
import typing
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import NoneType, UnionType
from typing import Any

import msgspec
import pytest

from remit.broker import Broker
from remit.compose.bound_grants import BoundGrants
from remit.core.approval import Approval
from remit.core.description import Described
from remit.core.grant import Grant, Posture, Subject
from remit.core.principal import Claims, Holder, Human, IdToken, Operator, Right, Signal, Workload
from remit.core.request import Binding, Bounds, GrantRequest
from remit.core.scope import Access, Detail
from remit.core.secret import Secret
from remit.errors import InvalidRequestError, NotFoundError, RemitError
from remit.jose.proof import Proof
from remit.jose.token import TokenSpec
from remit.link import roles
from remit.link.frames import frame
from remit.link.messages import Answer, Call, Method, Refusal, method
from remit.link.roles import WorkerRole
from remit.ports.broker import Presented
from remit.ports.pending import PendingKind
from remit.ports.reports import LogLine
from remit.ports.runs import DelegatedToRun, HeldByRun, LaunchRequest, OpenedForRun
from tests.broker.asking import everybody
from tests.broker.world import SEARCH, TABLE, World, details, holder, run
from tests.link.test_hostile import Raw, raw
from tests.link.test_workloads_named import Platform
from tests.link.two_ends import minting

MARK = "of-somebody-else"  # stands in all that is foreign
ANN = Subject("https://idp.test#ann", "urn:mfa", datetime(2026, 1, 1, tzinfo=UTC))
FAR = datetime(9999, 12, 31, tzinfo=UTC)
NUMBERS = (0, -1, 2**63 - 1, -(2**63), 2**64 - 1)
LONG = "x" * 100_000


@dataclass
class Scene:
    """What is the worker's to name, and what is not."""

    world: World
    broker: Broker
    tokens: BoundGrants
    worker: Raw
    mine: Grant
    theirs: Grant
    ended: Grant  # of somebody else, too
    lease: str  # as above
    asked: Approval  # as above
    own: Approval

    @property
    def names(self) -> tuple[str, ...]:
        tasks = [holder(self.broker, grant).task for grant in (self.theirs, self.mine)]
        grants = self.theirs.id, self.ended.id, self.mine.id
        return (*grants, *tasks, self.lease, self.own.id, "search", "grt_none", "", "\0", "\ud800", LONG)

    def values(self, kind: Any) -> Iterator[object]:
        """Yield what a worker may put in the place of a value of a type."""
        if typing.get_origin(kind) in {typing.Union, UnionType}:
            for each in typing.get_args(kind):
                yield from self.values(each)
        elif kind in self.made_up:
            yield from self.made_up[kind]
        elif isinstance(kind, type) and issubclass(kind, PendingKind):
            yield from PendingKind
        elif (origin := typing.get_origin(kind)) is not None and not issubclass(origin, Mapping):
            yield from ((), tuple(self.values(typing.get_args(kind)[0])))
        elif origin is not None:
            yield from ({}, {"gateway": "x", "warehouse": 2**40}, {LONG: 1})
        else:
            raise AssertionError(f"say what can be made up of {kind}")

    @property
    def made_up(self) -> Mapping[Any, tuple[object, ...]]:
        mine, theirs, ended = (holder(self.broker, each) for each in (self.mine, self.theirs, self.ended))
        now = self.world.now
        human = Human(ANN, "d", now, FAR, "web", None, confidential=True, token="a.b.c")
        workload = Workload("spiffe://prod.test/pay", "jwt-svid", FAR)
        claims = Claims(theirs.task, theirs.grant, None, ANN.sub, "c", "k", "j", 0, 2**40, "a", None, {})
        asks = GrantRequest(details(SEARCH), Bounds(timedelta(seconds=9)))
        requests = (
            asks,
            replace(asks, binding=Binding(identity=workload.id)),
            replace(asks, binding=Binding("k" * 43, claims=(("admin", "yes"),))),
            replace(asks, bounds=Bounds(timedelta.max, 2**31, 2**31)),
            replace(asks, bounds=Bounds(timedelta(seconds=-1), -1, -1, delegates=(LONG,))),
            replace(asks, scope=details(TABLE), label=LONG, purpose=LONG),
        )
        made = [DelegatedToRun(each, theirs.grant) for each in requests]
        own: tuple[OpenedForRun | HeldByRun, ...] = OpenedForRun(asks, Secret("a.b.c")), HeldByRun(theirs.grant)
        return {
            Operator: (Operator(ANN),),
            Human: (human, replace(human, rights=frozenset(Right)), replace(human, token="")),
            IdToken: (IdToken("a.b.c"), IdToken(LONG)),
            Workload: (workload, replace(workload, digest="d", until=FAR)),
            Holder: (
                *(theirs, ended, replace(mine, claims=claims), Holder(theirs.task, mine.grant)),
                *(Holder(mine.task, theirs.grant), Holder("", ""), Holder(LONG, LONG)),
            ),
            Approval: (
                *(self.asked, self.own, replace(self.asked, grant=mine.grant, task=mine.task)),
                *(replace(self.asked, verb="task.open", task=None, grant=None), replace(self.asked, id="apr_none")),
            ),
            GrantRequest: requests,
            Described: (Described("tool", "find", "{}"), Described("tool", LONG, LONG)),
            Posture: (Posture("microvm"),),
            str: self.names,
            bytes: (b"", b"x" * 100_000),
            bool: (True, False),
            int: NUMBERS,
            float: (math.nan, math.inf, -math.inf, -1.0, 1e308),
            timedelta: (timedelta(0), timedelta(days=-1), timedelta.max, timedelta.min),
            datetime: (FAR, datetime(1, 1, 1, tzinfo=UTC)),
            NoneType: (None,),
            RemitError: (NotFoundError(), InvalidRequestError(LONG)),
            Access: (Access("search", "GET"), Access(LONG, LONG, LONG)),
            Detail: (*details(SEARCH, TABLE),),
            Proof: (*(Proof("k" * 43, "j" * 20, iat) for iat in NUMBERS), Proof(LONG, LONG, 0)),
            TokenSpec: (TokenSpec("https://evil.test"), TokenSpec(until=FAR), TokenSpec(par_hash=LONG)),
            Presented: (Presented("d" * 43, workload.id, attested=True), Presented(LONG, LONG)),
            Signal: (Signal(FAR, "logout", "d", "https://idp.test#nobody"), Signal(now, LONG, LONG)),
            LogLine: (LogLine(2**40, "other", LONG), LogLine(-1, "", "\n\x1b[2J")),
            LaunchRequest: tuple(LaunchRequest(each, "none", "/") for each in (*own, *made)),
            Secret: (Secret("a-ticket"), Secret(LONG)),
        }

    def plain(self, name: str, kind: Any) -> object:
        """Return what an honest worker says, as far as one value does for all."""
        own = {
            "grant_id": self.mine.id,
            "parent_id": self.mine.id,
            "own": self.mine.id,
            "seconds": 0.0,
            "limit": 10,
            "task_id": holder(self.broker, self.mine).task,
            "approval_id": self.own.id,
            "life": timedelta(seconds=9),
        }
        if name in own:
            return own[name]
        if name in {"principal", "caller", "opener"} or Holder in typing.get_args(kind):
            return self.own if name == "opener" else holder(self.broker, self.mine)
        if type(None) in typing.get_args(kind):
            return None
        return next(self.values(kind))

    def calls(self, asked: Method) -> Iterator[dict[str, object]]:
        """Yield the arguments of all calls of a method, each with one that is made up."""
        plain = {name: self.plain(name, kind) for name, kind in asked.parameters.items()}
        yield plain
        for name, kind in asked.parameters.items():
            yield from ({**plain, name: value} for value in self.values(kind))


@asynccontextmanager
async def scene(role: WorkerRole) -> AsyncIterator[Scene]:
    world = World(decide=everybody, step_up={})
    broker = await world.ready()
    tokens = minting(world, broker)
    mine = await world.opened(broker, SEARCH, jkt="k" * 43)
    theirs = await world.opened(broker, purpose=MARK, label=MARK)
    ended = await world.opened(broker, SEARCH, purpose=MARK, label=MARK)
    await broker.revoke(Operator(Subject("unix://host#1000", "local-uid")), ended.id)
    issued = await broker.issue(holder(broker, theirs), theirs.id, details(TABLE)[0])
    wider = GrantRequest(details({**SEARCH, "uses": 9}), Bounds(timedelta(seconds=60)), label=MARK)
    asked = (await broker.ask(holder(broker, theirs), theirs.id, wider)).approval
    own = (await broker.ask(holder(broker, mine), mine.id, replace(wider, label=""))).approval
    text = (await tokens.mint(mine.id, TokenSpec())).token or ""
    async with raw(world, broker, role=role, tokens=tokens, more=(Platform(),)) as worker:
        await worker.send(Call(0, "present", [text, None]))
        assert isinstance((await worker.hear(1))[0], Answer)
        yield Scene(world, broker, tokens, worker, mine, theirs, ended, issued.lease.id, asked, own)


async def said(here: Scene, number: int, asked: Method, arguments: Mapping[str, object]) -> Answer | Refusal | None:
    """Make a call; return its answer, or None where it is one that cannot even be written."""
    try:
        data = frame(asked.call(number, arguments))
    except (RemitError, msgspec.MsgspecError, UnicodeError, AttributeError):
        return None
    await here.worker.send(data)
    async with asyncio.timeout(10):
        (answer,) = await here.worker.hear(1)
    assert isinstance(answer, Answer | Refusal)
    assert answer.number == number
    return answer


CALLS = [(role, name) for role in (roles.EDGE, roles.WEB) for name in sorted(role.methods)]


@pytest.mark.parametrize(("role", "name"), CALLS, ids=lambda value: value if isinstance(value, str) else value.name)
def test_what_is_not_the_worker_s_it_neither_learns_nor_changes(
    role: WorkerRole, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        async with scene(role) as here:
            theirs = here.broker._tasks.task_of(here.theirs.id)
            tasks = {task.id for task in here.broker._tasks}
            for number, arguments in enumerate(here.calls(method(name)), 1):
                told = await said(here, number, method(name), arguments)
                assert MARK not in repr(told), arguments
            assert here.broker._tasks.task_of(here.theirs.id) is theirs
            assert {task.id for task in here.broker._tasks} == tasks  # there is nobody for whom to open one
            assert here.worker.gone == []
            assert [each for each in caplog.records if each.exc_info] == [], caplog.text

    run(body())


def test_values_of_another_form_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    forms: list[Any] = [None, 0, -1, 1.5, "x", b"x", [], {}, ["Operator", [["a", "b"]]], ["Holder", ["t", "g"]], [[]]]

    async def body() -> None:
        async with scene(roles.WEB) as here:
            for number, name in enumerate(sorted(roles.WEB.methods)):
                for form in forms:
                    await here.worker.send(Call(number, name, [form] * len(method(name).parameters)))
                    (answer,) = await here.worker.hear(1)
                    assert MARK not in repr(answer)
                await here.worker.send(Call(number, name, [None] * 40))
                (answer,) = await here.worker.hear(1)
                assert isinstance(answer, Refusal)
                assert answer.failure.kind == "IntegrityError"
            assert here.worker.gone == []
            assert [each for each in caplog.records if each.exc_info] == [], caplog.text

    run(body())
