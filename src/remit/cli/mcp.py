"""What remit is to clients of the Model Context Protocol: a server of its own, and what their files say of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from remit.cli import mcp_install, options, start, wrap
from remit.errors import InvalidRequestError, UnavailableError

app = options.group("mcp", "Servers and clients of the Model Context Protocol.")
app.command()(mcp_install.install)
app.command(context_settings={"allow_interspersed_args": False})(wrap.wrap)
app.command()(start.start)


@app.command()
def serve() -> None:
    """Serve an agent's own authority as tools, on stdin and stdout: in a run, started by the agent's client.

    The tools are my_authority, delegate, ask_for_access and revoke_child. None takes or returns a secret. What a client
    does not hand on of the run's variables is read from the processes that started it.

    \b
    Examples:
      remit mcp serve
      remit run -r search --depth 1 --fan-out 3 -- claude     (whose configuration starts it)
    """
    from remit.run.inherited import completed

    os.environ.update(completed(os.environ))
    try:
        from remit.integrations import mcp_server
    except ModuleNotFoundError as error:
        raise UnavailableError("the MCP server is not installed", help="pip install 'remit[mcp]'") from error
    asyncio.run(mcp_server.serve(_judged))


def _judged(task: Mapping[str, Any], grant: str, would: Mapping[str, Any]) -> dict[str, Any]:
    """Judge a request that an agent thinks of, as the gateway would; nothing is made."""
    from remit.compose.explain import Request, explained

    kinds, what = options.kinds(), Request(would["method"], would["target"], would.get("body"))
    try:
        found = explained(task, grant, what, datetime.now(UTC), kinds=kinds)
    except ValueError as error:
        raise InvalidRequestError("the request cannot be judged: it is not well formed") from error
    return {name: value for name, value in asdict(found).items() if value is not None}
