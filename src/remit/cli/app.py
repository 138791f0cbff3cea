"""All commands, in the order in which one meets them."""

from __future__ import annotations

from typing import Annotated

import typer

from remit.cli import approval, audit, broker, login, policy, resource, run, task, tree

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
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version, and exit.")
    ] = False,
) -> None:
    """Credentials for the task at hand: an agent holds a grant in a task, never a standing secret."""


app.command("up")(broker.up)
app.command("login")(login.login)
app.command("whoami")(login.whoami)
app.command("logout")(login.logout)
app.command("run", context_settings={"allow_interspersed_args": False})(run.run)
app.command("tree")(tree.tree)
app.command("show")(task.show)
app.command("explain")(task.explain)
app.command("open")(task.open_)
app.command("delegate")(task.delegate)
app.command("ask")(approval.ask)
app.command("approvals")(approval.approvals)
app.command("approve")(approval.approve)
app.command("deny")(approval.deny)
app.command("issue")(task.issue)
app.command("renew")(task.renew)
app.command("revoke")(task.revoke)
app.command("close")(task.close)
app.add_typer(resource.app, name="resource")
app.add_typer(resource.secrets, name="secret")
app.add_typer(policy.app, name="policy")
app.add_typer(broker.keys, name="keys")
app.add_typer(audit.app, name="audit")
app.command("demo")(broker.demo)
app.command("doctor")(broker.doctor)
