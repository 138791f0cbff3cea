"""What the broker tells of its log, and how it serves what has no secret."""

from __future__ import annotations

import pytest

from remit.broker.sessions import LoginRevocations
from remit.core import audit, tree
from remit.core.policy import within_bounds
from remit.core.principal import Signal
from remit.core.scope import Access
from remit.errors import TokenError, UnavailableError
from remit.ports.broker import AuditState
from tests.broker.policies import Rule
from tests.broker.world import OPERATOR, SEARCH, START, World, run, search
from tests.uses import permitted_use


def test_the_nodes_of_a_proof_are_roots_over_what_the_log_holds(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        await world.opened(broker)
        leaves = [tree.leaf_hash(entry.leaf) for entry in await broker.entries(0, 10)]
        first, all_of_them = await broker.nodes([(0, 1), (0, len(leaves))])
        size, root = await broker._store.root()
        assert first == leaves[0]
        assert (size, root) == (len(leaves), all_of_them)

    run(body())


def test_a_resource_without_a_secret_is_used_without_one(world: World) -> None:
    async def body() -> None:
        broker = world.broker()
        await broker.start()
        await broker.put_resource(OPERATOR, search("http://127.0.0.1:9"))
        root = await world.opened(broker, SEARCH)
        use = await permitted_use(broker, root.id, Access("search", "GET", "/v1/x"), "r1")
        assert (use.resource, use.index) == ("search", 0)
        assert await broker.credential("search", use.version) is None

    run(body())


def test_what_an_operator_does_to_the_house_is_recorded_with_who_it_was(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        await broker.note(OPERATOR, "key.rotate", "done", key="kid-1")
        last = (await world.events())[-1]
        assert (last.event, last.decision, last.subject, last.key) == (
            "key.rotate",
            "done",
            OPERATOR.subject.sub,
            "kid-1",
        )
        assert (last.task, last.grant, last.lineage) == (None, None, ())

    run(body())


def test_what_decides_now_can_be_asked(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        assert broker.policy.deciding is within_bounds
        other = Rule("v2")
        await broker.policy.reload(OPERATOR, other, "v2")
        assert broker.policy.deciding is other

    run(body())


def test_catching_up_with_a_task_that_is_gone_is_no_failure(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        await broker._revoker.catch_up("task_404")

    run(body())


def test_a_broker_that_hears_no_issuer_takes_no_signal(world: World) -> None:
    async def body() -> None:
        broker = world.broker(revocations=lambda _: LoginRevocations())
        await broker.start()
        with pytest.raises(UnavailableError, match="hears no signals"):
            await broker.signal([Signal(START, "logout", "digest", "https://idp.test#ann")])
        await broker.refuse_signal(TokenError())
        assert await broker.audit_state() == AuditState(0, rolled_back=False, trouble=None)

    run(body())


def test_what_hears_issuers_reads_the_log_and_records_what_it_refused(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        size = await broker.sessions.size()
        await broker.refuse_signal(TokenError("its signature does not hold"))
        [entry] = await broker.sessions.entries(size, 10)
        assert (await broker.entries(size, 10), audit.read(entry).decision) == ([entry], "deny")

    run(body())
