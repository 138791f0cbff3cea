"""Microsoft Agent Framework: a lead that calls others as tools, each under a child grant."""

from __future__ import annotations

import asyncio

from agent_framework import Agent, FunctionTool, tool
from agent_framework.openai import OpenAIChatClient, OpenAIChatCompletionClient

from remit import current
from remit.integrations.agent_framework import client, delegated
from tests.frameworks.agents.told import BROWSE, LEAD, RESEARCH, TOO_MUCH, Wishes, get, start


@tool(approval_mode="never_require")
def look(path: str) -> str:
    """Look at the search API."""
    return get(path)


def as_tool(name: str, grants: Wishes, way: str) -> FunctionTool:
    return delegated(Agent(client=model(way), name=name, tools=[look]).as_tool(arg_name="work"), name, grants=grants)


def model(way: str) -> OpenAIChatClient | OpenAIChatCompletionClient:
    made = OpenAIChatClient if way == "responses" else OpenAIChatCompletionClient
    told = {"include_detailed_errors": True}
    return made(model="gpt-test", async_client=client(), function_invocation_configuration=told)


async def answer(way: str, text: str) -> str:
    tools = [as_tool("research", RESEARCH, way), as_tool("browse", BROWSE, way), as_tool("exceed", TOO_MUCH, way)]
    lead = Agent(client=model(way), name="lead", tools=tools)
    with current().delegate("lead", grants=LEAD, depth=1, fan_out=8):
        if way != "stream":
            return str(await lead.run(text))
        return "".join([str(update) async for update in lead.run(text, stream=True)])


def work(way: str, text: str) -> str:
    """Let the lead work."""
    if way == "forgot":
        forgetful = Agent(client=OpenAIChatCompletionClient(model="gpt-test"), name="lead", tools=[look])
        return str(asyncio.run(forgetful.run(text)))
    return asyncio.run(answer(way, text))


start(work)
