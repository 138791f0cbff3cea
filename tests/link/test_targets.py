"""The link to what reaches targets: the authority calls, and believes nothing but answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest

from remit.broker.engines import AT_ONCE, ResourceEngine
from remit.core.lease import Revocation
from remit.core.secret import Secret
from remit.core.task import Plan
from remit.errors import EngineError, EngineRefusedError, RemitError, UnavailableError
from remit.identity.documents import PublishedDocuments
from remit.identity.providers import ReachedProviders
from remit.identity.workloads.bundles import DocumentSource
from remit.kinds.engines import HeldEngines
from remit.link import targets as links
from remit.link.frames import LinkSockets, pair
from remit.link.messages import MAX_CALL, MAX_CALLS, Answer, Call, Permits, Refusal
from remit.link.targets import MAX_DOCUMENT, TargetsLink, TargetsWorker, answer
from remit.link.values import failure
from remit.ports import Engine, Finding, Issued, Resource
from remit.ports.reports import LogLine
from remit.ports.targets import EngineKey, EngineTraits, TargetsPort
from tests.broker.samples import DETAIL
from tests.broker.world import START, FullEngine, PlainEngine, Target, run, warehouse
from tests.support.kinds import NOTHING_LENT, simulated
from tests.support.link import sent

KEY, LIFE, PASSWORD = EngineKey("warehouse", 0), timedelta(minutes=5), Secret("admin-pw")


class Silent(PlainEngine):
    """An engine whose target answers nothing."""

    async def issue(self, plan: Plan, expires_at: datetime) -> Issued:
        await asyncio.get_running_loop().create_future()
        return await super().issue(plan, expires_at)


class Interrupted(PlainEngine):
    """One that notes when nobody waits for it any more."""

    async def revoke(self, plan: Plan, _receipt: Mapping[str, str] | None) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.target.accounts[f"{plan.name} given up"] = START
            raise


class Library(DocumentSource):
    """Has the largest bundle that there is."""

    async def document(self, domain: str) -> bytes:
        return domain.encode().ljust(1 << 20)


async def page(url: str) -> bytes:
    return url.encode().ljust(1 << 18)


class Everything(HeldEngines, PublishedDocuments, ReachedProviders, TargetsPort):
    """All that a worker has, on targets in memory."""

    def __init__(self, kind: type[PlainEngine], target: Target) -> None:
        def make(resource: Resource, _: Secret | None) -> Engine:
            return Silent(target) if resource.name == "hanging" else kind(target)

        HeldEngines.__init__(self, simulated(make), NOTHING_LENT)
        PublishedDocuments.__init__(self, {"prod.example": Library()}, page)


@dataclass
class Heard:
    """What a worker says of itself."""

    lines: list[LogLine] = field(default_factory=list)
    served: int = 0

    async def started(self) -> None:
        self.served += 1

    async def failed(self, error: RemitError) -> None:
        raise error

    async def logged(self, lines: Sequence[LogLine]) -> None:
        self.lines += lines


@dataclass
class Rig:
    """A link, and the workers that were at its other end."""

    kind: type[PlainEngine] = FullEngine
    target: Target = field(default_factory=Target)
    heard: Heard = field(default_factory=Heard)
    workers: list[TargetsWorker] = field(default_factory=list)
    died: int = 0

    def __post_init__(self) -> None:
        self.link = TargetsLink()

    @property
    def port(self) -> TargetsPort:
        return self.link.targets

    async def worker(self) -> None:
        """Start a worker in the place of the one before."""
        theirs = await self.hostile()
        self.workers.append(await answer(theirs, Everything(self.kind, self.target)))

    async def hostile(self) -> LinkSockets:
        """Return the worker's end of a new link."""
        ours, theirs = pair()
        for sock in theirs:
            sock.setblocking(False)
        await self.link.connect(ours, self.heard, self.over)
        return theirs

    async def die(self) -> None:
        self.workers[-1].close()
        while not self.died:  # noqa: ASYNC110 - nobody is told but by what the link says
            await asyncio.sleep(0)

    def over(self) -> None:
        self.died += 1

    def engine(self, name: str = "warehouse") -> ResourceEngine:
        key = EngineKey(name, 0)
        resource = replace(warehouse(), name=name)
        return ResourceEngine(self.port, key, resource, PASSWORD, lambda _: planned(), asyncio.wait_for)


@asynccontextmanager
async def rig(kind: type[PlainEngine] = FullEngine) -> AsyncIterator[Rig]:
    made = Rig(kind)
    await made.worker()
    try:
        yield made
    finally:
        made.link.close()
        await made.workers[-1].over.wait()
        made.workers[-1].close()


