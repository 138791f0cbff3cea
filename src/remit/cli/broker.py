"""The broker itself: up, and the demo."""

from __future__ import annotations

import os

import typer

from remit.cli import options


def up() -> None:
    """Start the broker and stay in the foreground, until interrupted.

    \b
    Examples:
      remit up
      REMIT_STATE_DIR=/srv/remit remit up
    """
    from remit import compose
    from remit.compose.settings import load

    raise typer.Exit(compose.up(load(os.environ)) or 0)


def demo(json: options.Json = False) -> None:
    """Run one task on real servers: first with keys in the environment, then under remit.

    \b
    Examples:
      remit demo
      remit demo --json
    """
    from remit import demo as shown

    raise typer.Exit(shown.main(json))
