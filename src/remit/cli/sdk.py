"""The client library, imported when the first command asks the broker: httpx takes longer than ``--help`` may."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from remit.errors import RemitError

if TYPE_CHECKING:
    from remit.sdk import admin, asking, login, place, session, verbs
    from remit.sdk._wire import Flow

__all__ = ["admin", "ask", "asking", "login", "place", "pointed", "session", "verbs"]

T = TypeVar("T")
NO_RESOURCE = re.compile(r"there is no resource `(.+)`")
LAST = 20  # audit entries to look through for a denial: others may have come since


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(name)
    return import_module(f"remit.sdk.{name}")


def ask(flow: Flow[T], *, start: bool = True) -> T:
    """Run a flow and return its result; the operator's own broker is started for it, unless one serves the state."""
    from remit.sdk.client import Client

    if start and not os.environ.get("REMIT_GRANT") and not os.environ.get("REMIT_SOCKET"):
        from remit.compose.embedded import ensure

        ensure(os.environ)
    with Client() as client:
        return client.run(flow)


def pointed(error: RemitError) -> RemitError:
    """Have a denial that policies decided name its entry in the audit log, and a wrong name the one that was meant.

    Both where that is ours to read.
    """
    wrong = NO_RESOURCE.fullmatch(error.detail)
    if wrong is not None and not os.environ.get("REMIT_GRANT"):
        from remit.sdk.detail import meant

        with suppress(RemitError):
            known = ask(import_module("remit.sdk.verbs").resources())
            error.help = meant(wrong[1], [str(one["resource"]) for one in known]) or error.help
        return error
    if error.code != "policy" or "--entry" not in (error.help or "") or os.environ.get("REMIT_GRANT"):
        return error
    try:
        entries = ask(_last_entries())
    except RemitError:
        return error
    same = [entry["seq"] for entry in entries if (entry["code"], entry["cause"]) == (error.code, error.detail)]
    if same:
        error.help = f"`remit policy explain --entry {same[-1]}` shows what decided"
    return error


def _last_entries() -> Flow[list[dict[str, Any]]]:
    from remit.sdk import verbs

    size = (yield from verbs.audit())["size"]
    return (yield from verbs.entries(max(0, size - LAST), LAST))
