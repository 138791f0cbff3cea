"""The broker itself: up, and the demo."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from remit.cli import options
from remit.cli.render import emit
from remit.errors import NotFoundError

if TYPE_CHECKING:
    from remit.compose.settings import Settings


def up(json: options.Json = False) -> None:
    """Start the broker and stay in the foreground, until interrupted.

    \b
    Examples:
      remit up
      remit up --json                            (one line, when everything listens)
      REMIT_STATE_DIR=/srv/remit remit up
    """
    from remit.compose.settings import load
    from remit.compose.up import up as serve

    settings = load(os.environ)
    serve(settings, lambda: _ready(settings, json), None if json else _tell)


def _tell(line: str) -> None:
    sys.stderr.write(f"  {line}\n")
    sys.stderr.flush()


def _ready(settings: Settings, as_json: bool) -> None:
    where = settings.places
    if as_json:
        tls = None if settings.tls is None else settings.tls.url
        urls = {"api": _url(settings.api), "gateway": _url(settings.gateway), "tls": tls}
        emit({"control": str(where.control), "log": str(where.log), **urls})
        sys.stdout.flush()
        return
    sys.stderr.write(f"remit is up: control socket {where.control}\n")
    for name, address in (("api", settings.api), ("gateway", settings.gateway)):
        if address is not None:
            sys.stderr.write(f"  {name} on {_url(address)}\n")
    if settings.tls is not None:
        sys.stderr.write(f"  api on {settings.tls.url}, for other hosts\n")
    sys.stderr.write(f"  log in {where.log}\n")
    sys.stderr.flush()


def _url(address: tuple[str, int] | None) -> str | None:
    if address is None:
        return None
    host, port = address
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


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
