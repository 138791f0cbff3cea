"""One-line sabotages that a test must catch, each with the tests that do.

``EQUIVALENT`` are those that no test can catch, because another line does the same work; they stay as a second line of
defence, and this list says so.
"""

from __future__ import annotations

from dataclasses import dataclass

SCOPE = ("tests/core/test_scope.py",)
ORDERS = ("tests/core/test_orders.py", "tests/core/test_scope.py")
TASK = ("tests/core/test_task.py", "tests/core/test_lease.py", "tests/core/test_grant.py")
TREE = ("tests/model/test_tree.py",)
CRASH = ("tests/model/test_crash.py",)
RACES = ("tests/model/test_races.py",)
APPROVAL = ("tests/core/test_approval.py",)
DELEGABILITY = ("tests/core/test_grant_delegability.py", "tests/core/test_task_asking.py")
ASKING = ("tests/broker/test_approvals.py",)
TOGETHER = ("tests/model/test_approvals.py",)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One sabotage: in ``file``, ``old`` (found once) becomes ``new``; some of ``tests`` must then fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTANTS = [
    Mutant(
        "two details may cover together",
        "core/scope.py",
        "    return all(_field_le(name, row, child, parent) for name, row in types[child.type].items())",
        "    return any(_field_le(name, row, child, parent) for name, row in types[child.type].items())",
        SCOPE,
    ),
    Mutant(
        "absent in the child is no wider",
        "core/scope.py",
        "    return narrow is not None and row.order.le(narrow, wide)",
        "    return narrow is None or row.order.le(narrow, wide)",
        SCOPE,
    ),
    Mutant(
        "another resource is covered",
        "core/scope.py",
        "    if child.type != parent.type or child.resource != parent.resource:",
        "    if child.type != parent.type:",
        SCOPE,
    ),
    Mutant(
        "unknown fields are ignored",
        "core/scope.py",
        '        if name not in table and name not in {"type", "resource"}:',
        '        if name not in table and name in {"type", "resource"}:',
        SCOPE,
    ),
    Mutant(
        "a table without columns is no wider",
        "core/scope.py",
        "    return all(key in narrow and row.order.le(narrow[key], wide[key]) for key in keys if key in wide)",
        "    return all(key not in narrow or row.order.le(narrow[key], wide[key]) for key in keys if key in wide)",
        SCOPE,
    ),
    Mutant(
        "any action is permitted",
        "core/scope.py",
        '    if access.action not in detail.texts("actions"):',
        '    if not detail.texts("actions"):',
        SCOPE,
    ),
    Mutant(
        "a prefix is a path",
        "core/orders.py",
        "    return len(narrow) == len(wide)",
        "    return len(narrow) >= len(wide)",
        ORDERS,
    ),
    Mutant(
        "a star takes an empty segment",
        "core/orders.py",
        '        if segment == "*" and narrow[index] != "":',
        '        if segment == "*":',
        ORDERS,
    ),
    Mutant(
        "the rest of a path is one segment",
        "core/orders.py",
        '        if index >= len(narrow) or narrow[index] == "**":',
        "        if index >= len(narrow):",
        ORDERS,
    ),
    Mutant(
        "encoded slashes are segments",
        "core/orders.py",
        "    return all(octet not in _FORBIDDEN_OCTETS and chr(octet) not in _UNRESERVED for octet in octets)",
        "    return all(chr(octet) not in _UNRESERVED for octet in octets)",
        ORDERS,
    ),
    Mutant(
        "unnamed arguments are permitted",
        "core/orders.py",
        "    return outer is not None and named[outer][0] == ANY",
        "    return outer is None or named[outer][0] == ANY",
        ORDERS,
    ),
    Mutant(
        "required arguments may be absent",
        "core/orders.py",
        "    if any(constraint[0] != ANY and key not in args for key, constraint in constraints):",
        "    if any(constraint[0] == ANY and key not in args for key, constraint in constraints):",
        ORDERS,
    ),
    Mutant(
        "a child may drop what its parent requires",
        "core/orders.py",
        "    if not required <= narrow.keys() <= wide.keys():",
        "    if not narrow.keys() <= wide.keys():",
        ORDERS,
    ),
    Mutant(
        "true is one",
        "core/orders.py",
        "    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_INT:",
        "    if not isinstance(value, int) or not 1 <= value <= MAX_INT:",
        ORDERS,
    ),
    Mutant(
        "below zero is at most anything",
        "core/orders.py",
        '_DECIMAL = re.compile(r"0|[1-9][0-9]{0,15}")',
        '_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]{0,15})")',
        ORDERS,
    ),
    Mutant(
        "a child may end after its parent",
        "core/grant.py",
        "now + wanted.ttl > parent.expires_at:",
        "now + wanted.ttl > parent.expires_at + (parent.expires_at - now):",
        TASK,
    ),
    Mutant(
        "a grant lives at the instant it expires",
        "core/task.py",
        "        if any(now >= grant.expires_at for grant in line):",
        "        if any(now > grant.expires_at for grant in line):",
        TASK,
    ),
    Mutant(
        "hops are not counted",
        "core/task.py",
        "        if wanted.depth > parent.depth - 1:",
        "        if wanted.depth > parent.depth:",
        (*TASK, *TREE),
    ),
    Mutant(
        "children are not counted",
        "core/task.py",
        "for child in siblings) >= parent.fan_out",
        "for child in siblings) > parent.fan_out",
        (*TASK, *TREE),
    ),
    Mutant(
        "revoke ends the grant alone",
        "core/task.py",
        "        ended = {grant.id for grant_id in grant_ids for grant in self.subtree(grant_id)}",
        "        ended = set(grant_ids)",
        (*TASK, *TREE),
    ),
    Mutant(
        "what was claimed is confirmed",
        "core/task.py",
        "        if lease.state is not LeaseState.PLANNED or now >= lease.plan.issue_by:",
        "        if now >= lease.plan.issue_by:",
        (*TASK, *RACES),
    ),
    Mutant(
        "a lease may outlive its grant",
        "core/task.py",
        "min(expires_at, grant.expires_at)",
        "max(expires_at, grant.expires_at)",
        (*TASK, *TREE),
    ),
    Mutant(
        "what was never confirmed settles at once",
        "core/lease.py",
        "        return self.confirmed or now >= self.plan.issue_by",
        "        return True",
        RACES,
    ),
    Mutant(
        "a receipt that was never seen recalls",
        "core/lease.py",
        "            return self.receipt is not None",
        "            return True",
        TASK,
    ),
    Mutant(
        "back-off gives up",
        "core/task.py",
        "lease.retry_at is None or now >= lease.retry_at",
        "lease.retry_at is None",
        (*TASK, *CRASH),
    ),
    Mutant(
        "two leases under one key",
        "core/task.py",
        "        return self._change(leases=(*self._under_key(lease), lease))",
        "        return self._change(leases=(lease,))",
        RACES,
    ),
    Mutant(
        "the effect comes before its record",
        "broker/verbs.py",
        "            await self._heads.step(task.id, lambda t: t.plan(lease, now), event)",
        "            await engine.issue(lease.plan, lease.expires_at)\n"
        "            await self._heads.step(task.id, lambda t: t.plan(lease, now), event)",
        (*CRASH, *TREE),
    ),
    Mutant(
        "a failed issue is not abandoned",
        "broker/verbs.py",
        "            await self._abandon(task_id, lease, error)",
        "            assert error",
        ("tests/broker/test_verbs.py", *TREE),
    ),
    Mutant(
        "the second revoke does not wait",
        "broker/targets.py",
        "            await self._heads.durable()",
        "            pass",
        RACES,
    ),
    Mutant(
        "a head is read again too early",
        "broker/heads.py",
        "                await self.durable()  # a cancelled",
        "                pass  # a cancelled",
        RACES,
    ),
    Mutant(
        "an older head replaces a newer one",
        "broker/heads.py",
        "        if newer is not None and newer.head.rev >= task.head.rev:",
        "        if newer is not None and newer.head.rev < 0:",
        ("tests/broker/test_heads_reload.py",),
    ),
    Mutant(
        "a failed commit keeps its head",
        "broker/heads.py",
        "        except BaseException:\n            self.forget(task_id)",
        "        except ZeroDivisionError:\n            self.forget(task_id)",
        (*RACES, "tests/broker/test_heads_reload.py"),
    ),
    Mutant(
        "overdue leases are left",
        "broker/targets.py",
        "        if overdue:",
        "        if not overdue:",
        (*CRASH, *TREE),
    ),
    Mutant(
        "expiry is not looked at",
        "broker/heads.py",
        "        if self.now() >= live.expires_at:",
        "        if self.now() < live.grant.opened_at:",
        TREE,
    ),
    Mutant(
        "an agent reaches all of its task",
        "broker/heads.py",
        "        if where != task_id or not task.within(grant_id or own, own):",
        "        if where != task_id:",
        ("tests/broker/test_verbs.py",),
    ),
    Mutant(
        "a parent acts as any child",
        "broker/heads.py",
        "        task.check_acting(grant_id, caller.grant)",
        "        task.check_acting(grant_id, grant_id)",
        ("tests/broker/test_verbs.py",),
    ),
    Mutant(
        "only the grant itself has to be one's own, not those on the way",
        "core/task.py",
        "        if any(grant.apart for grant in takewhile(lambda grant: grant.id != own, self.lineage(grant_id))):",
        "        if grant_id != own and self.grant(grant_id).apart:",
        TASK,
    ),
    Mutant(
        "a certificate is no key",
        "core/grant.py",
        "        return self.attested or self.jkt is not None or self.x5t is not None",
        "        return self.attested or self.jkt is not None",
        TASK,
    ),
    Mutant(
        "whoever is attested without a key is their parent",
        "core/grant.py",
        "        return self.attested or self.jkt is not None or self.x5t is not None",
        "        return self.jkt is not None or self.x5t is not None",
        TASK,
    ),
    Mutant(
        "a run is started on any grant that its launcher sees",
        "broker/openings.py",
        "        await self._heads.acting(caller, grant_id, ATTACH)",
        "        self._heads.allowed(caller, self._heads.task_of(grant_id).id, grant_id)",
        ("tests/broker/test_verbs.py",),
    ),
    Mutant(
        "a run is started on a grant that is bound",
        "run/wish.py",
        "    if grant.apart:",
        "    if not grant:",
        ("tests/run/test_host.py",),
    ),
    Mutant(
        "a refusal to act is not recorded",
        "broker/heads.py",
        '            await self.denied(name, who, error, cause=f"under {grant_id}", **by, **more)',
        "            assert who or by",
        ("tests/broker/test_verbs.py",),
    ),
    Mutant(
        "grants that have ended are not counted",
        "core/task.py",
        "        if len(self.grants) >= MAX_GRANTS:",
        "        if sum(not grant.revoked for grant in self.grants.values()) >= MAX_GRANTS:",
        TASK,
    ),
    Mutant(
        "a login is void by our clock alone",
        "broker/signals.py",
        "signal.sid, 1, max(now, signal.at))",
        "signal.sid, 1, now)",
        ("tests/broker/test_signals.py",),
    ),
    Mutant(
        "an older signal takes back a newer one",
        "broker/signals.py",
        "replace(_both(void, before), rev=before.rev + 1)",
        "replace(void, rev=before.rev + 1)",
        ("tests/broker/test_signals.py",),
    ),
    Mutant(
        "the gateway takes any descendant",
        "gateway/client.py",
        "        self.gateway.broker.task_of(own).check_acting(named, own)",
        "        assert self.gateway.broker.task_of(own).within(named, own)",
        ("tests/attacks/test_del_wire.py",),
    ),
    Mutant(
        "a use is not looked at again after it is recorded",
        "broker/use.py",
        "        await self._heads.record(spends, (event,))\n        self._heads.check(grant_id)",
        "        await self._heads.record(spends, (event,))",
        ("tests/broker/test_use.py", "tests/broker/test_verbs.py"),
    ),
    Mutant(
        "a use is debited from the leaf alone",
        "core/budget.py",
        "    for counter in chain:",
        "    for counter in chain[:1]:",
        ("tests/core/test_budget.py",),
    ),
    Mutant(
        "whoever comes decides",
        "core/approval.py",
        'having seen the request of this digest."""\n    if approval.approver not in {None, by.sub}:',
        'having seen the request of this digest."""\n    if approval.approver is None:',
        APPROVAL,
    ),
    Mutant(
        "a weak login decides",
        "core/approval.py",
        "    if approval.acr and by.acr not in approval.acr:",
        "    if approval.acr and not by.acr:",
        APPROVAL,
    ),
    Mutant(
        "a login from before decides",
        "core/approval.py",
        "by.auth_time >= approval.asked_at - SKEW",
        "by.auth_time >= approval.asked_at - 1000 * SKEW",
        APPROVAL,
    ),
    Mutant(
        "the digest covers the id alone",
        "core/approval.py",
        '        return jose.digest(f"{self.id}\\n{self.verb}\\n{self.request}")',
        "        return jose.digest(self.id)",
        APPROVAL,
    ),
    Mutant(
        "the key is not part of the request",
        "core/approval.py",
        '        "jkt": wanted.jkt,',
        '        "jkt": None,',
        APPROVAL,
    ),
    Mutant(
        "it is decided on after its time",
        "core/approval.py",
        "    if now >= approval.expires_at:\n        raise LapsedError\n\n\ndef may_decide",
        "    if now > approval.expires_at:\n        raise LapsedError\n\n\ndef may_decide",
        APPROVAL,
    ),
    Mutant(
        "it is used after its time",
        "core/approval.py",
        "    if now >= approval.expires_at:\n        raise LapsedError\n    if approval.verdict",
        "    if now > approval.expires_at:\n        raise LapsedError\n    if approval.verdict",
        (*APPROVAL, *TOGETHER),
    ),
    Mutant(
        "it is decided twice",
        "core/approval.py",
        "    if approval.verdict is not Verdict.PENDING:",
        "    if approval.verdict is Verdict.CONSUMED:",
        (*APPROVAL, *TOGETHER),
    ),
    Mutant(
        "it is used twice",
        "core/approval.py",
        '        raise UsedError("this approval was used before")',
        '        return Subject("", "")',
        (*APPROVAL, *TOGETHER),
    ),
    Mutant(
        "something else is made of it",
        "core/approval.py",
        "    if request != approval.request:",
        "    if not request:",
        (*APPROVAL, *ASKING),
    ),
    Mutant(
        "a child chooses its delegates",
        "core/grant.py",
        "    if wanted.approval is None and not spiffe.within(wanted.delegates, parent.delegates):",
        "    if wanted.approval is not None and not spiffe.within(wanted.delegates, parent.delegates):",
        DELEGABILITY,
    ),
    Mutant(
        "nobody needs to attest the grandchildren",
        "core/grant.py",
        "    if wanted.unattested and wanted.depth:",
        "    if wanted.unattested and not wanted.depth:",
        DELEGABILITY,
    ),
    Mutant(
        "a holder that is its own delegate is bound",
        "core/grant.py",
        "    itself = grant.unattested or may_be_delegate(grant, grant.agent)",
        "    itself = grant.unattested",
        DELEGABILITY,
    ),
    Mutant(
        "what was approved outlasts its parent",
        "core/grant.py",
        "        ends.append(parent.expires_at)",
        "        ends += [parent.expires_at] if wanted.approval is None else []",
        DELEGABILITY,
    ),
    Mutant(
        "any attested agent is a delegate",
        "core/task.py",
        "        if wanted.attested and not may_be_delegate(parent, wanted.agent):",
        "        if wanted.attested and not wanted.agent:",
        DELEGABILITY,
    ),
    Mutant(
        "nobody needs to attest a child",
        "core/task.py",
        "        if not wanted.attested and not parent.unattested:",
        "        if wanted.attested and not parent.unattested:",
        DELEGABILITY,
    ),
    Mutant(
        "a child may have more children than its parent",
        "core/task.py",
        "        if wanted.fan_out > parent.fan_out:",
        "        if wanted.fan_out > parent.fan_out + 1:",
        DELEGABILITY,
    ),
    Mutant(
        "what may not be used itself is",
        "core/task.py",
        "        if not grant.exercise:",
        "        if not grant.id:",
        DELEGABILITY,
    ),
    Mutant(
        "a login for anything decides",
        "broker/approvals.py",
        "            if by.nonce != item.digest:",
        "            if by.nonce not in {None, item.digest}:",
        ASKING,
    ),
    Mutant(
        "a login decides twice",
        "broker/approvals.py",
        "        burns = (Burn(by.digest, by.until),) if isinstance(by, Human) else ()",
        "        burns: tuple[Burn, ...] = ()",
        ASKING,
    ),
    Mutant(
        "a login that was ended counts on",
        "broker/approvals.py",
        "        self._check(Human(by,",
        "        (lambda _: None)(Human(by,",
        ASKING,
    ),
    Mutant(
        "what was refused is asked again",
        "broker/approvals.py",
        "i.verdict is Verdict.DENIED and i.request == item.request and _alike(i, item)",
        "i.verdict is Verdict.CONSUMED and i.request == item.request and _alike(i, item)",
        ASKING,
    ),
    Mutant(
        "memory keeps what failed",
        "broker/approvals.py",
        "            await self.reload(item.id)\n",
        "            await self._heads.durable()\n",
        (*ASKING, *TOGETHER),
    ),
    Mutant(
        "what is read anew is read too early",
        "broker/approvals.py",
        "            await self._heads.durable()\n            for record",
        "            for record",
        TOGETHER,
    ),
    Mutant(
        "an agent sees all of its task",
        "broker/approvals.py",
        ' and self._heads.task(caller.task).within(item.grant or "", caller.grant)',
        "",
        ASKING,
    ),
    Mutant(
        "an approval counts under any grant",
        "broker/openings.py",
        "(approval.verb, approval.grant) != (DELEGATE, parent_id)",
        "approval.verb != DELEGATE",
        ASKING,
    ),
    Mutant(
        "an approval is used up in memory alone",
        "broker/openings.py",
        "                task.id, lambda t: t.delegate(parent.id, child_id, named, now), event, writes=writes",
        "                task.id, lambda t: t.delegate(parent.id, child_id, named, now), event",
        (*ASKING, *TOGETHER),
    ),
    Mutant(
        "an approval that was used up in vain stays so",
        "broker/openings.py",
        "            if approval is not None and writes:\n                await",
        "            if approval is None and writes:\n                await",
        (*ASKING, *TOGETHER),
    ),
    Mutant(
        "the owner of the state acts for others",
        "broker/heads.py",
        "    elif task.head.subject.sub != caller.subject.sub and not _brought(task):",
        "    elif not caller.subject.sub:",
        ASKING,
    ),
    Mutant(
        "what was approved debits its parent",
        "core/budget.py",
        "            if index < 0:",
        "            if index < -1:",
        ("tests/core/test_budget.py",),
    ),
]

EQUIVALENT = [
    Mutant(
        "the ancestors are not looked at",
        "core/task.py",
        "        if self.head.closed or any(grant.revoked for grant in line):",
        "        if self.head.closed or line[0].revoked:",
        (*TREE, *CRASH),
    ),
]
