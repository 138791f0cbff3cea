"""A stdio MCP server of one tool, which looks at the search API under the grant that its environment names."""

from __future__ import annotations

import json
import sys

from tests.frameworks.agents.told import get

SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}}
TOOL = {"name": "look", "description": "Look at the search API.", "inputSchema": SCHEMA}


def answer(method: str, params: dict[str, dict[str, str]]) -> dict[str, object]:
    """Return the result of a request (MCP 2025-06-18)."""
    if method == "initialize":
        about = {"serverInfo": {"name": "apart", "version": "1"}, "capabilities": {"tools": {}}}
        return {"protocolVersion": params["protocolVersion"], **about}
    if method == "tools/list":
        return {"tools": [TOOL]}
    return {"content": [{"type": "text", "text": get(params["arguments"]["path"])}]}


for line in sys.stdin:
    asked = json.loads(line)
    if "id" in asked:
        said = answer(asked["method"], asked.get("params", {}))
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": said}), flush=True)
