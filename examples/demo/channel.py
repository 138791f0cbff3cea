"""How an agent of the demo uses its channel: lease a database login, run a sub-agent with less than it has itself."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def dsn(resource: str, detail: Mapping[str, object]) -> str:
    """Return how to connect to a database: a lease of this task, or what the environment holds."""
    if not os.environ.get("REMIT_SOCKET"):
        return os.environ[f"{resource.upper()}_URL"]
    from remit import sdk

    credential: str = sdk.current().lease(detail).credential.dsn
    return credential


def program() -> str:
    """Return the path of remit's own command."""
    return str(Path(sys.prefix, "bin", "remit"))


def delegated(
    role: str, details: Sequence[Mapping[str, object]], command: list[str], env: Mapping[str, str]
) -> list[str]:
    """Return the command that runs ``command`` under a grant of its own, which may delegate once more."""
    named = [part for name, value in env.items() for part in ("--env", f"{name}={value}")]
    bounds = ["--depth", "1", "--fan-out", "2", "--grant-detail", json.dumps(details)]
    return [program(), "run", "--label", role, *bounds, *named, "--", *command]
