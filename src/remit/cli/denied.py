"""A denial by policy, and the command that shows its operator what decided."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from remit.errors import RemitError
    from remit.sdk._wire import Flow

LAST = 20  # entries to look through: other denials may have come since


def pointed(error: RemitError) -> RemitError:
    """Have a denial that policies decided name its entry in the audit log, where that is ours to read."""
    from remit.cli.connect import ask
    from remit.errors import RemitError

    if error.code != "policy" or "--entry" not in (error.help or "") or os.environ.get("REMIT_GRANT"):
        return error
    try:
        entry = next((item for item in reversed(ask(_last())) if _is(item, error)), None)
    except RemitError:
        return error
    if entry is not None:
        error.help = f"`remit policy explain --entry {entry['seq']}` shows what decided"
    return error


def _is(entry: Mapping[str, Any], error: RemitError) -> bool:
    return bool(entry["code"] == error.code and entry["cause"] == error.detail)


def _last() -> Flow[list[dict[str, Any]]]:
    from remit.sdk import verbs

    size = (yield from verbs.audit())["size"]
    return (yield from verbs.entries(max(0, size - LAST), LAST))
