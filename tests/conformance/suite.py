"""The published conformance suite of MCP, and what it says: a status for each check of each scenario."""

from __future__ import annotations

import json
import re
import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.live.idp import NODE, PEERS

HERE = Path(__file__).parent
SUITE = PEERS / "node_modules" / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
PAGE = HERE.parents[1] / "docs" / "reference" / "mcp-conformance.md"
PATIENCE = 300  # seconds for a suite
WORST = ("FAILURE", "WARNING", "SKIPPED", "INFO", "SUCCESS")  # ids repeat within a scenario: the worst counts
_KIND = re.compile(r"^(?:authorization-server-(?=authorization)|server-)")
_WHEN = re.compile(r"-\d{4}-\d\d-\d\dT[\dZ-]+$")  # that a scenario was run

Statuses = Mapping[str, str]  # "scenario check" -> status


def command(*words: str) -> list[str]:
    return [str(NODE), str(SUITE), *words]


def statuses(folder: Path) -> Statuses:
    """Return what the suite has written."""
    found = defaultdict(list)
    for path in folder.rglob("checks.json"):
        scenario = _KIND.sub("", _WHEN.sub("", path.parent.relative_to(folder).as_posix()))
        for check in json.loads(path.read_text("utf-8")):
            found[f"{scenario} {check['id']}"].append(check["status"])
    return {name: min(said, key=WORST.index) for name, said in sorted(found.items())}


def run(words: Sequence[str], **more: object) -> str:
    """Run a suite to its end; return what it printed."""
    done = subprocess.run(  # type: ignore[call-overload]
        words, capture_output=True, text=True, timeout=PATIENCE, check=False, **more
    )
    return str(done.stdout + done.stderr)


def row(*cells: str) -> str:
    """Return a row of a table as the page has it."""
    return f"| {' | '.join(cells)} |"
