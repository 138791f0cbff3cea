"""One-line sabotages of what decides by policies, each with the tests that catch it."""

from __future__ import annotations

from tests.model.mutants import Mutant

SETS = ("tests/policies/test_sets.py",)
FILES = ("tests/policies/test_files.py",)
MODEL = ("tests/policies/test_model.py",)
CEILING = ("tests/broker/test_policy.py",)
CHANGES = ("tests/broker/test_policy_changes.py",)
ROUNDS = ("tests/broker/test_policy_rounds.py",)
COMPOSED = tuple(f"tests/compose/test_policy{part}.py" for part in ("", "_reload", "_restart"))

TRIED = "                return ended\n"

MUTANTS = [
    Mutant(
        "what no policy forbids is allowed",
        "policies/sets.py",
        "        denied = tuple(detail for detail, verdict in pairs if not verdict.allowed)",
        "        denied = tuple(detail for detail, verdict in pairs if not verdict.allowed and verdict.by)",
        SETS,
    ),
    Mutant(
        "a policy that cannot be evaluated is skipped",
        "policies/sets.py",
        "            failed[self._names.get(name, name)] = why",
        "            del name, why",
        SETS,
    ),
    Mutant(
        "a failure on one detail leaves the others",
        "policies/sets.py",
        "        failed = {name: why for verdict in verdicts for name, why in verdict.failed.items()}",
        "        failed = dict[str, str]()",
        SETS,
    ),
    Mutant(
        "failures are not counted",
        "policies/sets.py",
        "                self.failing[name] = Failing(1 if before is None else before.times + 1, why)",
        "                del before",
        SETS,
    ),
    Mutant(
        "a question that is no text is allowed",
        "policies/sets.py",
        '            return [PolicyVerdict(allowed=False, by=(), failed={"the question": str(error)})] * len(asked)',
        "            return [PolicyVerdict(allowed=True, by=(), failed={} if error else {})] * len(asked)",
        SETS,
    ),
    Mutant(
        "one allowed detail is enough",
        "policies/sets.py",
        "        return Decision(not denied, tuple(dict.fromkeys(reasons)), denied, self.version)",
        "        return Decision(len(denied) < len(pairs), tuple(dict.fromkeys(reasons)), denied, self.version)",
        SETS,
    ),
    Mutant(
        "nothing is validated against the schema",
        "policies/sets.py",
        '    return sorted({_ACTION.sub("", _plain(item.error)) for item in errors})  # Cedar\'s own order is any',
        "    return []",
        SETS,
    ),
    Mutant(
        "a name may be taken twice",
        "policies/sets.py",
        "    if twin is not None:",
        "    if twin is statement:",
        SETS,
    ),
    Mutant(
        "a set with problems is used without what is wrong",
        "policies/sets.py",
        "    if problems:\n        return None, tuple(problems)",
        "    if not found:\n        return None, tuple(problems)",
        SETS,
    ),
    Mutant(
        "a version says nothing of what files hold",
        "policies/sets.py",
        "        for part in (name, texts[name]):",
        "        for part in (name,):",
        SETS,
    ),
    Mutant(
        "files are run together in a version",
        "policies/sets.py",
        '            hashed.update(len(raw).to_bytes(8, "big") + raw)',
        "            hashed.update(raw)",
        SETS,
    ),
    Mutant(
        "links lead out of the directory",
        "policies/sets.py",
        "        if not real.is_relative_to(root):",
        "        if not real.exists():",
        FILES,
    ),
    Mutant(
        "everybody may write policies",
        "policies/sets.py",
        "    if found.st_mode & stat.S_IWOTH:",
        "    if found.st_mode < 0:",
        FILES,
    ),
    Mutant(
        "groups of all issuers are one",
        "policies/model.py",
        '    groups = [{"type": "Group", "id": f"{issuer}#{group}"} for group in subject.groups]',
        '    groups = [{"type": "Group", "id": group or issuer} for group in subject.groups]',
        MODEL,
    ),
    Mutant(
        "everything is approved",
        "policies/model.py",
        '        "approval": question.approval is not None,',
        '        "approval": True,',
        MODEL,
    ),
    Mutant(
        "everybody is attested",
        "policies/model.py",
        '        "attested": question.binding.identity is not None,',
        '        "attested": True,',
        MODEL,
    ),
    Mutant(
        "all columns look like none",
        "policies/model.py",
        'listed.get(table, ("*",))]',
        "listed.get(table, ())]",
        MODEL,
    ),
    Mutant(
        "a workload is a human",
        "policies/model.py",
        '    return {"type": "Workload" if subject.acr == WORKLOAD else "Human", "id": subject.sub}',
        '    return {"type": "Human", "id": subject.sub}',
        MODEL,
    ),
    Mutant(
        "a policy widens the bound of a resource",
        "broker/policy.py",
        "        return await self._parts(question, self.deciding) if bounded.allowed else bounded",
        "        return await self._parts(question, self.deciding) if question else bounded",
        CEILING,
    ),
    Mutant(
        "a denial is no refusal",
        "broker/policy.py",
        "        if decision.allowed:\n            return decision\n",
        "        if decision:\n            return decision\n",
        CEILING,
    ),
    Mutant(
        "leases are issued whatever is decided",
        "broker/leases.py",
        'self.policy.enforce(self.policy.question(task.head, grant, "issue", (detail,)), principal)',
        'self.policy.decided(self.policy.question(task.head, grant, "issue", (detail,)))',
        CEILING,
    ),
    Mutant(
        "leases are renewed whatever is decided",
        "broker/leases.py",
        'self.policy.enforce(self.policy.question(task.head, grant, "renew", (detail,)), principal)',
        'self.policy.decided(self.policy.question(task.head, grant, "renew", (detail,)))',
        CEILING,
    ),
    Mutant(
        "a reload answers before anything has ended",
        "broker/policy.py",
        '        return await self.redecide("the policy changed")',
        '        self._due = "the policy changed"\n        return 0',
        CHANGES,
    ),
    Mutant(
        "a reload decides by the old policy",
        "broker/policy.py",
        '        self.deciding = decide\n        return await self.redecide("the policy changed")',
        '        n = await self.redecide("the policy changed")\n        self.deciding = decide\n        return n',
        CHANGES,
    ),
    Mutant(
        "a policy holds before it is on record",
        "broker/policy.py",
        "        await self.note(operator, version)\n        self.deciding = decide\n",
        "        self.deciding = decide\n        await self.note(operator, version)\n",
        COMPOSED,
    ),
    Mutant(
        "roots alone are decided anew",
        "broker/policy.py",
        "                    waiting.extend(self._tasks.task(task_id).children.get(grant.id, ()))",
        "                    pass",
        CHANGES,
    ),
    Mutant(
        "the first details of a grant stand for all",
        "broker/policy.py",
        "        for at in range(0, len(details), BREATH):",
        "        for at in range(0, min(len(details), 1), BREATH):",
        ROUNDS,
    ),
    Mutant(
        "what was decided by what decides no more is applied",
        "broker/policy.py",
        "if i.by == deciders and task",
        "if task",
        ROUNDS,
    ),
    Mutant(
        "what is undecided after a start is served",
        "broker/tasks.py",
        "        if live.task in self.unserved.undecided or",
        "        if live.task == self.unserved.undecided or",
        ROUNDS,
    ),
    Mutant(
        "a change of one resource stands for a round that failed",
        "broker/policy.py",
        "            name = about if self._due is None else None",
        "            name = about",
        ROUNDS,
    ),
    Mutant(
        "leases are not decided anew",
        "broker/policy.py",
        "            ended += await self._end_leases(task_id, names[at : at + BREATH], cause)",
        "            assert at >= 0",
        CHANGES,
    ),
    Mutant(
        "a round that failed is forgotten",
        "broker/policy.py",
        "        if self._due is not None and not self._one.locked():",
        "        if self._due == ():",
        CHANGES,
    ),
    Mutant(
        "a task that is read again meanwhile escapes",
        "broker/tasks.py",
        "        return [*{**self._tasks, **dict.fromkeys((*self._away, *self._unread))}]",
        "        return [*self._tasks]",
        CHANGES,
    ),
    Mutant(
        "a failed commit under a reload is not tried again",
        "broker/policy.py",
        TRIED,
        f"{TRIED}            return 0\n",
        CHANGES,
    ),
    Mutant(
        "a restart does not decide anew",
        "broker/broker.py",
        '        await self.policy.redecide("not allowed any more at the start", visit=False)',
        "        pass",
        CHANGES,
    ),
    Mutant(
        "bad policies leave everything to the owner",
        "compose/policy.py",
        "        return self.current or (lambda _: UNREADABLE)",
        "        return self.current or policy.within_bounds",
        COMPOSED,
    ),
    Mutant(
        "the last good policies are those of the start",
        "compose/policy.py",
        "                    self._keep(fresh)  # not earlier",
        "                    pass  # not earlier",
        COMPOSED,
    ),
    Mutant(
        "what is shown is not what decides",
        "compose/policy.py",
        "                if self.broker.policy.deciding is fresh:",
        "                if self.broker.policy.deciding is None:",
        COMPOSED,
    ),
]
