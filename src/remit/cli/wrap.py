"""Bound what an MCP server on stdin and stdout is used for: its run and what is let through are asked for here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import typer

from remit.cli import ids, options
from remit.cli.login import AsOwner
from remit.cli.options import argument, option
from remit.cli.run import RunOptions, SandboxOptions, launched


@options.expanded
def wrap(
    context: typer.Context,
    command: Annotated[list[str], argument("-- COMMAND…", "What starts the server, with its arguments.")],
    server: Annotated[str, option("--server -s NAME", "The resource that the server is: mcp+stdio:NAME.")],
    tools: Annotated[
        list[str] | None,
        option("--tool -t TOOL", "A tool that may be called, with any arguments; `any`: all. Else -r or -d say it."),
    ] = None,
    grant: Annotated[
        str | None,
        option("--grant -g GRANT", "Use this grant; with -r, -d or -t, a child of it.", callback=ids.of("grant")),
    ] = None,
    purpose: Annotated[str | None, option("--purpose -p TEXT", "Open a task for this; else for `run PROGRAM`.")] = None,
    label: Annotated[str, option("--label TEXT", "What a child is called.")] = "",
    *,
    request: RunOptions,
    as_owner: AsOwner = False,
    sandbox: SandboxOptions,
) -> None:
    """Run an MCP server that speaks on stdin and stdout, and let through what its run's grant permits of what is said.

    A client starts it in place of the server. Lists are reduced to what may be used, each call is judged with its
    arguments, and a server asks its client only what the grant lets it. Everything else is as with `remit run`.

    \b
    Examples:
      remit mcp wrap -s gh -t search_repositories -r github -- npx -y @modelcontextprotocol/server-github
      remit mcp wrap -s gh -d '{"type": "mcp", "resource": "gh", "actions": ["tools/call"], "tools": {"create_issue":
          {"owner": "acme", "repo": "app", "title": "any"}}}' -r github -- github-mcp-server stdio
      remit mcp wrap -s gh -g grt_7VYx1bD0Qe2mNf3sK9h6Lw -- github-mcp-server stdio
    """
    if tools:
        request = replace(request, grant_detail=[*(request.grant_detail or ()), _called(server, tools)])
    raise typer.Exit(
        launched(context, command, grant, purpose, label, request, as_owner=as_owner, sandbox=sandbox, stdio=server)
    )


def _called(server: str, tools: Sequence[str]) -> str:
    """Return the detail by which tools of a server may be called."""
    from remit.core.orders import ANY, json_text

    listed = ANY if ANY in tools else dict.fromkeys(tools, ANY)
    return json_text({"resource": server, "actions": ["tools/call"], "tools": listed})
