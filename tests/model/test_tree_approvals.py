"""The tree of grants where humans approve what exceeds a parent: any sequence of verbs, against the same model."""

from __future__ import annotations

from hypothesis import seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

from remit.core.approval import Approval
from remit.core.principal import Holder
from remit.core.request import GrantRequest
from remit.errors import ApprovalError, LimitError, RemitError
from tests.model.setting import OWNER, TABLES, WIDE, wanted
from tests.model.test_tree import BOUNDS, ROUNDS, SEEN, Node, Tree

FLOORS = {"asked": 60, "needless": 10, "approved": 25, "denied": 10, "lapsed": 5, "below approved": 5}


class Asking(Tree):
    """As before, and whoever has a grant may ask for more."""

    @precondition(lambda self: self.grants())
    @rule(
        data=st.data(),
        tables=st.sets(st.sampled_from(TABLES), min_size=1),
        depth=st.integers(0, 3),
        fan_out=st.integers(0, 3),
        verdict=st.sampled_from(["approve", "approve", "approve", "deny", None]),
        seconds=st.sampled_from([0, 0, 0, 300, 601]),
    )
    def ask(
        self, data: st.DataObject, tables: set[str], depth: int, fan_out: int, verdict: str | None, seconds: int
    ) -> None:
        """Ask, let a human decide or not, let time pass, and try to go on twice."""
        parent = self.pick(data, deep=True)
        node = self.model.nodes[parent]
        asked = wanted({**WIDE, "tables": sorted(tables)}, depth=depth, fan_out=fan_out)
        exceeds = not (tables <= node.tables and depth < node.depth and fan_out <= node.fan_out)
        exceeds |= not self.model.room(parent, self.setting.now)
        item = self.asked(parent, asked, exceeds=exceeds)
        if item is None:
            return
        if verdict is not None:
            decide = self.broker.approve if verdict == "approve" else self.broker.refuse
            self.runner.run(decide(item.id, item.digest, OWNER))
        self.time_passes(seconds)
        due = verdict == "approve" and self.setting.now < item.expires_at
        made = self.used(parent, item, asked, may=due and self.model.live(parent, self.setting.now))
        if made is None:
            SEEN["lapsed" if verdict == "approve" else "denied"] += 1
            return
        self.model.nodes[made] = Node(node.task, parent, frozenset(tables), depth, fan_out, node.ends, approved=True)
        SEEN["approved"] += 1
        assert self.used(parent, item, asked, may=False) is None
        if depth and fan_out:  # from here on what was approved is the bound
            self.delegate_under(data, made)
            SEEN["below approved"] += 1

    def asked(self, parent: str, asked: GrantRequest, *, exceeds: bool) -> Approval | None:
        """Ask as the holder of a grant; None where that is refused, as it must be if nothing is exceeded."""
        caller = Holder(self.model.nodes[parent].task, parent)
        try:
            item = self.runner.run(self.broker.ask(caller, parent, asked)).approval
        except (LimitError, ApprovalError):  # too often, or denied before
            assert exceeds
            return None
        except RemitError:
            assert not exceeds
            SEEN["needless"] += 1
            return None
        assert exceeds
        SEEN["asked"] += 1
        return item

    def used(self, parent: str, item: Approval, asked: GrantRequest, *, may: bool) -> str | None:
        """Try to make what was asked for; return the grant."""
        caller = Holder(self.model.nodes[parent].task, parent)
        try:
            made = self.runner.run(
                self.broker.delegate(caller, parent, asked, self.broker._approvals.get(item.id))
            ).grant
        except RemitError:
            assert not may
            return None
        assert may
        assert made.approval == item.id
        return made.id


def test_the_tree_holds_where_humans_approve_more() -> None:
    SEEN.clear()
    for number in range(ROUNDS):  # what one round reaches varies with the interpreter and the modules in it
        machine = seed(number)(type(f"Asking{number}", (Asking,), {}))
        run_state_machine_as_test(machine, settings=settings(BOUNDS, max_examples=40))
        if _short() == {}:
            break
    assert _short() == {}


def _short() -> dict[str, int]:
    """Return what the generator has not reached often enough."""
    return {name: SEEN[name] for name, floor in FLOORS.items() if SEEN[name] < floor}
