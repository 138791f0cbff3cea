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
from remit.identity.humans import MAX_GROUPS
from remit.policies import sets
from remit.policies.sets import CedarPolicies
from tests.support.measured import best
from tests.support.worst import pairs

BOUND = 0.005  # seconds: docs/explanation/limits.md says what policies it is of
MOST = 0.010  # with as many policies as are read, and a human in as many groups as are believed
POLICIES = """@id("p%d")
permit(principal in Group::"https://idp.test#g%d", action, resource)
when { context.purpose like "*x*" && context.detail has paths && context.detail.paths.containsAny([%s]) };
"""


def _texts(count: int, paths: int) -> str:
    return "".join(
        POLICIES % (number, number, ",".join(f'"/v{number}/**"' for number in range(paths))) for number in range(count)
    )


def _human(groups: int) -> Subject:
    return Subject("https://idp.test#alice", "mfa", groups=tuple(f"g{number}" for number in range(groups)))


def _asked(policies: CedarPolicies, question: Question) -> float:
    policies._remembered.clear()
    sets._entities.cache_clear()
    before = time.thread_time()
    policies(question)
    return time.thread_time() - before


@pytest.mark.slow
@pytest.mark.attack("DOS-09")
@pytest.mark.parametrize(
    ("count", "paths", "groups", "bound"),
    [(100, 1, 50, BOUND), (660, 1, MAX_GROUPS, MOST), (110, 90, MAX_GROUPS, MOST)],
)
def test_no_part_of_a_question_takes_the_policies_long(count: int, paths: int, groups: int, bound: float) -> None:
    text = _texts(count, paths)
    assert bound == BOUND or sets.MAX_ALL * 0.9 < len(text) < sets.MAX_ALL
    policies, problems = sets.read({"all.cedar": text})
    assert policies is not None, problems
    binding, costs = Binding(claims=tuple((f"c{number}", "v" * 100) for number in range(10))), list[tuple[float, str]]()
    for shape, pair in [each for kind in sorted(TYPES) for each in pairs(kind)]:
        first = next(iter(_slices(pair.child)))
        question = Question(_human(groups), "x" * 2_000, pair.child[first], binding=binding, whole=pair.child)
        costs.append((best(partial(_asked, policies, question), bound), shape))
    sys.stdout.write(f"\nthe dearest question: {max(costs)[0] * 1000:.1f} ms, {max(costs)[1]}\n")
    assert max(costs)[0] <= bound, max(costs)
