"""An agent in a run that starts `remit mcp serve` as a client does, with few variables, and prints what came of it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import httpx
from mcp import Client
from mcp.client.stdio import StdioServerParameters

KEY = os.environ["REMIT_KEY_SEARCH"]  # the run's placeholder
SEARCH, OTHER = "/v1/search", "/v1/other"


def got(url: str) -> Any:
    """Return the status of a request, or why it was refused."""
    answer = httpx.get(url, headers={"authorization": f"Bearer {KEY}"})
    return answer.status_code if answer.is_success else answer.json()["code"]


async def main(remit: str) -> None:
    """Look, delegate, use the child's URL, revoke it, and use it again."""
    server = StdioServerParameters(command=remit, args=["mcp", "serve"])  # HOME, PATH and the like alone
    async with Client(server) as client:
        said: list[dict[str, Any]] = []

        async def call(name: str, **arguments: Any) -> dict[str, Any]:
            told: dict[str, Any] = (await client.call_tool(name, arguments)).structured_content
            said.append(told)
            return told

        own = await call("my_authority", would={"method": "GET", "target": "/search/v2/all"})
        child = await call("delegate", label="reader", grants=[{"resource": "search", "paths": [SEARCH]}])
        url = child["base_urls"]["search"]
        used = [got(url + SEARCH), got(url + OTHER), got(own["base_urls"]["search"] + OTHER)]
        wide = await call("delegate", label="all", grants=[{"resource": "search", "paths": ["/**"]}])
        asked = await call("ask_for_access", label="all", grants=[{"resource": "search", "paths": ["/v1/**"]}])
        await call("revoke_child", grant=child["grant"])
        ended = got(url + SEARCH)
        ours = await call("revoke_child", grant=own["grant"])
    told = {"used": used, "ended": ended, "said": said}
    codes = [each["error"]["code"] for each in (wide, ours)]
    print(json.dumps({**told, "codes": codes, "asked": asked, "own": own, "child": child["grant"]}))  # noqa: T201 - what came of it


asyncio.run(main(sys.argv[1]))
