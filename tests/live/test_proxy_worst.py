"""The worst agent behind its run's proxy, as root and as nobody: no secret comes out, no packet leaves its network."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.live.worst_scene import SERVED, check_harmless, everybody, scene, skip_unless_able, worst

pytestmark = [pytest.mark.live, pytest.mark.slow]


@pytest.mark.attack("LAU-02")
@pytest.mark.attack("DST-03")
@pytest.mark.parametrize("who", everybody())
def test_an_agent_that_obeys_a_document_gets_nothing_out_by_its_proxy(who: int, tmp_path: Path) -> None:
    skip_unless_able(who)
    with scene(tmp_path, who) as here:
        resources = [word for name in SERVED for word in ("-r", name)]
        check_harmless(here, worst(here, "--depth", "2", *resources))
