"""The first half: the same agents with what agents have today, keys in environment variables."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from examples.demo.columns import Column, observe, replay
from examples.demo.house import brought
from examples.demo.world import APIS, World

PATIENCE = 1.5  # seconds that an agent goes on for when nobody can stop it


def environment(world: World, home: Path) -> dict[str, str]:
    """Return an environment with standing keys, and nothing of the person who runs the demo."""
    keys = {f"{name.upper()}_API_KEY": world.services[name].key for name in APIS}
    urls = {f"{name.upper()}_BASE_URL": world.services[name].url for name in APIS}
    return {
        **keys,
        **urls,
        "WAREHOUSE_URL": world.dsn("app", world.app_password),
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "TMPDIR": str(home),
        "DEMO_PATIENCE": str(PATIENCE),
    }


def run(world: World) -> Column:
    """Run the task, count, and replay what leaked."""
    home = world.folder / "baseline"
    home.mkdir()
    brought(home)
    world.plant(sockets=())
    command = [sys.executable, "-m", "examples.demo.agents", "orchestrator"]
    done = subprocess.run(
        command, cwd=home, env=environment(world, home), stdout=subprocess.PIPE, check=False, timeout=60
    )
    ended = time.monotonic()
    column = Column()
    lines = done.stdout.splitlines()
    observe(column, world, lines)
    replay(column, world, lines)
    # There is nothing to revoke but the keys of everybody. What is accepted once the task is over is counted.
    column.accepted_after_revoke = sum(world.services[name].accepted_since(ended) for name in APIS)
    return column
