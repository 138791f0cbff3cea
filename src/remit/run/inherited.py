"""The variables of a run, where a client hands few of them on: clients start MCP servers with `HOME` and `PATH` alone.

Whoever is in a run descends from its first command, which has them. They are names, and prove nothing: the socket does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

MOST = 64  # steps up
_PARENT = re.compile(rb"^PPid:\s*(\d+)$", re.MULTILINE)


def completed(environ: Mapping[str, str], proc: Path = Path("/proc")) -> dict[str, str]:
    """Return the variables that an environment lacks and the nearest ancestor with a run's has; none outside a run.

    None, too, where the environment names a grant, a socket, or a state that is there: it means these.
    """
    state = environ.get("REMIT_STATE_DIR")
    if environ.get("REMIT_GRANT") or environ.get("REMIT_SOCKET") or (state and Path(state).is_dir()):
        return {}
    pid = "self"
    for _ in range(MOST):
        try:
            above = _PARENT.search((proc / pid / "status").read_bytes())
            pid = above[1].decode() if above else "0"
            found = _variables((proc / pid / "environ").read_bytes()) if int(pid) else {}
        except OSError:  # another user's, or it is gone
            return {}
        if not int(pid):
            return {}
        if found.get("REMIT_GRANT") and found.get("REMIT_SOCKET"):
            return {name: value for name, value in found.items() if name not in environ}
    return {}


def _variables(block: bytes) -> dict[str, str]:
    """Return the variables of a process, as Linux keeps them: ``NAME=value``, each ended by NUL."""
    entries = (os.fsdecode(each).partition("=") for each in block.split(b"\0") if b"=" in each)
    return {name: value for name, _, value in entries}
