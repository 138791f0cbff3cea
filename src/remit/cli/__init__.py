"""The command line: parse, call, render. One file a noun; no logic."""

from __future__ import annotations

from remit.cli.entry import main

__all__ = ["main"]