@asynccontextmanager
async def hostile() -> AsyncIterator[tuple[Rig, LinkSockets]]:
    made = Rig()
    theirs = await made.hostile()
    try:
        yield made, theirs
    finally:
        made.link.close()
        for sock in theirs:
            sock.close()


def planned(number: int = 0) -> Plan:
    return Plan(f"remit_lse_{number}", DETAIL, {}, START + LIFE)


def test_an_engine_at_the_other_end_does_what_it_would_do_here() -> None:
    async def body() -> None:
        async with rig() as it:
            traits = await it.port.configure(KEY, warehouse(), PASSWORD)
            assert traits == EngineTraits(Revocation.BY_NAME, True, True, True, True)
            issued = await it.port.issue_credential(KEY, planned(), START + LIFE)
            assert issued.credential["password"] == Secret("p4ss")
            await it.port.renew_credential(KEY, planned(), None, START)
            assert it.target.accounts == {"remit_lse_0": START}
            assert await it.port.revoke_credentials(KEY, [planned()]) == {"remit_lse_0"}
            assert await it.port.clean_credentials(KEY, [planned()]) == {"remit_lse_0"}
            it.target.fail, it.target.error = {"issue"}, EngineRefusedError("the database refused")
            with pytest.raises(EngineRefusedError, match="the database refused"):
                await it.port.issue_credential(KEY, planned(), START + LIFE)
            await it.port.close_engine(KEY)
            assert it.target.closed == 1

    run(body())


class Talkative(FullEngine):
    """One with more to say than is taken."""

    async def inspect(self) -> Sequence[Finding]:
        return [Finding("public-tables", "everybody may use tables", acceptable=True)] * 2_000


@pytest.mark.parametrize("long", ["findings", "error"])
def test_an_answer_that_is_too_long_is_an_error_of_its_call_alone(long: str) -> None:
    async def body() -> None:
        async with rig(Talkative) as it:
            await it.port.configure(KEY, warehouse(), None)
            it.target.fail, it.target.error = {"revoke"}, EngineError("x" * 5_000)
            with pytest.raises(EngineError, match="too large"):
                await (it.port.inspect_target(KEY) if long == "findings" else it.port.revoke_credentials(KEY, []))
            assert it.died == 0

    run(body())


def test_documents_come_whole_up_to_their_largest() -> None:
    async def body() -> None:
        async with rig() as it:
            assert len(await it.port.fetch("https://idp.example/jwks")) == 1 << 18
            assert (await it.port.bundle("prod.example")).strip() == b"prod.example"
            with pytest.raises(UnavailableError):
                await it.port.bundle("other.example")

    run(body())


def test_what_waits_when_the_worker_dies_is_told_so_and_the_next_one_goes_on() -> None:
    async def body() -> None:
        async with rig() as it:
            engine, hanging = it.engine(), it.engine("hanging")
            await engine.traits()
            await engine.issue(planned(), START + LIFE)
            await hanging.traits()
            waiting = asyncio.create_task(hanging.issue(planned(1), START + LIFE))
            await engine.traits()
            await asyncio.sleep(0)
            await it.die()
            with pytest.raises(UnavailableError):
                await waiting
            with pytest.raises(UnavailableError):
                await engine.revoke(planned(), None)
            assert it.died == 1
            await it.worker()
            await engine.revoke(planned(), None)
            assert it.target.accounts == {}

    run(body())


def test_before_there_is_a_worker_nothing_is_reached() -> None:
    async def body() -> None:
        with pytest.raises(UnavailableError):
            await TargetsLink().targets.fetch("https://idp.example/jwks")

    run(body())


def test_a_target_that_hangs_holds_up_no_other_over_the_same_link() -> None:
    async def body() -> None:
        async with rig() as it:
            engine, hanging = it.engine(), it.engine("hanging")
            stuck = [asyncio.create_task(hanging.issue(planned(n), START + LIFE)) for n in range(AT_ONCE * 2)]
            await engine.issue(planned(), START + LIFE)
            await asyncio.wait_for(hanging.revoke(planned(), None), 5)
            assert it.target.accounts == {}
            assert not any(one.done() for one in stuck)
            for one in stuck:
                one.cancel()
            await asyncio.wait(stuck)

    run(body())


def test_all_leases_that_a_task_may_have_are_ended_at_once() -> None:
    async def body() -> None:
        undo = {"destination": "postgresql://remit@127.0.0.1:5432/bench", "role": "remit_lse"}
        plans = [replace(planned(n), undo=undo) for n in range(2_000)]
        names = frozenset(plan.name for plan in plans)
        async with rig() as it:
            assert await it.engine().revoke_many(plans) == names
            assert await it.engine().clean(plans) == names

    run(body())


