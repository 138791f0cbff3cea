"""The client library, imported when a command first speaks to the broker: httpx takes longer than ``--help`` may."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from remit.sdk import admin, asking, client, login, place, session, verbs

__all__ = ["admin", "asking", "client", "login", "place", "session", "verbs"]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(name)
    return import_module(f"remit.sdk.{name}")
