"""The broker itself: up, and the demo."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import typer

from remit.cli import options

if TYPE_CHECKING:
    from remit.compose.settings import Settings


def up() -> None:
    """Start the broker and stay in the foreground, until interrupted.

    \b
    Examples:
      remit up
      REMIT_STATE_DIR=/srv/remit remit up
    """
    from remit.compose.settings import load
    from remit.compose.up import up as serve

    settings = load(os.environ)
    serve(settings, lambda: _ready(settings))


def _ready(settings: Settings) -> None:
    where = settings.places
    sys.stderr.write(f"remit is up: control socket {where.control}\n")
    for name, address in (("api", settings.api), ("gateway", settings.gateway)):
        if address is not None:
            sys.stderr.write(f"  {name} on {address[0]}:{address[1]}\n")
    sys.stderr.flush()


def demo(json: options.Json = False) -> None:
    """Run one task on real servers: first with keys in the environment, then under remit.

    \b
    Examples:
      remit demo
      remit demo --json
    """
    from remit import demo as shown

    raise typer.Exit(shown.main(json))
