"""A broker on a loop that is measured, and a worker of a role that sends it the dearest calls there are."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import socket
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from threading import Thread

import msgspec

from remit.broker import Broker
from remit.compose.joined import _Reports
from remit.core import approval as approvals
from remit.core import paths
from remit.core import scope as scopes
from remit.core.approval import Approval
from remit.core.policy import Decision, Question, in_bounds
from remit.core.principal import Holder, Human, Workload
from remit.core.request import Bounds, GrantRequest
from remit.core.scope import Detail, Scope
from remit.core.secret import Secret
from remit.core.task import Grant, Subject
from remit.errors import IntegrityError, InvalidRequestError
from remit.link import roles
from remit.link.answering import Answering, _ShownCredential
from remit.link.authority import AuthorityEnd, serve
from remit.link.frames import FrameReader, LinkSockets, frame, pair
from remit.link.messages import (
    MAX_ANSWER,
    MAX_CALL,
    MAX_ITEMS,
    Acted,
    Answer,
    Call,
    Method,
    Noticed,
    Refusal,
    from_authority,
    from_worker,
    method,
)
from remit.link.roles import WorkerRole
from remit.link.values import codec, encode
from remit.ports import Resource
from remit.ports.runs import DelegatedToRun, LaunchRequest
from remit.run.registry import EdgeRuns, RunRegistry
from remit.stores.sqlite import SqliteStore
from tests.broker.world import OPERATOR, ClearSealer, World
from tests.identity.issuing import START, URL
from tests.link.two_ends import minting
from tests.support.link import sent
from tests.support.measured import MeasuredLoop
from tests.support.worst import Grower, Pair

SCOPED = frozenset({GrantRequest, Detail, Scope, LaunchRequest})  # what is made anew of each pair of scopes
SIZE, ITEMS = MAX_CALL - 2_048, MAX_ITEMS - 128


def allowing(question: Question) -> Decision:
    """Allow whoever it is what every resource is bounded to."""
    return in_bounds(question)


class Confirming:
    """Says of every human whom a worker names that it is they, as an issuer's signature would."""

    async def confirm(self, human: Human) -> Human:
        return human


class Reached:
    """Answers as the authority does; ``names`` are the calls that were let in, whatever became of them."""

    def __init__(self, answering: Answering) -> None:
        self._answering, self.names = answering, set[str]()
        answering._workloads.told(_ShownCredential(workload(), held=True, once=None))

    async def answer(self, name: str, arguments: typing.Any) -> object:
        self.names.add(name)
        return await self._answering.answer(name, arguments)


