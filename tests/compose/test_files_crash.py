"""kill -9 before each step with a file of the state: what was said holds, and nothing comes back."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DRIVER = """
import sys; from pathlib import Path; from tests.support.kinds import register
register()
from tests.compose.files_crash_driver import main
main(Path(sys.argv[1]))
"""
OLD, NEW = ["all"], ["all", "no-mail"]


@pytest.mark.attack("CRA-01")
def test_no_step_at_which_a_broker_dies_brings_older_policies_or_an_ended_grant_back(tmp_path: Path) -> None:
    command = [sys.executable, "-c", DRIVER, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stderr
    seen = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(seen) > 6
    assert [each["status"] for each in seen] == [-signal.SIGKILL] * (len(seen) - 1) + [0]
    for each in seen:
        assert each["starts"] == [0, 0], each
        assert each["signs"] is True
        mail, search = each["live"]
        assert each["policies"] in ([NEW] if "reload" in each["said"] else [OLD, NEW])
        assert mail is (each["policies"] == OLD)
        assert search or "rotate" in each["said"]
        assert not (search and "revoke" in each["said"])
