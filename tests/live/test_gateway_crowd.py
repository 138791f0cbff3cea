"""A run that opens connections without end, against a process with few descriptors."""

from __future__ import annotations

import json
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.live
CROWD = 1_000


@contextmanager
def descriptors(needed: int) -> Iterator[None]:
    """Let this process have as many as the test takes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(needed, hard)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connect_idle(stack: ExitStack, port: int) -> None:
    """Open idle connections, as many as are taken."""
    for _ in range(CROWD):
        with suppress(OSError):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))


@pytest.mark.slow
def test_a_crowd_of_idle_connections_leaves_the_operator_able_to_look_and_to_revoke(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.live.crowd_driver", str(tmp_path / "s")]
    with (
        descriptors(3 * CROWD),
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,
        ExitStack() as stack,
    ):
        assert process.stdout is not None
        control, task, grant, gateway, channel = json.loads(process.stdout.readline())
        connect_idle(stack, gateway)
        connect_idle(stack, channel)
        transport = httpx.HTTPTransport(uds=control)
        with httpx.Client(transport=transport, base_url="http://control", timeout=10) as operator:
            assert operator.get(f"/v1/tasks/{task}").status_code == 200
            revoked = operator.post(f"/v1/tasks/{task}/grants/{grant}/revoke")
            assert revoked.json()["revoked"] == 1
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(20) == 0
