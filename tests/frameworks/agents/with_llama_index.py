"""LlamaIndex: a lead that calls others by tools, and one that hands over to them."""

from __future__ import annotations

import asyncio

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAI

from remit import current
from remit.integrations.llama_index import GrantedWorkflow, clients, delegated, team
from tests.frameworks.agents.told import BROWSE, LEAD, RESEARCH, TOO_MUCH, Wishes, get, start


async def look(path: str) -> str:
    """Look at the search API."""
    return await asyncio.to_thread(get, path)


def worker(name: str, *tools: FunctionTool, llm: OpenAI) -> FunctionAgent:
    found = list(tools) or [FunctionTool.from_defaults(async_fn=look)]
    return FunctionAgent(name=name, description=name, tools=found, llm=llm)


def as_tool(name: str, grants: Wishes) -> FunctionTool:
    async def run(work: str) -> str:
        return str(await worker(name, llm=gpt).run(work))

    return delegated(FunctionTool.from_defaults(async_fn=run, name=name, description=name), name, grants=grants)


gpt = OpenAI("gpt-4o", **clients())


async def answer(way: str, text: str) -> str:
    if way == "handoff":
        agents = [worker(name, llm=gpt) for name in ("lead", "research", "stranger")]
        with team({"lead": LEAD, "research": RESEARCH}):
            return str(await GrantedWorkflow(agents=agents, root_agent="lead").run(text))
    tools = [as_tool("research", RESEARCH), as_tool("browse", BROWSE), as_tool("exceed", TOO_MUCH)]
    with current().delegate("lead", grants=LEAD, depth=1, fan_out=8):
        return str(await worker("lead", *tools, llm=gpt).run(text))


async def forgot(text: str) -> str:
    return str(await worker("lead", llm=OpenAI("gpt-4o", max_retries=0)).run(text))


def work(way: str, text: str) -> str:
    """Let the lead work."""
    return asyncio.run(forgot(text) if way == "forgot" else answer(way, text))


start(work)
