"""Conversations with the broker that this environment names."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

from remit.cli import sdk
from remit.errors import RemitError

if TYPE_CHECKING:
    from remit.sdk._wire import Flow

T = TypeVar("T")
LAST = 20  # audit entries to look through for a denial: others may have come since


def ask(flow: Flow[T]) -> T:
    """Run a flow and return its result."""
    with sdk.client.Client() as client:
        return client.run(flow)


def pointed(error: RemitError) -> RemitError:
    """Have a denial that policies decided name its entry in the audit log, where that is ours to read."""
    if error.code != "policy" or "--entry" not in (error.help or "") or os.environ.get("REMIT_GRANT"):
        return error
    try:
        entries = ask(_last_entries())
    except RemitError:
        return error
    for entry in reversed(entries):
        if entry["code"] == error.code and entry["cause"] == error.detail:
            error.help = f"`remit policy explain --entry {entry['seq']}` shows what decided"
            break
    return error


def _last_entries() -> Flow[list[dict[str, Any]]]:
    size = (yield from sdk.verbs.audit())["size"]
    return (yield from sdk.verbs.entries(max(0, size - LAST), LAST))
