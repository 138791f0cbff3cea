"""Nothing crosses a link but bytes, and it comes out as it went in."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import msgspec
import pytest

from remit.broker.pending import PendingMemory
from remit.core.approval import Approval
from remit.core.principal import Holder, Principal
from remit.core.scope import Access, Detail, parse_detail
from remit.core.secret import Secret
from remit.errors import IntegrityError, NotFoundError, PolicyError, RemitError, ReplayError, ScopeError
from remit.jose.proof import Proof
from remit.link.loopback import answered, loopback
from remit.link.messages import PROTOCOLS, Call, Refusal, from_authority, method
from remit.link.values import codec, encode, failure, raised, read
from remit.ports.broker import BrokerPort, Notice, Opener, Outcome
from remit.ports.pending import Pending, PendingKind, PendingStore, Poll
from tests.broker.world import OPERATOR, SEARCH, TABLE, World, details, run
from tests.support.following import following

SEARCHED = Access("search", "GET", "/v1/search")


def test_every_method_of_the_protocols_takes_and_returns_what_can_be_encoded() -> None:
    names = [name for port in PROTOCOLS for name, _ in inspect.getmembers(port, inspect.isfunction) if name[0] != "_"]
    assert len(names) == len(set(names))
    for name in set(names) - {"notices"}:
        asked = method(name)
        for kind in (*asked.parameters.values(), asked.returns):
            assert "Callable" not in str(kind), name


def test_a_broker_behind_a_link_answers_as_the_broker_does(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        there = loopback(broker)
        root = await world.opened(broker, SEARCH, TABLE)
        assert await there.grant(root.id) == await broker.grant(root.id)
        assert await there.find(root.id, OPERATOR) == await broker.find(root.id, OPERATOR)
        task = (await broker.grant(root.id)).task
        assert await there.tasks(OPERATOR) == await broker.tasks(OPERATOR)
        assert await there.task(OPERATOR, task) == await broker.task(OPERATOR, task)
        assert await there.resources() == await broker.resources()
        assert await there.question(root.id) == await broker.question(root.id)
        assert await there.audit_state() == await broker.audit_state()
        assert await there.entries(0, 9) == await broker.entries(0, 9)
        issued = await there.issue(OPERATOR, root.id, parse_detail(TABLE))
        assert await there.lease(issued.lease.id) == await broker.lease(issued.lease.id)
        assert isinstance(next(iter(issued.lease.plan.detail.fields)), tuple)
        use = await there.use(root.id, SEARCHED, "req_1", 0)
        await there.outcomes([Outcome(use, "done", None, "200")])
        secret = await there.credential("search", use.version)
        assert secret == Secret("api-key-0123456789ab")
        renewed = await there.renew(OPERATOR, issued.lease.id, timedelta(minutes=5))
        assert renewed == await broker.lease(issued.lease.id)
        report = await there.revoke(OPERATOR, root.id)
        assert (report.state, report.revoked) == ("closed", 1)

    run(body())


def test_what_edges_keep_is_kept_behind_a_link_as_well(world: World) -> None:
    async def body() -> None:
        memory: Pending = PendingMemory(lambda: world.now)
        there = loopback(memory)
        polls, minute = PendingStore(there, PendingKind.POLL, Poll), timedelta(minutes=1)
        poll = Poll("apr_1", "client", world.now)
        name = await polls.keep(poll, minute, room="task", most=3)
        later = Poll("apr_1", "client", world.now + minute)
        assert await polls.swap(name, poll, later)
        assert await polls.find(name) == later
        assert await PendingStore(memory, PendingKind.POLL, Poll).take(name) == later
        assert await polls.take(name) is None
        proof = Proof("key", "jti", int(world.now.timestamp()))
        await there.burn(proof, stranger=True)
        with pytest.raises(ReplayError):
            await there.burn(proof)

    run(body())


def test_an_error_comes_out_with_all_that_it_says(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker, SEARCH)
        wide = parse_detail({**TABLE, "ttl": 60})
        calls: list[Callable[[BrokerPort], Awaitable[object]]] = [
            lambda it: it.find("grt_none"),
            lambda it: it.issue(OPERATOR, root.id, wide),
            lambda it: it.revoke(Holder("task_9", "grt_9"), root.id),
        ]
        for call in calls:
            caught = []
            ends: tuple[BrokerPort, ...] = (broker, loopback(broker))
            for it in ends:
                with pytest.raises(RemitError) as failed:
                    await call(it)
                caught.append(failed.value)
            here, there = caught
            assert type(here) is type(there)
            assert (here.detail, here.help, here.offending, here.enough) == (
                there.detail,
                there.help,
                there.offending,
                there.enough,
            )

    run(body())


def test_a_refusal_by_policy_keeps_for_the_audit_what_the_caller_is_not_told() -> None:
    inside = PolicyError("wider than the bound")
    inside.version = "local-1"
    error = PolicyError("there is no `x` here", help="ask")
    error.version, error.inside = "local-1", inside
    back = raised(failure(error))
    assert isinstance(back, PolicyError)
    assert (back.detail, back.help, back.version) == ("there is no `x` here", "ask", "local-1")
    assert back.inside is not None
    assert (back.inside.detail, back.inside.version) == ("wider than the bound", "local-1")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x91" * 100_000,
        encode(Call(1, "stop", [])),
        encode(Call(1, "grant", [7])),
        encode(Call(1, "grant", [])),
        encode(Call(1, "grant", ["grt_1", "grt_2"])),
        encode(Call(1, "__init__", [])),
        encode(Call(1, "take", ["other", "x"])),
        encode(Call(1, "open", [["House", []], [], None])),
        encode(Call(1, "issue", [None, "g", {"type": "none"}, None])),
    ],
)
def test_what_is_no_call_of_the_protocol_is_refused(world: World, data: bytes) -> None:
    async def body() -> None:
        broker = await world.ready()
        try:
            answer = from_authority(await answered(broker, data))
        except IntegrityError:
            return
        assert isinstance(answer, Refusal)

    run(body())


def test_a_value_of_a_union_comes_back_as_what_it_was() -> None:
    for value in (OPERATOR, Holder("task_1", "grt_1")):
        assert read(Principal, msgspec.msgpack.decode(encode(codec(Principal).write(value)))) == value
    assert read(Detail, codec(Detail).write(details(SEARCH)[0])) == details(SEARCH)[0]
    with pytest.raises(IntegrityError):
        read(Opener, ["Subject", ["x", "y"]])
    assert Approval.__name__ in {kind.__name__ for kind in Opener.__args__}


def test_an_end_has_reached_an_edge_behind_the_link_when_its_report_does(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        there, told = loopback(broker), list[Notice]()
        root = await world.opened(broker, SEARCH)
        with following(there.notices(), told.append):
            await asyncio.sleep(0)
            await there.revoke(OPERATOR, root.id)
            assert [notice.grants for notice in told] == [frozenset({root.id})]

    run(body())


def test_an_edge_that_does_not_listen_holds_no_end_up_for_long(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker, SEARCH)
        silent: AsyncIterator[Notice] = broker.notices()
        assert (await broker.revoke(OPERATOR, root.id)).state == "closed"
        assert (await anext(silent)).grants == frozenset({root.id})

    run(body())


def test_errors_that_are_not_found_are_said_so(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        there = loopback(broker)
        with pytest.raises(NotFoundError):
            await there.lease("lse_none")
        root = await world.opened(broker, SEARCH, exercise=False)
        with pytest.raises(ScopeError):
            await there.use(root.id, SEARCHED, "req_1", 0)

    run(body())
