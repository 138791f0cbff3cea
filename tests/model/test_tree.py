"""The tree of grants against a model of one page, under any sequence of verbs, faults and passing time.

What is asked for is drawn relative to the parent, and one rule tries anything. The generator is measured: a run that
seldom delegates, issues or goes deep proves nothing, and fails.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from remit.core import scope
from remit.core.audit import read
from remit.core.lease import Closure, Revocation
from remit.core.principal import Holder
from remit.errors import DeniedError, EngineError, NotFoundError, RemitError
from remit.ports.broker import IssuedLease
from tests.model.setting import OWNER, TABLES, WIDE, Setting, detail, wanted

SEEN: Counter[str] = Counter()
FLOORS = {"open": 60, "delegate": 100, "level 2": 40, "level 3": 15, "issue": 80, "issue below": 40, "revoke": 50}
FLOORS |= {"refused": 50, "fault": 15, "renew": 12, "revoke lease": 15, "close": 8, "expired": 5, "widened": 40}
FLOORS |= {"acted below": 10, "held off": 10, "renew task": 20}


@dataclass
class Node:
    """What the model knows of a grant."""

    task: str
    parent: str | None
    tables: frozenset[str]
    depth: int
    fan_out: int
    ends: datetime
    revoked: bool = False
    approved: bool = False  # by a human, so that it need not lie within its parent
    bound: bool = False  # to a key of its holder


class Model:
    """One page: who is below whom, who is revoked, what each may reach."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.leases: dict[str, str] = {}  # lease -> grant
        self.handles: dict[str, str] = {}  # lease -> account

    def line(self, grant: str) -> list[Node]:
        """Return a grant and its ancestors."""
        line, step = [], grant
        while step:
            line.append(self.nodes[step])
            step = self.nodes[step].parent or ""
        return line

    def bounding(self, grant: str) -> list[Node]:
        """Return a grant and the ancestors it has to lie within."""
        line = self.line(grant)
        last = next((place for place, node in enumerate(line) if node.approved), len(line) - 1)
        return line[: last + 1]

    def live(self, grant: str, now: datetime) -> bool:
        """Whether nothing on the way to the root has ended."""
        return all(not node.revoked and now < node.ends for node in self.line(grant))

    def below(self, grant: str) -> list[str]:
        """Return a grant and its descendants."""
        return [name for name in self.nodes if any(node is self.nodes[grant] for node in self.line(name))]

    def acts(self, own: str, grant: str) -> bool | None:
        """Whether the holder of ``own`` may act under ``grant``: nothing on the way is bound; None: not below."""
        way, step = [], grant
        while step and step != own:
            way.append(self.nodes[step])
            step = self.nodes[step].parent or ""
        return not any(node.bound for node in way) if step else None

    def room(self, grant: str, now: datetime) -> bool:
        """Whether a grant may have one more child."""
        children = [name for name, node in self.nodes.items() if node.parent == grant]
        return sum(self.live(name, now) for name in children) < self.nodes[grant].fan_out