@dataclass
class Scene:
    """A broker, a worker, and what it may name."""

    loop: MeasuredLoop
    role: WorkerRole
    world: World
    broker: Broker
    end: AuthorityEnd
    calls: socket.socket
    reached: Reached
    runs: EdgeRuns | None
    pair: Pair | None = None
    root: Grant | None = None
    approval: Approval | None = None
    dearest: tuple[float, str] = (0.0, "")
    frames: FrameReader = field(default_factory=lambda: FrameReader(MAX_ANSWER))
    numbers: typing.Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def task(self) -> str:
        assert self.root is not None
        return self.broker._tasks.task_of(self.root.id).id

    def bound(self, pair: Pair) -> None:
        """Bound the resources of a pair by its parent, and let it be asked for from now on."""
        self.pair = pair
        self.loop.do(self._bound(pair.parent))

    async def _bound(self, scope: Scope) -> None:
        for kind in {detail.type for detail in scope} & self.broker.kinds.keys():  # other tests have types of their own
            bound = tuple(detail for detail in scope if detail.type == kind)
            secret = Secret("api-key-0123456789ab") if kind == "http" else None
            there = {
                "http": "https://api.test",
                "postgres": "postgresql://a@127.0.0.1/b",
                "spiffe": "spiffe://remit.test",
                "egress": "egress:*.a.example",
                "elsewhere": "elsewhere:https://elsewhere.test",
                "mcp": "mcp+https://mcp.test/mcp",
            }
            resource = Resource(bound[0].resource, kind, there.get(kind, f"{kind}://name"), bound, None, {})
            await self.broker.put_resource(OPERATOR, resource, secret)

    def fresh(self) -> None:
        """Open another task, of which nothing has ended, and have something asked of its human."""
        self.loop.do(self._fresh())

    @property
    def ended(self) -> bool:
        """Whether the task is over."""
        assert self.root is not None
        return self.broker._tasks.task_of(self.root.id).head.closed

    async def _fresh(self) -> None:
        assert self.pair is not None
        bounds = Bounds(timedelta(hours=1), depth=8, fan_out=1_000)
        self.root = (await self.broker.open(OPERATOR, GrantRequest(self.pair.parent, bounds, purpose="p"))).grant
        self.end._named.add(self.root.id, self.task)  # as if it had been shown its token
        names = (detail.resource for detail in self.pair.parent)
        self.end._resources.update(dict.fromkeys(names, 1 << 32))  # and a use of each resource permitted
        request = GrantRequest(self.pair.child[:1], Bounds(timedelta(minutes=1)), label="asked")
        deeper = replace(request, bounds=Bounds(timedelta(minutes=1), depth=9))
        with suppress(InvalidRequestError):  # too much for a human to decide on
            asked = await self.broker.ask(Holder(self.task, self.root.id), self.root.id, deeper)
            self.approval = asked.approval

    def given(self, name: str, kind: object) -> Sequence[object]:
        """Return what is accepted, where not any value is."""
        assert self.root is not None
        assert self.pair is not None
        holder, write = Holder(self.task, self.root.id), codec(typing.cast("typing.Any", kind)).write
        by_name: dict[str, Sequence[object]] = {
            **{name: [self.root.id] for name in ("grant_id", "parent_id", "own")},
            "task_id": [self.task],
            "name": [self.pair.child[0].resource],
            "resource": [self.pair.child[0].resource],
            "approval_id": [self.approval.id if self.approval else ""],
            "version": [self.broker.feeds.ends],
        }
        if kind is str and name in by_name:
            return by_name[name]
        if kind is float:
            return [0.0]  # seconds to wait
        return [_bare(write(each)) for each in self._values(kind, holder)]

    def _values(self, kind: object, holder: Holder) -> Sequence[object]:
        pair = self.pair
        assert pair is not None
        members = typing.get_args(kind)
        if Holder in members:
            return [holder]
        if Workload in members and Approval in members:  # who opens a task
            return [workload()]
        made: Mapping[object, Callable[[], Sequence[object]]] = {
            Holder: lambda: [holder],
            Human: lambda: [self.human()],
            Workload: lambda: [workload()],
            GrantRequest: lambda: list(requests(pair)),
            Scope: lambda: [pair.child],
            Detail: lambda: pair.child[:1],
            Secret: lambda: [Secret(holder.grant)],  # a ticket
            LaunchRequest: lambda: [
                LaunchRequest(DelegatedToRun(each, holder.grant), "namespace", "/run/a") for each in requests(pair)
            ],
        }
        return made[kind]() if kind in made else []

    def human(self) -> Human:
        now = self.world.now
        return Human(
            Subject(f"{URL}#alice", "urn:mfa", now), secrets.token_hex(), now, now + timedelta(minutes=5), "web"
        )

    def cost(self, call: bytes, number: int) -> float:
        """Return what a call costs the loop at one go (seconds), until it is answered."""
        if self.ended:
            self.fresh()
        for forget in (scopes.COMPARED.clear, paths.places.cache_clear, approvals.read.cache_clear):
            forget()
        self.loop.forget()
        self.calls.sendall(frame(call))
        while data := self.calls.recv(1 << 20):
            messages = map(from_authority, self.frames.feed(data))
            if any(isinstance(each, Answer | Refusal) and each.number == number for each in messages):
                return self.loop.cost()
        raise IntegrityError("the link was cut")

    def shapes(self, asked: Method, *, whole: bool) -> Iterator[tuple[str, list[object]]]:
        """Yield the arguments of a call, small ones first; not ``whole``: only what varies with the pair is grown."""
        grower, kinds = Grower(self.given, SIZE, ITEMS), asked.parameters
        base = {name: grower.base(name, kind) for name, kind in kinds.items()}
        yield "small", list(base.values())
        for name, kind in kinds.items():
            named = Holder in typing.get_args(kind)  # read alike in every call: grown in one of them
            if whole and (not named or asked.name == "tasks"):
                found = grower.large(name, kind)
            else:
                found = iter([(f"{name} {n}", value) for n, value in enumerate(self.given(name, kind))])
            yield from ((f"{name}: {shape}", [*{**base, name: value}.values()]) for shape, value in found)

    def calls_of(self, name: str, *, whole: bool) -> Iterator[tuple[str, bytes, int]]:
        """Yield the calls of a method that are read at all, each with its shape and number."""
        for shape, values in self.shapes(method(name), whole=whole):
            number = next(self.numbers)
            data = encode(Call(number, name, values))
            with suppress(IntegrityError):
                if len(data) <= MAX_CALL:
                    from_worker(data)
                    yield shape, data, number


