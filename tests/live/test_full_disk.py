"""Revoking on a disk that is really full: a small tmpfs, in a mount namespace of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def played(place: Path, room: str) -> dict[str, Any]:
    """Return what a broker on a full disk did."""
    command = ["unshare", "-rm", sys.executable, "-m", "tests.live.full_disk_driver", str(place), room]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.attack("REV-07")
@pytest.mark.parametrize("room", ["kept", "used", "eaten"])
def test_a_revoke_on_a_full_disk_ends_what_works_at_the_target_and_is_never_taken_back(
    tmp_path: Path, room: str
) -> None:
    seen = played(tmp_path, room)
    assert (seen["use"], seen["before"]) == ("unavailable", 3)
    assert (seen["live"], seen["check"], seen["use after"], seen["open"]) == (0, "revoked", "revoked", "unavailable")
    assert (seen["recorded"], seen["stored"]) == ((False, False) if room == "used" else (True, True))
    assert seen["state"] == ("partial" if room == "used" else "closed")
    assert seen["restarted"] == "revoked"
