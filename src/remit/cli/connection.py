"""Connect resources to accounts at their providers, whose tokens remit then keeps; list and end such connections."""

from __future__ import annotations

import os
import sys
from typing import Annotated

from remit.cli import options, sdk
from remit.cli.login import AsOwner, session_token, visit
from remit.cli.options import argument, option
from remit.cli.render import Table, answer, safe
from remit.errors import LapsedError

MAX_TYPED = 100  # characters of a line

app = options.group("connection", "Accounts at providers that remit keeps the tokens of.")
app.callback()(lambda: None)  # keeps `list` a command of its own

Name = Annotated[str, argument("RESOURCE", "The resource.")]


def connect(
    name: Name,
    scope: Annotated[
        list[str] | None, option("--scope SCOPE", "Ask for this, too, beside what was let before; may be repeated.")
    ] = None,
    as_owner: AsOwner = False,
    json: options.Json = False,
) -> None:
    """Connect a resource to your account at its provider: remit keeps the tokens, and no agent sees one.

    A browser is opened at the provider; it comes back to this broker, which has to serve TCP (`remit up`). Its last
    page shows a code: type it here, and the connection is made.

    \b
    Examples:
      remit connect linear
      remit connect linear --scope issues:write
    """
    begun = sdk.ask(sdk.verbs.connect(name, session_token(as_owner), scope or ()))
    about = f"the provider of `{name}` is {begun['issuer']}, and its tokens go to {begun['destination']}"
    sys.stderr.write(f"{safe(about)}\nit is asked for: {safe(begun['scope'] or 'nothing in particular')}\n")
    visit(begun["url"], "connect")
    sys.stderr.write("the code on the page that the browser comes back to: ")
    sys.stderr.flush()
    found = sdk.ask(sdk.verbs.confirm_connection(name, begun["begun"], _typed()))
    answer(json, found, f"`{name}` is connected at {found['issuer']}")


def _typed() -> str:
    """Return a code that is typed."""
    if code := sys.stdin.readline(MAX_TYPED).strip():
        return code
    raise LapsedError("no code was typed, so nothing is connected", help="try again: `remit connect`")


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
