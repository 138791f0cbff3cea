"""The broker itself: up, and the demo."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from remit.cli import options
from remit.errors import NotFoundError


def up(json: options.Json = False) -> None:
    """Start the broker and stay in the foreground, until interrupted.

    \b
    Examples:
      remit up
      remit up --json                            (one line, when everything listens)
      REMIT_STATE_DIR=/srv/remit remit up
    """
    from remit.compose.up import foreground

    foreground(as_json=json)


def demo(json: options.Json = False) -> None:
    """Run one task on real servers: first with keys in the environment, then under remit.

    \b
    Examples:
      remit demo
      remit demo --json
    """
    root = Path(__file__).parents[3]
    if not (root / "examples" / "demo").is_dir():
        raise NotFoundError(
            "the demo is in a clone of remit's repository, not in its package", help="clone it: make demo"
        )
    sys.path.insert(0, str(root))
    from examples import demo as shown

    raise typer.Exit(shown.main(json))
