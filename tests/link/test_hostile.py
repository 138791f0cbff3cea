"""A worker that keeps to nothing: its link ends, or it is refused, and nobody else is harmed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remit.compose.bound_grants import BoundGrants
from remit.core import scope
from remit.core.grant import Posture
from remit.core.principal import Principal
from remit.core.request import Bounds, GrantRequest
from remit.core.scope import Access, Detail
from remit.core.secret import Secret
from remit.errors import LimitError, NotFoundError, RevokedError, UnavailableError
from remit.link import authority, roles
from remit.link.authority import AuthorityEnd
from remit.link.ends import EndsReader
from remit.link.frames import FrameReader, LinkSockets, pair
from remit.link.messages import (
    MAX_ANSWER,
    MAX_CALL,
    MAX_CALLS,
    MAX_USES,
    MAX_USES_OF_TASK,
    Acted,
    Answer,
    Batch,
    Call,
    EndedUse,
    FromAuthority,
    Noticed,
    Permits,
    Permitted,
    Refusal,
    from_authority,
)
from remit.link.roles import WorkerRole
from remit.link.values import Failure, codec
from remit.link.worker import connect
from remit.ports.broker import Notice, UseRequest
from tests.broker.world import OPERATOR, SEARCH, World, child, holder, run
from tests.link.two_ends import Heard, linked, served
from tests.support.link import sent

OFTEN = {**SEARCH, "uses": 10_000}


@dataclass
class Raw:
    """A worker by its bytes."""

    sockets: LinkSockets
    end: AuthorityEnd
    gone: list[str]
    stuck: list[AuthorityEnd]
    frames: FrameReader

    async def send(self, *messages: object) -> None:
        for message in messages:
            await self.send_bytes(message if isinstance(message, bytes) else sent(message))

    async def send_bytes(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sockets.calls, data)

    async def hear(self, count: int) -> list[FromAuthority]:
        """Return the next messages, or what came before the end of the link."""
        found = list[FromAuthority]()
        while len(found) < count:
            data = await asyncio.get_running_loop().sock_recv(self.sockets.calls, 65_536)
            if not data:
                break
            found += map(from_authority, self.frames.feed(data))
        return found

    async def ended(self) -> bool:
        """Whether the authority ends the link."""
        try:
            while await asyncio.get_running_loop().sock_recv(self.sockets.calls, 65_536):
                pass
        except ConnectionError:
            pass
        return self.gone == ["authority"]


@asynccontextmanager
async def raw(
    world: World,
    broker: object,
    *grants: str,
    role: WorkerRole = roles.EDGE,
    tokens: BoundGrants | None = None,
    more: Sequence[object] = (),
    dies: bool = True,
) -> AsyncIterator[Raw]:
    """Speak bytes to the broker, as an edge that may name these grants, or as another role."""
    ours, theirs = pair()
    end, gone, stuck = await served(world, broker, theirs, role, tokens, *more, dies=dies)
    for sock in ours:
        sock.setblocking(False)
    worker = Raw(ours, end, gone, stuck, FrameReader(MAX_ANSWER))
    try:
        for grant in grants:
            await worker.send(Call(0, "redeem_run", [{"": grant.encode()}]))
            assert isinstance((await worker.hear(1))[0], Answer)
        yield worker
    finally:
        end.gone()
        for sock in ours:
            sock.close()


def _uses(grant: str, count: int, start: int = 0) -> list[UseRequest]:
    return [UseRequest(grant, "search", "GET", f"req_a.{i}", 0) for i in range(start, start + count)]


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x00\x00\x01\xc1",
        (MAX_CALL + 1).to_bytes(4, "big"),
        sent(Acted(1)),
        sent(Answer(1, None)),
        sent(Batch([UseRequest("g", "search", "GET", "req_a,b", 0)], [])),
        sent(Batch([UseRequest("g", "search", "GET", "req_a\n", 0)], [])),
        sent(Batch(_uses("g", MAX_USES + 1), [])),
        sent(Batch([], [])) * 2,
        b"".join(sent(Call(i, "lease", ["lse_1"])) for i in range(MAX_CALLS + 1)),
        b"\x00\x00\x27\x10" + b"\x91" * 10_000,
    ],
)
def test_what_is_not_of_the_protocol_or_beyond_the_credit_ends_the_link(world: World, data: bytes) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker, OFTEN)
        hold = asyncio.Event()

        async def held(*_: object, **__: object) -> list[object]:
            await hold.wait()
            return []

        broker.lease = broker.uses = held  # type: ignore[assignment,method-assign]  # nothing is answered
        async with linked(world, broker) as other, raw(world, broker, root.id) as worker:
            await worker.send(data)
            assert await worker.ended()
            hold.set()
            await other.redeem(root.id)  # whoever keeps to the protocol goes on
            assert other.gone == []

    run(body())


def test_a_task_that_exceeds_its_credit_is_refused_and_no_other(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root, other = await world.opened(broker, OFTEN), await world.opened(broker, OFTEN)
        async with raw(world, broker, root.id, other.id) as worker:
            flood = _uses(root.id, MAX_USES_OF_TASK + 10)
            await worker.send(Batch([*flood, *_uses(other.id, 5, 1_000)], []))
            (answer,) = await worker.hear(1)
            assert isinstance(answer, Permits)
            kinds = [each.kind if isinstance(each, Failure) else "" for each in answer.uses]
            assert kinds == [""] * MAX_USES_OF_TASK + [LimitError.__name__] * 10 + [""] * 5

    run(body())


def test_a_request_s_id_is_used_once_and_an_outcome_is_of_a_use_that_was_permitted_here(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker, OFTEN)
        async with raw(world, broker, root.id) as worker:
            (use,) = _uses(root.id, 1)
            await worker.send(Batch([use, use], []))
            (first,) = await worker.hear(1)
            assert isinstance(first, Permits)
            assert isinstance(first.uses[0], Permitted)
            assert isinstance(first.uses[1], Failure)
            forged = EndedUse("req_never", "done", None, "200")
            await worker.send(Batch([], [EndedUse(use.request, "done", None, "200"), forged, forged]))
            await worker.hear(1)
            beyond = [
                UseRequest(root.id, "search", "GET", "req_b", 7),
                UseRequest(root.id, "search", "GET", "req_c", -1),
                UseRequest(root.id, "warehouse", "GET", "req_d", 0),
            ]
            await worker.send(Batch(beyond, []))
            (last,) = await worker.hear(1)
            assert isinstance(last, Permits)
            assert [each.kind for each in last.uses if isinstance(each, Failure)] == ["ScopeError"] * 3
        outcomes = [event.request for event in await world.events() if event.event == "resource.outcome"]
        assert outcomes == [use.request]

    run(body())


def test_a_key_that_was_put_anew_is_told_for_the_next_use_and_not_before(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker, OFTEN)
        async with raw(world, broker, root.id) as worker:
            said = []
            for number in range(2):
                await worker.send(Batch(_uses(root.id, 1, number), []))
                (answer,) = await worker.hear(1)
                assert isinstance(answer, Permits)
                (permitted,) = answer.uses
                assert isinstance(permitted, Permitted)
                await broker.put_secret(OPERATOR, "search", Secret(f"api-key-{number}-23456789ab"))
                for version in (permitted.version, permitted.version + 1, 2**63 - 1, -1):
                    await worker.send(Call(1, "credential", ["search", version]))
                    (answer,) = await worker.hear(1)
                    assert isinstance(answer, Refusal)
                    said.append(answer.failure.kind)
            # what was changed meanwhile is said to be that, as it always was
            assert said == ["ConflictError", "NotFoundError", "NotFoundError", "ConflictError"] * 2

    run(body())


def test_one_task_with_more_grants_than_an_edge_may_name_takes_no_name_from_another(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authority, "NAMED", 8)

    async def body() -> None:
        broker = await world.ready()
        victim = await world.opened(broker, OFTEN)
        flood = await world.opened(broker, OFTEN, depth=2, fan_out=20)
        made = [
            (await broker.delegate(holder(broker, flood), flood.id, child({**OFTEN, "uses": 10}))).id for _ in range(20)
        ]
        over = await world.opened(broker, OFTEN)
        async with linked(world, broker) as two:
            for grant in (victim.id, *made, over.id):
                await two.redeem(grant)
            for grant in (victim.id, made[-1], over.id):
                assert (await two.broker.grant(grant)).grant.id == grant
            await broker.revoke(OPERATOR, over.id)
            await two.redeem(made[0])
            with pytest.raises(NotFoundError):  # what has ended made room
                await two.broker.grant(over.id)
            for grant in (victim.id, *made[-6:]):
                assert (await two.broker.grant(grant)).grant.id == grant

    run(body())


def test_calls_that_no_role_has_are_answered_with_a_refusal(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root, other = await world.opened(broker, OFTEN), await world.opened(broker, OFTEN)
        async with raw(world, broker, root.id) as worker:
            here, there = holder(broker, root), holder(broker, other)
            who = OPERATOR, there, here, replace(here, task=there.task)
            operator, foreign, own, lying = map(codec(Principal).write, who)
            request, posture = codec(GrantRequest).write(child(OFTEN)), codec(Posture).write(Posture("microvm"))
            forged = [
                Call(1, "uses", []),
                Call(2, "__init__", []),
                Call(3, "check_resource", ["search"]),
                Call(4, "tasks", [operator]),
                Call(5, "tasks", [foreign]),
                Call(6, "grant", [other.id]),
                Call(7, "grant", [{"": 1}]),
                Call(8, "entries", [0, 9]),
                Call(9, "stop", []),
                Call(10, "use", [root.id, ["search", "GET", "/v1/x"], "req_1", 0]),  # of which nobody would be told
                Call(11, "outcomes", [[]]),
                Call(12, "kept", ["device", "d"]),
                Call(13, "delegate", [own, root.id, request, None, None, posture]),
                Call(14, "tasks", [lying]),
            ]
            await worker.send(*forged)
            answers = await worker.hear(len(forged))
            said = [each.failure.kind for each in answers if isinstance(each, Refusal)]
            hidden, denied, broken = "NotFoundError", "DeniedError", "IntegrityError"
            assert said[:9] == [broken, broken, denied, denied, hidden, hidden, broken, denied, broken]
            assert said[9:] == [denied, denied, denied, denied, hidden]
            await worker.send(Call(15, "grant", [root.id]))
            assert isinstance((await worker.hear(1))[0], Answer)

    run(body())


def test_a_worker_asks_for_no_more_items_than_who_comes_to_it(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker, OFTEN, depth=2, fan_out=2)
        asked, detail = codec(GrantRequest).write, codec(Detail).write
        wide = scope.read([{**SEARCH, "paths": [f"/v1/{number}-{n}" for n in range(256)]} for number in range(5)])
        many = scope.read([{**SEARCH, "paths": [f"/v1/{n}" + "/a" * 30 for n in range(256)]}])[0]
        async with raw(world, broker, root.id) as worker:
            who = codec(Principal).write(holder(broker, root))
            await worker.send(Call(1, "delegate", [who, root.id, asked(GrantRequest(wide)), None, None, None]))
            await worker.send(Call(2, "issue", [who, root.id, detail(many), None]))
            answers = await worker.hear(2)
            said = {each.number: each.failure.detail for each in answers if isinstance(each, Refusal)}
            assert said.keys() == {1, 2}
            assert all("more than 1,024 items" in each for each in said.values())
            fits = GrantRequest(wide[:3], Bounds(depth=1, fan_out=1))
            await worker.send(Call(3, "delegate", [who, root.id, asked(fits), None, None, None]))
            assert isinstance((await worker.hear(1))[0], Answer)

    run(body())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=4), st.booleans())
def test_neither_end_is_harmed_by_whatever_bytes_it_gets(pieces: list[bytes], framed: bool) -> None:  # noqa: FBT001
    data = b"".join(len(piece).to_bytes(4, "big") + piece if framed else piece for piece in pieces)

    async def body() -> None:
        world = World()
        broker = await world.ready()
        async with raw(world, broker) as worker:
            await worker.send(data)
            worker.sockets.calls.shutdown(socket.SHUT_WR)
            assert await worker.ended()
        ours, theirs = pair()
        gone = list[str]()
        link = await connect(ours, Heard(), lambda: gone.append("worker"))
        theirs.calls.sendall(data)
        theirs.ends.sendall(data)
        for sock in theirs:
            sock.close()
        with pytest.raises(UnavailableError):
            await link.authority.token_keys()
        link.close()
        assert gone == ["worker"]

    run(body())


def test_a_worker_that_does_not_act_on_an_end_is_stuck_and_closed_waits_until_it_is_gone(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root, other = await world.opened(broker, OFTEN), await world.opened(broker, OFTEN)
        async with raw(world, broker, root.id, other.id, dies=False) as worker:
            await worker.send(Batch([*_uses(root.id, 1), *_uses(other.id, 1, 1)], []))
            await worker.hear(1)
            revoking = asyncio.create_task(broker.revoke(OPERATOR, root.id))
            while not worker.stuck:  # noqa: ASYNC110 - the broker says so
                await asyncio.sleep(0.01)
            worker.sockets.calls.close()  # it closes its link, and may go on all the same
            while not worker.gone:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
            assert not revoking.done()
            worker.end.gone()  # as whoever kills it says, once it has ended
            assert (await revoking).state == "closed"
        async with raw(world, broker, other.id) as worker:
            await worker.send(Batch(_uses(other.id, 1, 2), []))
            await worker.hear(1)
            assert (await broker.revoke(OPERATOR, other.id)).state == "unknown"
            assert worker.stuck == [worker.end]
            await worker.send(Batch(_uses(other.id, 1, 3), []))
            (answer,) = await worker.hear(1)
            assert isinstance(answer, Permits)
            assert isinstance(answer.uses[0], Failure)
            assert answer.uses[0].kind == RevokedError.__name__

    run(body())


def test_no_end_waits_for_a_worker_that_holds_nothing_of_it(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker, OFTEN)
        async with raw(world, broker, root.id) as worker:
            assert (await broker.revoke(OPERATOR, root.id)).state == "closed"
            assert worker.stuck == []

    run(body())


class Late:
    """A loop that never comes to what it is to do."""

    def call_soon_threadsafe(self, *_: object) -> None:
        pass


def test_a_loop_that_is_busy_does_not_delay_the_cut() -> None:
    ours, theirs = socket.socketpair()
    heard, told = Heard(), Notice(frozenset({"grt_1"}))
    reader = EndsReader(ours, cast("asyncio.AbstractEventLoop", Late()), heard, lambda: None)
    reader.start()
    with theirs:
        theirs.sendall(sent(Noticed(1, told)))
        assert theirs.recv(100) == sent(Acted(1))
        assert (heard.marked, heard.severed, heard.notices) == ([told.grants], [told.grants], [])
    reader.join()


def test_what_goes_wrong_when_an_end_is_acted_on_is_cut_all_the_same(world: World) -> None:
    class Wrong(Heard):
        def noticed(self, notice: Notice) -> None:
            raise ZeroDivisionError(notice)

    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker, OFTEN)
        ours, theirs = pair()
        end, _, stuck = await served(world, broker, theirs)
        heard = Wrong()
        link = await connect(ours, heard, lambda: None)
        await link.authority.redeem_run(Secret(root.id))
        await link.authority.use(root.id, Access("search", "GET", "/v1/x"), "req_1", 0)
        assert (await broker.revoke(OPERATOR, root.id)).state == "closed"
        assert heard.severed == [frozenset({root.id})]
        assert stuck == []
        link.close()
        end.close()

    run(body())
