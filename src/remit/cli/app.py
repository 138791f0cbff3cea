"""All commands, in the order in which one meets them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Annotated

import typer

from remit.cli import approval, audit, broker, clock, login, policy, project, resource, run, task
from remit.cli.options import option

app = typer.Typer(
    name="remit", no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)


def _version(asked: bool) -> None:
    if asked:
        from remit import __version__

        typer.echo(f"remit {__version__}")
        raise typer.Exit


@app.callback()
def _remit(
    version: Annotated[
        bool, option("--version", "Print the version, and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Credentials for the task at hand: an agent holds a grant in a task, never a standing secret."""


COMMANDS: tuple[tuple[Callable[..., None], ...], ...] = (
    (broker.up, login.login, login.whoami, login.logout, project.allow, run.run),
    (task.tree, task.show, task.explain, task.open_, task.delegate),
    (approval.ask, approval.approvals, approval.approve, approval.deny),
    (task.issue, task.renew, task.revoke, task.close, broker.stop, broker.down, broker.status, broker.demo),
    (broker.doctor,),
)
for command in chain.from_iterable(COMMANDS):
    anywhere = command is not run.run  # options may follow arguments, but for those of the command that is run
    app.command(command.__name__.rstrip("_"), context_settings={"allow_interspersed_args": anywhere})(command)
for group in (resource.app, resource.secrets, policy.app, broker.keys, clock.app, audit.app):
    app.add_typer(group)
