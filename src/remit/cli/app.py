"""All commands, by what they are for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from remit.cli import (
    approval,
    audit,
    broker,
    clock,
    connection,
    init,
    login,
    mcp,
    options,
    policy,
    project,
    resource,
    run,
    systemd,
    task,
)
from remit.cli.options import option


def _version(asked: bool) -> None:
    if asked:
        from remit import __version__

        typer.echo(f"remit {__version__}")
        raise typer.Exit


def _remit(
    version: Annotated[
        bool, option("--version", "Print the version, and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Credentials for the task at hand: an agent holds a grant in a task, never a standing secret."""


# With its nouns, which are groups of commands.
SECTIONS: Mapping[str, tuple[tuple[Callable[..., None], ...], tuple[typer.Typer, ...]]] = {
    "Run agents": ((run.run, init.init, project.allow, task.tree, task.show, task.explain), (mcp.app,)),
    "What agents may reach": ((), (resource.app, resource.secrets, policy.app)),
    "Tasks and grants": (
        (task.open_, task.delegate, task.issue, task.renew, task.revoke, task.close, broker.stop),
        (),
    ),
    "Approvals": ((approval.ask, approval.approvals, approval.approve, approval.deny), ()),
    "Who you are": (
        (login.login, login.whoami, login.logout, connection.connect, connection.disconnect),
        (connection.app,),
    ),
    "The broker": (
        (broker.up, broker.down, broker.status, broker.doctor, broker.demo, systemd.completion),
        (systemd.app, audit.app, broker.keys, clock.app),
    ),
}


class GroupedHelp(TyperGroup):
    """The commands by what they are for, each with the first sentence of its help, whole."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - as it is called
        for title, (commands, nouns) in SECTIONS.items():
            names = [_name(command) for command in commands] + [str(noun.info.name) for noun in nouns]
            with formatter.section(title):
                formatter.write_dl([(name, _sentence(str(self.commands[name].help))) for name in names])


def _name(command: Callable[..., None]) -> str:
    return command.__name__.rstrip("_")


def _sentence(text: str) -> str:
    return text.partition("\n")[0].partition(". ")[0].rstrip(".") + "."


app = options.Commands(
    name="remit",
    cls=GroupedHelp,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.callback()(_remit)
for command in chain.from_iterable(commands for commands, _ in SECTIONS.values()):
    anywhere = command is not run.run  # options may follow arguments, but for those of the command that is run
    app.command(_name(command), context_settings={"allow_interspersed_args": anywhere})(command)
for group in chain.from_iterable(nouns for _, nouns in SECTIONS.values()):
    app.add_typer(group)
