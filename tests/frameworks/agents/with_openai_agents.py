"""OpenAI Agents SDK: a lead that calls others as tools, and one that hands over to them."""

from __future__ import annotations

import asyncio

from agents import Agent, Runner, function_tool, set_default_openai_api
from agents.result import RunResultBase

from remit import current
from remit.integrations import openai_agents
from tests.frameworks.agents.told import BROWSE, LEAD, RESEARCH, TOO_MUCH, Wishes, get, start


@function_tool
def look(path: str) -> str:
    """Look at the search API."""
    return get(path)


def worker(name: str) -> Agent[None]:
    return Agent(name=name, model="gpt-test", tools=[look])


def as_tool(name: str, grants: Wishes) -> object:
    found = worker(name).as_tool(tool_name=name, tool_description=name)
    return openai_agents.delegated(found, name, grants=grants)


TOOLS = [as_tool("research", RESEARCH), as_tool("browse", BROWSE), as_tool("exceed", TOO_MUCH)]


async def answer(way: str, text: str) -> RunResultBase:
    if way == "handoff":
        lead = Agent(name="lead", model="gpt-test", handoffs=[worker("research"), worker("stranger")])
        with openai_agents.team({"lead": LEAD, "research": RESEARCH}) as config:
            return await Runner.run(lead, text, run_config=config)
    lead = Agent(name="lead", model="gpt-test", tools=TOOLS)
    with current().delegate("lead", grants=LEAD, depth=1, fan_out=8):
        if way != "stream":
            return await Runner.run(lead, text)
        streamed = Runner.run_streamed(lead, text)
        async for _ in streamed.stream_events():
            pass
        return streamed


def work(way: str, text: str) -> str:
    """Let the lead work."""
    if way == "forgot":
        return str(Runner.run_sync(worker("lead"), text).final_output)
    openai_agents.use()
    set_default_openai_api("chat_completions" if way == "chat" else "responses")
    return str(asyncio.run(answer(way, text)).final_output)


start(work)
