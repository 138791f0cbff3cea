"""What a machine and a shell are told of remit: a service of systemd, and completions."""

from __future__ import annotations

import os
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from remit.cli import options
from remit.cli.options import argument
from remit.cli.render import answer

app = options.group("service", "The broker as a service of your systemd: it starts with your login.")


@app.command("install")
def install(json: options.Json = False) -> None:
    """Have your systemd run the broker, now and at each login, and hold its sockets: who connects has it started.

    Without a login as well: `loginctl enable-linger`. After `[listen]` has changed, install it again.

    \b
    Examples:
      remit service install
    """
    from remit.compose import systemd

    where = systemd.install(Path(sys.executable).with_name("remit"), options.settings(), os.environ)
    answer(json, {"units": str(where)}, f"the broker runs as {systemd.NAME}; its units are in `{where}`")


@app.command("uninstall")
def uninstall(json: options.Json = False) -> None:
    """Stop the service, and take its units away. The state stays.

    \b
    Examples:
      remit service uninstall
    """
    from remit.compose import systemd

    where = systemd.uninstall(os.environ)
    answer(json, {"removed": str(where)}, f"its units in `{where}` are removed")


@app.command("status")
def status(json: options.Json = False) -> None:
    """Say whether there is a service, and what systemd says of it.

    \b
    Examples:
      remit service status
    """
    from remit.compose import systemd

    where = systemd.folder(os.environ) / systemd.NAME
    found = {"unit": str(where) if where.exists() else None, "state": systemd.state() if where.exists() else None}
    answer(json, found, found)


ZSH_LOADED = "compdef _remit_completion remit\n"
# From a file in `fpath` zsh loads it as the first completion is asked for: that is to be answered, too.
ZSH_CALLED = f'{ZSH_LOADED}[[ $funcstack[1] == _remit ]] && _remit_completion "$@"\n'


class Shell(Enum):
    """A shell that completions are for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    shell: Annotated[Shell, argument("SHELL", "bash, zsh or fish.")],
) -> None:
    """Print what has a shell complete remit's commands and options.

    \b
    Examples:
      remit completion bash > ~/.local/share/bash-completion/completions/remit
      remit completion zsh > ~/.zfunc/_remit
      remit completion fish > ~/.config/fish/completions/remit.fish
    """
    from typer._completion_shared import get_completion_script

    script = get_completion_script(prog_name="remit", complete_var="_REMIT_COMPLETE", shell=shell.value)
    typer.echo(f"{script}\n".replace(ZSH_LOADED, ZSH_CALLED) if shell is Shell.ZSH else script)
