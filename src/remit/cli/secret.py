"""Static secrets: they come in by stdin or a prompt, never by the command line, and never out."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from remit.cli import options
from remit.cli.connect import ask
from remit.cli.render import emit, said

app = options.group("Static secrets, sealed at rest.")


@app.callback()
def _secret() -> None:
    """Keep `set` a command of its own."""


@app.command("set")
def set_(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The resource whose secret it is.")],
    json: options.Json = False,
) -> None:
    """Set the static secret of a resource, from stdin or a prompt.

    \b
    Examples:
      remit secret set search                    (asks for it)
      pass show openai | remit secret set openai
    """
    from remit.sdk import verbs

    ask(verbs.put_secret(name, name, read(name)))
    if json:
        emit({"secret": name, "stored": True})
        return
    said(f"the secret of `{name}` is stored, sealed to its destination")


def read(name: str) -> str:
    """Return a secret from a prompt, or from stdin without its last newline."""
    if sys.stdin.isatty():
        import getpass

        return getpass.getpass(f"secret of {safe_name(name)}: ")
    text = sys.stdin.read(65_536)
    value = text.removesuffix("\n").removesuffix("\r")
    if not value:
        raise typer.BadParameter("stdin is empty")
    return value


def safe_name(name: str) -> str:
    """Return a name that a prompt may show."""
    return "".join(char for char in name if char.isprintable())
