"""Claude Agent SDK: a session with sub-agents, whose commands and tools each work under a grant of their own."""

from __future__ import annotations

import asyncio
import sys

from claude_agent_sdk import AgentDefinition, ClaudeAgentOptions, ResultMessage, query, tool

from remit.integrations.claude_agent_sdk import team
from tests.frameworks.agents.told import Wishes, get, of, start

LEAD, RESEARCH, BROWSE, TOO_MUCH = of("anthropic")
AGENTS = {name: AgentDefinition(description=name, prompt=name) for name in ("research", "browse", "stranger")}


@tool("look", "Look at the search API.", {"path": str})
async def look(arguments: dict[str, str]) -> dict[str, object]:
    """Look at the search API."""
    text = await asyncio.to_thread(get, arguments["path"])
    return {"content": [{"type": "text", "text": text}]}


async def answer(text: str, **options: object) -> str:
    told = ""
    options |= {
        "allowed_tools": ["Agent", "Bash", "mcp__api", "mcp__apart"],
        "model": "claude-test",
        "agents": AGENTS,
        "setting_sources": [],
        "max_turns": 6,
    }
    async for message in query(prompt=text, options=ClaudeAgentOptions(**options)):
        if isinstance(message, ResultMessage):
            told = str(message.result)
    return told


def work(way: str, text: str) -> str:
    """Let the session work."""
    if way == "forgot":
        return asyncio.run(answer(text))
    members: dict[str, Wishes] = {"session": LEAD, "research": RESEARCH, "browse": BROWSE}
    with team(members | ({"greedy": TOO_MUCH} if way == "exceed" else {}), tools={"api": [look]}) as under:
        if way == "apart":
            under["mcp_servers"]["apart"] = {"command": sys.executable, "args": ["-m", "tests.frameworks.agents.apart"]}
        return asyncio.run(answer(text, **under))


start(work)
