"""Start an MCP server that a resource is: in a run of its own, as the resource's settings say."""

from __future__ import annotations

import os
import signal
from typing import Annotated, Any

import typer

from remit.cli import options, sdk
from remit.cli.login import AsOwner
from remit.cli.options import argument, option
from remit.cli.run import RunOptions, SandboxOptions, launched
from remit.errors import DeniedError, InvalidRequestError, NotFoundError

TTL = "28800s"  # at most; the run ends with the server


@options.expanded
def start(
    context: typer.Context,
    server: Annotated[str, argument("NAME", "The resource that the server is: mcp+stdio:NAME, with a `command`.")],
    parent: Annotated[
        int | None, option("--parent PID", "End with this process, which starts it for a session over HTTP.")
    ] = None,
    bind: Annotated[list[str] | None, option("--bind PATH[:rw]", "A path it sees, read-only or :rw.")] = None,
    *,
    as_owner: AsOwner = False,
) -> None:
    """Start an MCP server as its resource's settings say: `command`, in a run of its own under what `reaches` says.

    It speaks on standard input and output, and nothing of that is judged: `remit run` starts it so for a session of
    whoever is in the run, and its edge judges what is said. `remit mcp wrap` is for a client that starts servers.

    \b
    Examples:
      remit resource add gh mcp+stdio:gh --setting 'command=["github-mcp-server", "stdio"]'
      remit mcp start gh
    """
    if os.environ.get("REMIT_GRANT"):
        raise DeniedError("inside a run no server is started so", help="reach it through the gateway: $REMIT_GATEWAY")
    if parent is not None:
        _end_with(parent)
    found = next((each for each in sdk.ask(sdk.verbs.resources()) if each["resource"] == server), None)
    if found is None:
        raise NotFoundError(f"there is no resource `{server}`")
    command = found["settings"].get("command")
    if not command:
        raise InvalidRequestError(
            f"nothing says how `{server}` is started", help="its setting `command` does: --setting 'command=[…]'"
        )
    request = RunOptions(grant_detail=[_text(found)], ttl=TTL)
    sandbox = SandboxOptions(bind=bind, quiet=True)
    raise typer.Exit(
        launched(
            context, command, None, f"serve {server}", "", request, as_owner=as_owner, sandbox=sandbox, servers=False
        )
    )


def _text(found: Any) -> str:
    """Return what its run is granted: what it reaches, or where that is nothing, a detail that permits nothing."""
    from remit.core.orders import json_text

    nothing = {"type": found["kind"], "resource": found["resource"], "actions": ["tools/call"]}
    return json_text(found["settings"].get("reaches") or [nothing])


def _end_with(parent: int) -> None:
    from remit.process import kernel

    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    if not os.path.exists(f"/proc/{os.getppid()}/task/{parent}"):  # noqa: PTH110 - it has ended before
        raise typer.Exit(1)
