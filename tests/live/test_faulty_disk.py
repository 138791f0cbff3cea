"""Revoking while the disk fails: a small tmpfs in a mount namespace, a real lock, a broker that is killed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
UNRECORDED = ("full", "full and stalled", "locked", "fsync", "read-only")


def played(place: Path, fault: str) -> dict[str, Any]:
    """Return what a broker did on a file system that fails, and the next one on what it left."""
    command = ["unshare", "-rm", sys.executable, "-m", "tests.live.faulty_disk_driver", str(place), fault]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.attack("REV-07")
@pytest.mark.parametrize("fault", [*UNRECORDED, "no names", "stalled"])
def test_a_revoke_ends_what_works_at_the_target_in_time_and_outlives_the_broker(tmp_path: Path, fault: str) -> None:
    seen = played(tmp_path, fault)
    assert (seen["before"], seen["live"], seen["check"]) == (3, 0, "revoked")
    assert seen["seconds"] < 5
    assert seen["recorded"] is (fault not in UNRECORDED)
    assert seen["state"] == ("closed" if fault == "no names" else "partial")
    if fault in UNRECORDED:
        assert seen["open"] == "unavailable"
    assert seen["again"] == {"restarted": "revoked", "other": None, "stored": True, "noted": []}
