"""Connect resources to accounts at their providers, whose tokens remit then keeps; list and end such connections."""

from __future__ import annotations

import os
from typing import Annotated, Any

from remit.cli import options, sdk
from remit.cli.login import AsOwner, session_token, visit
from remit.cli.options import argument, option
from remit.cli.render import Table, answer, pause, waiting
from remit.errors import LapsedError

PATIENCE = 600  # seconds for a human in a browser

app = options.group("connection", "Accounts at providers that remit keeps the tokens of.")
app.callback()(lambda: None)  # keeps `list` a command of its own

Name = Annotated[str, argument("RESOURCE", "The resource.")]


def connect(name: Name, as_owner: AsOwner = False, json: options.Json = False) -> None:
    """Connect a resource to your account at its provider: remit keeps the tokens, and no agent sees one.

    A browser is opened at the provider; it comes back to this broker, which has to serve TCP (`remit up`).

    \b
    Examples:
      remit connect linear
    """
    token = session_token(as_owner)
    whose, before = _human(as_owner), sdk.ask(sdk.verbs.connections())
    begun = sdk.ask(sdk.verbs.connect(name, token))
    visit(begun["url"], "connect")
    with waiting("waiting for the provider"):
        found = _made(name, whose, [one["made_at"] for one in before])
    answer(json, found, f"`{name}` is connected at {found['issuer']}")


def _made(name: str, whose: str, before: list[str]) -> dict[str, Any]:
    """Wait for a connection that was not there before."""
    for _ in range(PATIENCE):
        for one in sdk.ask(sdk.verbs.connections()):
            if one["resource"] == name and one["human"] == whose and one["made_at"] not in before:
                return one
        pause()
    raise LapsedError("nobody came back from the provider in time", help="try again: `remit connect`")


def _human(as_owner: bool) -> str:
    """Return whose connection is meant: that of who is logged in, or the owner's."""
    session = None if as_owner else sdk.session.SessionFile(os.environ).load()
    if session is None:
        return str(sdk.ask(sdk.verbs.self())["subject"])
    return f"{session.issuer}#{session.tokens.claims.get('sub')}"


@app.command("list")
def list_(json: options.Json = False) -> None:
    """List the connections, and those that are over, with why.

    \b
    Examples:
      remit connection list
    """
    found = sdk.ask(sdk.verbs.connections())
    rows = [(i["resource"], i["human"], i["issuer"], i["scope"] or "-", i["state"], i["cause"] or "-") for i in found]
    answer(json, {"connections": found}, Table(("resource", "human", "issuer", "scope", "state", "cause"), rows))


def disconnect(
    name: Name,
    human: Annotated[str | None, option("--human ISSUER#SUB", "Somebody else's, as `connection list` has it.")] = None,
    as_owner: AsOwner = False,
    json: options.Json = False,
) -> None:
    """End a connection: its tokens are used no more, and its provider is told to revoke them.

    \b
    Examples:
      remit disconnect linear
    """
    ended = sdk.ask(sdk.verbs.disconnect(name, human or _human(as_owner)))
    answer(json, ended, f"`{name}` is not connected any more")
