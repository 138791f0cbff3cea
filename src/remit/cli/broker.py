"""The broker itself: up, doctor, and the demo."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path

import typer

from remit.cli import options
from remit.cli.render import Table, answer
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


def doctor(json: options.Json = False) -> None:
    """Look at all that a broker rests on, and say what to do about what is not as it should be.

    File modes, keys, policies, the TLS certificate, issuers and trust domains, namespaces, the clock, the log, the
    broker that is up and its databases. Issuers and trust domains are asked, each for a few seconds at most.

    Exits with 1 when something is wrong; a warning is what remit works with, and cannot promise everything under.

    \b
    Examples:
      remit doctor
      remit doctor --json
    """
    from remit.compose.doctor import examine

    found = examine(os.environ)
    bad = any(one.level == "wrong" for one in found)
    shown = [{name: value for name, value in asdict(one).items() if value} for one in found]
    helps = [f"{one.name}: {one.help}" for one in found if one.help and one.level != "good"]
    rows = Table(("level", "what", "finding"), [(one.level, one.name, one.text) for one in found])
    answer(json, {"findings": shown, "healthy": not bad}, rows, *helps)
    raise typer.Exit(int(bad))


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
