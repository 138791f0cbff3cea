"""The suite's checks of a server: what an upstream passes alone it passes behind the gateway, check by check."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest

from tests.conformance.conftest import REVISIONS, UPSTREAMS, Scores
from tests.conformance.suite import PAGE, row

pytestmark = pytest.mark.live
LEAST = {"2025-11-25": 84, "2026-07-28": 145}  # checks that each upstream passes: those of the suite were really run


@pytest.mark.parametrize(("kind", "revision"), list(product(UPSTREAMS, REVISIONS)))
def test_an_upstream_scores_behind_the_gateway_what_it_scores_alone(scores: Scores, kind: str, revision: str) -> None:
    alone, through = scores[kind, revision, "alone"], scores[kind, revision, "gateway"]
    assert Counter(alone.values())["SUCCESS"] >= LEAST[revision]
    passed = {name for name, status in alone.items() if status == "SUCCESS"}
    assert {name: through.get(name) for name in passed if through.get(name) != "SUCCESS"} == {}
    assert {name for name, status in through.items() if status == "FAILURE" and alone.get(name) != "FAILURE"} == set()


def test_the_page_says_what_each_scores(scores: Scores) -> None:
    page = PAGE.read_text("utf-8")
    for kind, revision in product(UPSTREAMS, REVISIONS):
        said = (Counter(scores[kind, revision, way].values()) for way in ("alone", "gateway"))
        numbers = (f"{counted['SUCCESS']} pass, {counted['FAILURE']} fail" for counted in said)
        assert row(kind, revision, *numbers) in page
