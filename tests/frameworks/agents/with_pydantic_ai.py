"""Pydantic AI: a lead that calls others by tools, each under a child grant."""

from __future__ import annotations

import asyncio

from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

from remit.integrations.pydantic_ai import DelegatedCapability, http_client
from tests.frameworks.agents.told import BROWSE, LEAD, RESEARCH, TOO_MUCH, Wishes, get, start

provider = OpenAIProvider(http_client=http_client())
gpt = OpenAIChatModel("gpt-test", provider=provider)


def worker(label: str, grants: Wishes) -> Agent[None, str]:
    return Agent(gpt, tools=[look], capabilities=[DelegatedCapability(label, grants=grants)])


def look(path: str) -> str:
    """Look at the search API."""
    return get(path)


researcher, browser, greedy = worker("research", RESEARCH), worker("browse", BROWSE), worker("greedy", TOO_MUCH)


async def research(work: str) -> str:
    """Let the researcher work."""
    return str((await researcher.run(work)).output)


async def browse(work: str) -> str:
    """Let the browser work, as a stream."""
    async with browser.run_stream(work) as stream:
        return str(await stream.get_output())


async def exceed(work: str) -> str:
    """Let one work that asks for more than there is."""
    return str((await greedy.run(work)).output)


async def streamed(lead: Agent[None, str], text: str) -> str:
    async with lead.run_stream(text) as stream:
        return str(await stream.get_output())


def work(way: str, text: str) -> str:
    """Let the lead work."""
    if way == "forgot":
        return str(Agent(OpenAIChatModel("gpt-test"), tools=[look]).run_sync(text).output)
    model = OpenAIResponsesModel("gpt-test", provider=provider) if way == "responses" else gpt
    bounded = DelegatedCapability("lead", grants=LEAD, depth=1, fan_out=8)
    lead = Agent(model, tools=[research, browse, exceed], capabilities=[bounded])
    return asyncio.run(streamed(lead, text)) if way == "stream" else str(lead.run_sync(text).output)


start(work)
