"""AG2: a lead that asks others by tools, each under a child grant."""

from __future__ import annotations

import asyncio

from ag2 import Agent
from ag2.config import OpenAIConfig

from remit.integrations.ag2 import delegated, http_client
from tests.frameworks.agents.told import BROWSE, LEAD, RESEARCH, TOO_MUCH, Wishes, get, start


def look(path: str) -> str:
    """Look at the search API."""
    return get(path)


def worker(label: str, grants: Wishes) -> Agent:
    return Agent(label, config=gpt, tools=[look], middleware=[delegated(label, grants=grants)])


gpt = OpenAIConfig("gpt-test", http_client=http_client())
researcher, browser, greedy = worker("research", RESEARCH), worker("browse", BROWSE), worker("greedy", TOO_MUCH)


async def research(work: str) -> str:
    """Let the researcher work."""
    return str((await researcher.ask(work)).body)


async def browse(work: str) -> str:
    """Let the browser work."""
    return str((await browser.ask(work)).body)


async def exceed(work: str) -> str:
    """Let one work that asks for more than there is."""
    return str((await greedy.ask(work)).body)


def work(way: str, text: str) -> str:
    """Let the lead work."""
    if way == "forgot":
        return str(asyncio.run(Agent("lead", config=OpenAIConfig("gpt-test"), tools=[look]).ask(text)).body)
    config = OpenAIConfig("gpt-test", streaming=True, http_client=http_client()) if way == "stream" else gpt
    bounded = delegated("lead", grants=LEAD, depth=1, fan_out=8)
    lead = Agent("lead", config=config, tools=[research, browse, exceed], middleware=[bounded])
    return str(asyncio.run(lead.ask(text)).body)


start(work)