def test_a_call_that_nobody_waits_for_is_given_up_over_there() -> None:
    async def body() -> None:
        async with rig(Interrupted) as it:
            await it.port.configure(KEY, warehouse(), None)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(it.port.revoke_credential(KEY, planned(), None), 0.05)
            await it.port.configure(KEY, warehouse(), None)  # it is answered after that was given up
            assert it.target.accounts == {"remit_lse_0 given up": START}

    run(body())


def test_a_worker_that_is_stopped_keeps_no_document_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "PATIENCE", 0.05)

    async def body() -> None:
        async with hostile() as (it, _):
            with pytest.raises(UnavailableError):
                await it.port.fetch("https://idp.example/jwks")

    run(body())


def test_what_a_driver_says_is_neither_told_nor_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        async with rig() as it:
            it.target.fail, it.target.error = {"revoke"}, RuntimeError("password canary")
            await it.port.configure(KEY, warehouse(), Secret("canary"))
            with pytest.raises(RemitError) as failed:
                await it.port.revoke_credential(KEY, planned(), None)
            assert "canary" not in f"{failed.value} {failed.value.help} {caplog.text}"
            assert "revoke_credential failed: RuntimeError" in caplog.text

    run(body())


REFUSAL = Refusal(1, failure(RemitError()))


@pytest.mark.parametrize(
    "said",
    [
        b"\xff\xff\xff\xff",
        (MAX_DOCUMENT + 1).to_bytes(4, "big"),
        sent(Answer(7, None)),
        sent(Permits([], None)),
        sent(REFUSAL) + sent(REFUSAL),
        sent(Answer(1, ["x"] * MAX_CALL)),
        sent(Answer(1, [[]] * 6_000)),
        sent(Refusal(1, failure(RemitError("x" * 5_000)))),
        (3).to_bytes(4, "big") + b"\xc1\xc1\xc1",
    ],
    ids=[
        "length",
        "too long",
        "not asked",
        "no answer",
        "twice",
        "long list",
        "many items",
        "long refusal",
        "no message",
    ],
)
def test_a_worker_that_says_what_is_no_answer_is_cut_off(said: bytes) -> None:
    async def body() -> None:
        async with hostile() as (it, theirs):
            asked = asyncio.create_task(it.port.fetch("https://idp.example/jwks"))
            loop = asyncio.get_running_loop()
            await loop.sock_recv(theirs.calls, 1024)
            await loop.sock_sendall(theirs.calls, said)
            with pytest.raises(RemitError):
                await asked
            assert await loop.sock_recv(theirs.calls, 1) == b""
            assert it.died == 1

    run(body())


@pytest.mark.parametrize("value", [7, "text", [1], None])
def test_an_answer_of_another_type_is_an_error_of_its_call_alone(value: object) -> None:
    async def body() -> None:
        async with hostile() as (it, theirs):
            loop = asyncio.get_running_loop()
            asked = asyncio.create_task(it.port.configure(KEY, warehouse(), None))
            await loop.sock_recv(theirs.calls, 65_536)
            await loop.sock_sendall(theirs.calls, sent(Answer(1, value)))
            with pytest.raises(RemitError):
                await asked
            assert it.died == 0

    run(body())


def test_a_worker_says_that_it_serves_and_what_it_logs() -> None:
    async def body() -> None:
        async with rig() as it:
            reports = it.workers[0].reports
            await reports.started()
            await reports.logged([LogLine(30, "remit", "a bundle could not be fetched")])
            assert (it.heard.served, [line.text for line in it.heard.lines]) == (1, ["a bundle could not be fetched"])
            with pytest.raises(UnavailableError):
                await reports.failed(UnavailableError())

    run(body())


@pytest.mark.parametrize("asked", ["fetch", "grant", "none", "__init__"])
def test_a_worker_that_calls_anything_but_a_report_is_cut_off(asked: str) -> None:
    async def body() -> None:
        async with hostile() as (it, theirs):
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(theirs.ends, sent(Call(1, asked, ["grt_1"])))
            assert await loop.sock_recv(theirs.ends, 1) == b""
            assert await loop.sock_recv(theirs.calls, 1) == b""
            assert it.died == 1

    run(body())


def test_a_worker_that_reports_without_end_is_cut_off() -> None:
    async def body() -> None:
        async with hostile() as (it, theirs):
            loop = asyncio.get_running_loop()
            calls = b"".join(sent(Call(number, "started", [])) for number in range(MAX_CALLS + 1))
            await loop.sock_sendall(theirs.ends, calls)
            assert await loop.sock_recv(theirs.ends, 1) == b""
            assert it.died == 1

    run(body())