class Tree(RuleBasedStateMachine):
    """Every verb, in any order."""

    revocation = Revocation.BY_NAME
    bulk = False

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.setting = Setting(self.revocation, bulk=self.bulk)
        self.broker = self.runner.run(self.setting.ready())
        self.model = Model()

    def teardown(self) -> None:
        """End everything: nothing may be left at the target, and nothing unsettled."""
        self.setting.target.fail("revoke", 0)
        self.setting.target.lose("revoke", 0)
        for task in list(self.broker._tasks):
            self.runner.run(self.broker.close(OWNER, task.id))
        for _ in range(3):
            self.setting.later(3_600)
            self.runner.run(self.broker.sweep())
        left = [task for task in self.runner.run(self.setting.tasks()) if task.leases]
        self.runner.close()
        assert self.setting.target.live() == {}
        assert left == []

    def grants(self, *, live: bool = True) -> list[str]:
        """Return the grants there are, those that are live or all."""
        return [name for name in self.model.nodes if not live or self.model.live(name, self.setting.now)]

    def pick(self, data: st.DataObject, *, live: bool = True, deep: bool = False) -> str:
        """Draw a grant, the later ones more often, as they hang deeper."""
        names = self.grants(live=live)
        if deep and len(names) > 1 and data.draw(st.integers(0, 3)):
            return data.draw(st.sampled_from(names[len(names) // 2 :]))
        return data.draw(st.sampled_from(names))

    # -- verbs ------------------------------------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        self.open(4, 3, 60)

    @precondition(lambda self: len(self.grants()) < 6)
    @rule(depth=st.integers(2, 4), fan_out=st.integers(2, 3), minutes=st.sampled_from([60, 30, 5]))
    def open(self, depth: int, fan_out: int, minutes: int) -> None:
        ttl = timedelta(minutes=minutes)
        asked = wanted(WIDE, ttl=ttl, depth=depth, fan_out=fan_out)
        grant = self.runner.run(self.broker.open(OWNER, replace(asked, purpose="try everything")))
        task = self.broker._tasks.task_of(grant.id).id
        self.model.nodes[grant.id] = Node(task, None, frozenset(TABLES), depth, fan_out, self.setting.now + ttl)
        SEEN["open"] += 1

    @precondition(lambda self: self.able())
    @rule(data=st.data())
    def delegate_where_it_fits(self, data: st.DataObject) -> None:
        self.delegate_under(data, data.draw(st.sampled_from(self.able()[-3:])))

    @precondition(lambda self: self.able())
    @rule(data=st.data())
    def delegate_deep(self, data: st.DataObject) -> None:
        self.delegate_under(data, max(self.able(), key=lambda name: len(self.model.line(name))))

    @precondition(lambda self: self.grants())
    @rule(data=st.data())
    def delegate_anywhere(self, data: st.DataObject) -> None:
        self.delegate_under(data, self.pick(data, deep=True))

    def holder(self, grant: str) -> Holder:
        """Return who holds a grant: nobody else acts under it once it is bound, not even the owner of the state."""
        return Holder(self.model.nodes[grant].task, grant)

    def able(self) -> list[str]:
        """Return the grants that may have one more child."""
        return [n for n in self.grants() if self.model.nodes[n].depth and self.model.room(n, self.setting.now)]

    def delegate_under(self, data: st.DataObject, parent: str) -> None:
        """Ask for part of what a parent has."""
        node = self.model.nodes[parent]
        tables = set(node.tables) - {data.draw(st.sampled_from(sorted(node.tables)))} or set(node.tables)
        most = max(node.depth - 1, 0)
        depth = data.draw(st.sampled_from([most, most, max(most - 1, 0)]))
        fan_out = data.draw(st.sampled_from([node.fan_out, node.fan_out, max(node.fan_out - 1, 0)]))
        ends = data.draw(st.sampled_from([node.ends, self.setting.now + (node.ends - self.setting.now) / 2]))
        fits = node.depth > 0 and self.model.room(parent, self.setting.now)
        bound = data.draw(st.sampled_from([False, False, True]))
        more = {"ttl": ends - self.setting.now, "jkt": "k" * 43 if bound else None}
        asked = wanted({**WIDE, "tables": sorted(tables)}, depth=depth, fan_out=fan_out, **more)
        try:
            grant = self.runner.run(self.broker.delegate(self.holder(parent), parent, asked)).grant
        except RemitError:
            assert not fits
            SEEN["refused"] += 1
            return
        assert fits
        self.model.nodes[grant.id] = Node(node.task, parent, frozenset(tables), depth, fan_out, ends, bound=bound)
        SEEN["delegate"] += 1
        SEEN[f"level {grant.level}"] += 1

    @precondition(lambda self: self.grants())
    @rule(data=st.data(), more=st.sampled_from(["table", "action", "ttl", "depth", "fan_out", "resource"]))
    def delegate_more(self, data: st.DataObject, more: str) -> None:
        """Widening is refused, in each dimension, whatever else would do."""
        parent = self.pick(data)
        node = self.model.nodes[parent]
        raw = {**WIDE, "tables": sorted(node.tables)}
        asked = wanted(raw, depth=max(node.depth - 1, 0), fan_out=node.fan_out)
        wider = {
            "table": wanted({**raw, "tables": [*sorted(node.tables), "sales.z"]}),
            "action": wanted({**raw, "actions": ["select", "delete"]}),
            "ttl": wanted(raw, ttl=node.ends - self.setting.now + timedelta(milliseconds=1)),
            "depth": wanted(raw, depth=node.depth, fan_out=asked.bounds.fan_out),
            "fan_out": wanted(raw, depth=asked.bounds.depth, fan_out=node.fan_out + 1),
            "resource": wanted({**raw, "resource": "other"}),
        }[more]
        self.refuse(self.broker.delegate(self.holder(parent), parent, wider))
        SEEN["widened"] += 1

    @precondition(lambda self: self.grants())
    @rule(data=st.data())
    def issue(self, data: st.DataObject) -> None:
        self.issue_under(data, self.pick(data, deep=True))

    @precondition(lambda self: self.grants())
    @rule(data=st.data(), verb=st.sampled_from(["issue", "revoke"]), lost=st.booleans())
    def issue_in_trouble(self, data: st.DataObject, verb: str, *, lost: bool) -> None:
        self.trouble(verb, lost=lost)
        self.issue_under(data, self.pick(data))

    def issue_under(self, data: st.DataObject, grant: str) -> None:
        """Ask for a credential within a grant."""
        tables = data.draw(st.sets(st.sampled_from(sorted(self.model.nodes[grant].tables)), min_size=1))
        raw = {**WIDE, "tables": sorted(tables), "ttl": data.draw(st.integers(1, 600))}
        key = data.draw(st.sampled_from([None, None, "same"]))
        try:
            made = self.runner.run(self.broker.issue(self.holder(grant), grant, detail(raw), key))
        except EngineError:
            SEEN["fault"] += 1
            return
        self.remember(made)
        SEEN["issue"] += 1
        SEEN["issue below"] += self.model.nodes[grant].parent is not None

    @precondition(lambda self: self.model.nodes)
    @rule(data=st.data(), tables=st.sets(st.sampled_from(TABLES), min_size=1))
    def issue_anything(self, data: st.DataObject, tables: set[str]) -> None:
        """Whatever is issued lies within every ancestor, and under a live grant."""
        grant = self.pick(data, live=False)
        line = self.model.bounding(grant)
        may = self.model.live(grant, self.setting.now) and all(tables <= node.tables for node in line)
        try:
            made = self.runner.run(
                self.broker.issue(self.holder(grant), grant, detail({**WIDE, "tables": sorted(tables)}))
            )
        except EngineError:
            return
        except RemitError:
            assert not may
            SEEN["refused"] += 1
            return
        assert may
        self.remember(made)

    @precondition(lambda self: len(self.grants()) > 1)
    @rule(data=st.data())
    def issue_as_somebody(self, data: st.DataObject) -> None:
        """An agent acts under its own grant, under those inside its process or run, and under no other."""
        own, grant = self.pick(data), self.pick(data, deep=True)
        may = self.model.acts(own, grant)
        asked = detail({**WIDE, "tables": sorted(self.model.nodes[grant].tables)})
        refused: type[RemitError] | None = None
        try:
            self.remember(self.runner.run(self.broker.issue(self.holder(own), grant, asked)))
        except EngineError:
            SEEN["fault"] += 1
        except RemitError as error:
            refused = type(error)
        assert refused is (None if may else NotFoundError if may is None else DeniedError)
        SEEN["acted below"] += bool(may) and own != grant
        SEEN["held off"] += may is False

    @precondition(lambda self: self.model.leases)
    @rule(data=st.data(), seconds=st.integers(1, 600))
    def renew(self, data: st.DataObject, seconds: int) -> None:
        working = [i for i, handle in self.model.handles.items() if handle in self.setting.target.live()]
        lease = data.draw(st.sampled_from(working[-3:] or sorted(self.model.leases)))
        try:
            self.runner.run(self.broker.renew(self.holder(self.model.leases[lease]), lease, timedelta(seconds=seconds)))
        except RemitError:
            return
        assert self.model.live(self.model.leases[lease], self.setting.now)
        SEEN["renew"] += 1

    @rule(data=st.data(), minutes=st.sampled_from([1, 20, 45]))
    def renew_task(self, data: st.DataObject, minutes: int) -> None:
        """A live task goes on, with its root and nothing else; one that has ended does not."""
        line = self.model.line(self.pick(data, live=False))
        root = next(name for name, node in self.model.nodes.items() if node is line[-1])
        may, ttl = self.model.live(root, self.setting.now), timedelta(minutes=minutes)
        try:
            self.runner.run(self.broker.renew_task(OWNER, line[-1].task, ttl))
        except RemitError:
            assert not may
            SEEN["refused"] += 1
            return
        assert may
        line[-1].ends = max(line[-1].ends, self.setting.now + ttl)
        SEEN["renew task"] += 1

    @precondition(lambda self: len(self.model.nodes) > 3)
    @rule(data=st.data())
    def revoke(self, data: st.DataObject) -> None:
        grant = self.pick(data, live=False, deep=True)
        ended = self.model.below(grant)
        for name in ended:
            self.model.nodes[name].revoked = True
        try:
            report = self.runner.run(self.broker.revoke(OWNER, grant))
        except NotFoundError:
            self.is_over(self.model.nodes[grant].task)
            return
        if report.state is Closure.CLOSED:
            assert not self.working(ended)
        SEEN["revoke"] += 1

    @precondition(lambda self: self.model.leases)
    @rule(data=st.data())
    def revoke_lease(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(sorted(self.model.leases)))
        try:
            report = self.runner.run(self.broker.revoke_lease(OWNER, lease))
        except RemitError:
            return
        if report.state is Closure.CLOSED:
            assert self.model.handles[lease] not in self.setting.target.live()
        SEEN["revoke lease"] += 1

    @precondition(lambda self: len(self.model.nodes) > 6)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        task = self.model.nodes[self.pick(data, live=False)].task
        for node in self.model.nodes.values():
            node.revoked |= node.task == task
        try:
            self.runner.run(self.broker.close(OWNER, task))
        except NotFoundError:
            self.is_over(task)
        SEEN["close"] += 1

    # -- what happens to us -----------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1, 11, 60, 600, 1_900]))
    def time_passes(self, seconds: int) -> None:
        before = len(self.grants())
        self.setting.later(seconds)
        SEEN["expired"] += len(self.grants()) < before

    @rule()
    def sweep(self) -> None:
        self.runner.run(self.broker.sweep())

    @rule(verb=st.sampled_from(["issue", "revoke", "renew"]), lost=st.booleans())
    def trouble(self, verb: str, *, lost: bool) -> None:
        (self.setting.target.lose if lost else self.setting.target.fail)(verb)

    @rule()
    def restart(self) -> None:
        self.broker = self.setting.broker()
        self.runner.run(self.broker.start())

    # -- what must hold ---------------------------------------------------------------------------------------------

    def remember(self, made: IssuedLease) -> None:
        """Note whose a credential is, and what the target calls it."""
        self.model.leases[made.lease.id] = made.lease.grant
        self.model.handles[made.lease.id] = str(made.credential["user"])

    def is_over(self, task: str) -> None:
        """Assert that a task has ended: only then may a broker have forgotten it."""
        nodes = [node for node in self.model.nodes.values() if node.task == task]
        assert all(node.revoked or self.setting.now >= node.ends for node in nodes)

    def refuse(self, verb: object) -> None:
        """Assert that a verb is refused."""
        try:
            self.runner.run(verb)  # type: ignore[arg-type]  # any awaitable
        except RemitError:
            return
        raise AssertionError("was not refused")

    def working(self, grants: list[str]) -> list[str]:
        """Return the accounts that work at the target and belong to grants."""
        names = {self.model.handles[lease] for lease, grant in self.model.leases.items() if grant in grants}
        return sorted(names & self.setting.target.live().keys())

    @invariant()
    def a_grant_is_live_exactly_when_the_model_says_so(self) -> None:
        for name in self.model.nodes:
            try:
                self.broker._tasks.check(name)
                live = True
            except RemitError:
                live = False
            assert live == self.model.live(name, self.setting.now), name

    @invariant()
    def no_credential_outlives_its_grant(self) -> None:
        accounts = self.setting.target.accounts
        for lease, grant in self.model.leases.items():
            assert accounts.get(self.model.handles[lease], self.model.nodes[grant].ends) <= self.model.nodes[grant].ends

    @invariant()
    def every_grant_is_within_every_ancestor(self) -> None:
        for task in list(self.broker._tasks):
            for grant in task.grants.values():
                line = task.lineage(grant.id)
                assert all(grant.expires_at <= ancestor.expires_at for ancestor in line)
                for ancestor in line[: len(self.model.bounding(grant.id))]:
                    assert all(scope.cover(item, ancestor.scope) is not None for item in grant.scope)

    @invariant()
    def every_grant_has_the_event_that_made_it(self) -> None:
        entries = self.runner.run(self.broker.entries(0, 100_000))
        events = [read(entry) for entry in entries]
        made = {
            event.grant
            for event in events
            if event.event in {"task.open", "grant.delegate"} and event.decision == "allow"
        }
        assert made == self.model.nodes.keys()


class ByReceipt(Tree):
    """The target chooses the handle."""

    revocation = Revocation.BY_RECEIPT


class Bulk(Tree):
    """Many at once, with something left behind."""

    bulk = True


ROUNDS = 12
BOUNDS = settings(
    max_examples=80,
    stateful_step_count=40,
    deadline=None,
    derandomize=False,  # seeded instead
    database=None,
    suppress_health_check=list(HealthCheck),
)


def test_the_tree_is_what_the_model_says_and_the_generator_reached_it() -> None:
    SEEN.clear()
    for number in range(ROUNDS):  # what one round reaches varies with the interpreter and the modules in it
        run_state_machine_as_test(seed(number)(type(f"Tree{number}", (Tree,), {})), settings=BOUNDS)
        if _short() == {}:
            break
    assert _short() == {}


def _short() -> dict[str, int]:
    """Return what the generator has not reached often enough."""
    return {name: SEEN[name] for name, floor in FLOORS.items() if SEEN[name] < floor}


def test_the_tree_holds_where_the_target_chooses_the_handle() -> None:
    run_state_machine_as_test(seed(0)(ByReceipt), settings=settings(BOUNDS, max_examples=20))


def test_the_tree_holds_where_many_are_revoked_at_once() -> None:
    run_state_machine_as_test(seed(0)(Bulk), settings=settings(BOUNDS, max_examples=20))
