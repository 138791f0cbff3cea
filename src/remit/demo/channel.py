"""How an agent of the demo uses its channel: lease a database login, run a sub-agent with less than it has itself."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence


def dsn(resource: str, detail: Mapping[str, object]) -> str:
    """Return how to connect to a database: a lease of this task, or what the environment holds."""
    if not os.environ.get("REMIT_SOCKET"):
        return os.environ[f"{resource.upper()}_URL"]
    raise NotImplementedError(detail)


def delegated(role: str, details: Sequence[Mapping[str, object]], command: list[str]) -> list[str]:
    """Return the command that runs ``command`` under a grant of its own."""
    return ["remit", "run", "--label", role, "--details", json.dumps(details), "--", *command]
