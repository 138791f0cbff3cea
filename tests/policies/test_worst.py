"""What the dearest question costs the loop at one go: 5 ms with policies as they are written for a company."""

from __future__ import annotations

import sys
import time
from functools import partial

import pytest

from remit.broker.policy import _slices
from remit.core.policy import Question
from remit.core.request import Binding
from remit.core.scope import TYPES
from remit.core.task import Subject
from remit.policies import sets
from remit.policies.sets import CedarPolicies
from tests.support.measured import best
from tests.support.worst import pairs

BOUND = 0.005  # seconds: docs/explanation/limits.md says what policies it is of
POLICIES = 20
TEXT = "".join(
    f'@id("p{number}")\npermit(principal in Group::"https://idp.test#g{number}", action, resource) when '
    f'{{ context.purpose like "*a{number}*" && context.detail has paths && '
    'context.detail.paths.containsAny(["/v1/**"]) };\n'
    for number in range(POLICIES)
)
ALICE = Subject("https://idp.test#alice", "mfa", groups=tuple(f"g{number}" for number in range(50)))


def _asked(policies: CedarPolicies, question: Question) -> float:
    policies._remembered.clear()
    sets._entities.cache_clear()
    before = time.thread_time()
    policies(question)
    return time.thread_time() - before


@pytest.mark.slow
@pytest.mark.attack("DOS-09")
def test_no_part_of_a_question_takes_the_policies_long() -> None:
    policies, problems = sets.read({"all.cedar": TEXT})
    assert policies is not None, problems
    binding, costs = Binding(claims=tuple((f"c{number}", "v" * 100) for number in range(10))), list[tuple[float, str]]()
    for shape, pair in [each for kind in sorted(TYPES) for each in pairs(kind)]:
        first = next(iter(_slices(pair.child)))
        question = Question(ALICE, "x" * 2_000, pair.child[first], binding=binding, whole=pair.child)
        costs.append((best(partial(_asked, policies, question), BOUND), shape))
    sys.stdout.write(f"\nthe dearest question: {max(costs)[0] * 1000:.1f} ms, {max(costs)[1]}\n")
    assert max(costs)[0] <= BOUND, max(costs)
