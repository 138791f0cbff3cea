"""An agent in a run whose client of MCP shows pages: it calls a tool until that works, and prints what it was told."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from mcp import Client, MCPError
from mcp.types import ElicitRequestFormParams, ElicitRequestURLParams, ElicitResult

URL = os.environ["REMIT_URL_TRACKER"]


async def shown(context: object, params: ElicitRequestFormParams | ElicitRequestURLParams) -> ElicitResult:
    """Show the human a page, and wait until they have been there."""
    del context
    assert isinstance(params, ElicitRequestURLParams)
    told(page=params.url, message=params.message)
    await asyncio.to_thread(sys.stdin.readline)
    return ElicitResult(action="accept")


def told(**found: Any) -> None:
    print(json.dumps(found), flush=True)  # noqa: T201 - what came of it


async def called(mode: str) -> str:
    async with Client(URL, mode=mode, elicitation_callback=shown) as client:
        said = await client.call_tool("whose", {})
        return str(getattr(said.content[0], "text", said))


def inner(error: BaseException) -> MCPError:
    """Return what a server said no by, out of the groups around it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, MCPError), error
    return error


async def main(mode: str) -> None:
    try:
        told(said=await called(mode))
    except BaseException as error:  # noqa: BLE001 - it is looked into
        refused = inner(error)
        [asked] = refused.data["elicitations"]
        told(code=refused.code, page=asked["url"], message=asked["message"])
        await asyncio.to_thread(sys.stdin.readline)
        told(said=await called(mode))


asyncio.run(main(sys.argv[1]))