def _bare(value: object) -> object:
    """Return what msgspec would write of a value."""
    return msgspec.to_builtins(value, builtin_types=(datetime, timedelta, bytes))


def requests(pair: Pair) -> Iterator[GrantRequest]:
    """Yield what can be asked for beside a scope."""
    plain = GrantRequest(pair.child, Bounds(timedelta(minutes=5), depth=1, fan_out=1))
    yield plain
    yield replace(plain, purpose="p")  # for a task of its own
    yield replace(plain, bounds=Bounds(timedelta(minutes=1), depth=9))  # more than it has: for a human to decide on
    yield replace(plain, scope=pair.parent)
    yield replace(plain, scope=pair.child[:1])


def workload() -> Workload:
    return Workload("spiffe://prod.test/planner", "jwt-svid", START + timedelta(days=1))


def _act(ends: socket.socket) -> None:
    """Act on whatever is told, until the link ends."""
    frames = FrameReader(MAX_ANSWER)
    with suppress(OSError):
        while data := ends.recv(1 << 20):
            for each in frames.feed(data):
                told = from_authority(each)
                assert isinstance(told, Noticed)
                ends.sendall(sent(Acted(told.number)))


@contextmanager
def scene(directory: Path, loop: MeasuredLoop, role: WorkerRole) -> Iterator[Scene]:
    """Serve a worker of a role."""

    async def begin(theirs: LinkSockets) -> tuple[World, Broker, AuthorityEnd, EdgeRuns | None]:
        world = World(store=SqliteStore(directory, ClearSealer()), decide=allowing, now=START)
        broker = world.broker()
        await broker.start()
        ids = itertools.count()
        new_id = lambda prefix: f"{prefix}_{next(ids)}"  # noqa: E731
        registry = RunRegistry(
            broker, broker.runs, OPERATOR, broker.kinds, lambda: world.now, secrets.token_bytes, new_id
        )
        runs = registry.edge("/run/1.sock") if role is roles.EDGE else None
        reports = _Reports(role.name, served_ := asyncio.get_running_loop().create_future())
        served_.set_result(None)
        more = [reports, Confirming(), *([runs] if runs else [])]
        tokens = minting(world, broker)
        ports = (broker, tokens._pending, tokens, *more)
        end = await serve(theirs, role, broker, ports, lambda: world.now, stuck=lambda _: None, ended=AuthorityEnd.gone)
        return world, broker, end, runs

    ours, theirs = pair()
    world, broker, end, runs = loop.do(begin(theirs))
    ours.calls.settimeout(120)
    acting = Thread(target=_act, args=(ours.ends,))
    acting.start()
    reached = Reached(end._answering)
    end._answering = typing.cast("Answering", reached)
    made = Scene(loop, role, world, broker, end, ours.calls, reached, runs)
    try:
        yield made
    finally:
        loop.do(_over(made))
        acting.join()
        for sock in ours:
            sock.close()


async def _over(made: Scene) -> None:
    made.end.gone()
    await made.broker.stop()
