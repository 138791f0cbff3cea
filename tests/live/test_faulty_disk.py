"""Ends of a whole broker on a small tmpfs that is full or fails, with a real lock, or a second place that hangs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from remit.core import scope
from tests.live.faulty_disk_driver import LIBRARY
from tests.live.warehouse import warehouse
from tests.peers import require

pytestmark = [pytest.mark.live, pytest.mark.timeout(240)]
ROOT = Path(__file__).parents[2]
UNRECORDED = ("full", "full and stalled", "locked", "fsync", "read-only")


def built(place: Path) -> None:
    """Build the library that has a disk fail."""
    source = Path(__file__).with_name("faulty_disk.c")
    subprocess.run([require("cc"), "-shared", "-fPIC", "-o", place / LIBRARY, source], check=True)


@pytest.mark.attack("REV-07")
@pytest.mark.parametrize("fault", [*UNRECORDED, "no names", "stalled"])
def test_an_end_is_made_at_the_target_in_time_and_outlives_the_broker(tmp_path: Path, fault: str) -> None:
    built(tmp_path)
    (tmp_path / "disk").mkdir()
    command = ["unshare", "-rm", sys.executable, "-m", "tests.live.faulty_disk_driver", str(tmp_path / "disk"), fault]
    with warehouse() as house:
        store, detail = house.resource, scope.dump((house.detail(),))[0]
        resource = {
            "kind": "postgres",
            "destination": store.destination,
            "bound": scope.dump(store.bound),
            "settings": {**store.settings, "accept": ["public-connect", "public-temp"]},
            "secret": house.password,
        }
        told = json.dumps({"resource": resource, "detail": detail})
        done = subprocess.run(command, cwd=ROOT, input=told, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    _in_time(fault, seen)
    assert seen["again"] == {"root": fault != "read-only", "other": False, "recorded": True, "status": 0}


def _in_time(fault: str, seen: dict[str, Any]) -> None:
    assert seen["before"] == 3
    assert seen["gone"] < 5
    assert seen["ended"] is True
    assert seen["seconds"] < 5
    states = {"closed"} if fault == "no names" else {"partial"}
    states |= {"unknown"} if fault.startswith("full") else set()  # of who reached the target and was killed
    assert seen["report"]["state"] in states, seen
    assert seen["write"] == ("unavailable" if fault in UNRECORDED else None)
