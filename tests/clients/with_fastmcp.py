"""FastMCP's client with its own help for OAuth, told the server's URL and its name; run by path in its environment."""

from __future__ import annotations

import asyncio
import json
import sys

from fastmcp import Client
from fastmcp.client.auth import OAuth
from fastmcp.exceptions import ToolError


async def main(url: str) -> None:
    oauth = OAuth(client_id="fastmcp")
    async with Client(url, auth=oauth) as client:
        told: dict[str, object] = {"tools": [tool.name for tool in await client.list_tools()]}
        said = [(await client.call_tool("add", {"a": 2, "b": 3})).content[0].text]
        oauth.context.token_expiry_time = 1.0  # long ago
        said.append((await client.call_tool("add", {"a": 3, "b": 4})).content[0].text)
        try:
            await client.call_tool("wipe", {"what": "all"})
        except ToolError as error:
            told["refused"] = str(error)
    print(json.dumps({**told, "said": said}))


asyncio.run(main(sys.argv[1]))
