"""A real broker that was started at a terminal: none of its workers has a descriptor of it."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest

from tests.live.terminal import COMMAND, PATIENCE, Terminal, configure

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]


def leads(pid: int) -> set[str]:
    return {str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()}


def test_no_worker_can_read_what_is_typed_at_the_terminal(tmp_path: Path) -> None:
    configure(tmp_path, ["[listen]", 'api = "off"', 'gateway = "off"'])
    here = Terminal(tmp_path, "https://idp.test")
    ours, theirs = pty.openpty()
    name = os.ttyname(theirs)
    with subprocess.Popen([*COMMAND, "up"], cwd=tmp_path, env=here.environ(), stdout=theirs, stderr=theirs) as broker:
        os.close(theirs)
        try:
            with os.fdopen(os.dup(ours), "rb") as terminal:
                assert b"remit is up" in terminal.readline()
            told = here.told("status")
            pids = {each["name"]: each["pid"] for each in told["processes"]}
            assert any(kind.startswith("edge") for kind in pids)
            held = {kind: name in leads(pid) for kind, pid in pids.items()}
            assert held.pop("authority")  # its log goes there
            held.pop("supervisor", None)
            assert not any(held.values()), held
        finally:
            broker.terminate()
            broker.wait(PATIENCE)
            os.close(ours)
