"""The suite's checks of a client that wants a token, at the gateway: remit is the client, the agent has none."""

from __future__ import annotations

import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping

import pytest

from tests.conformance import suite
from tests.conformance.conftest import broker
from tests.conformance.gateway_client import driven
from tests.conformance.suite import HERE, PAGE, Statuses, row
from tests.support.postgres_server import free_port

pytestmark = pytest.mark.live
SUITES = (("auth", "2025-11-25"), ("auth", "2026-07-28"), ("draft", "2026-07-28"), ("backcompat", "2025-03-26"))
REASONS = tomllib.loads((HERE / "reasons.toml").read_text("utf-8"))
SCENARIOS = {"auth": 14, "draft": 11, "backcompat": 2}  # that are about authorization

Scores = Mapping[tuple[str, str], Statuses]


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scores]:
    folder, out = tmp_path_factory.mktemp("c"), tmp_path_factory.mktemp("out")
    at = [f'{name} = "127.0.0.1:{free_port()}"' for name in ("api", "gateway")]
    with broker(folder, ["[listen]", *at]) as here, driven(here.environ()) as port:
        command = f"{sys.executable} -I -S {HERE / 'drive.py'} {port}"

        def scored(leg: tuple[str, str]) -> Statuses:
            name, revision = leg
            to = out / f"{name}-{revision}"
            suite.run(
                suite.command(
                    "client",
                    "--command",
                    command,
                    "--suite",
                    name,
                    "--spec-version",
                    revision,
                    "--timeout",
                    "90000",
                    "-o",
                    str(to),
                )
            )
            found = suite.statuses(to)
            return {check: status for check, status in found.items() if check.startswith("auth/")}

        yield {leg: scored(leg) for leg in SUITES}  # one after the other: each runs all of its scenarios at once


@pytest.mark.parametrize("leg", SUITES)
def test_the_gateway_passes_every_check_that_is_not_listed_with_a_reason(scores: Scores, leg: tuple[str, str]) -> None:
    found = scores[leg]
    assert len({check.partition(" ")[0] for check in found}) == SCENARIOS[leg[0]]
    failed = {check for check, status in found.items() if status not in {"SUCCESS", "INFO"}}
    assert failed == {check for check in REASONS["checks"] if check in found}


def test_every_reason_is_about_a_check_there_is(scores: Scores) -> None:
    assert set(REASONS["checks"]) <= {check for found in scores.values() for check in found}


def test_the_page_says_what_passes_and_why_the_rest_does_not(scores: Scores) -> None:
    page = PAGE.read_text("utf-8")
    for (name, revision), found in scores.items():
        counted = Counter(found.values())
        failed = counted["FAILURE"] + counted["WARNING"] + counted["SKIPPED"]
        assert row(name, revision, f"{counted['SUCCESS']} pass, {failed} fail") in page
    for reason in (*REASONS["checks"].values(), *REASONS["suites"].values()):
        assert reason in page or reason == "as above"
