"""Google ADK: a lead that calls others as tools, hands over to them, or has them work at once."""

from __future__ import annotations

import asyncio

from google.adk.agents import BaseAgent, LlmAgent, ParallelAgent
from google.adk.models import Gemini
from google.adk.plugins import BasePlugin
from google.adk.runners import InMemoryRunner
from google.adk.tools import AgentTool

from remit.integrations.google_adk import client, team
from tests.frameworks.agents.told import Wishes, get, of, start

LEAD, RESEARCH, BROWSE, TOO_MUCH = of("gemini")
MEMBERS: dict[str, Wishes] = {"lead": LEAD, "research": RESEARCH, "browse": BROWSE}


async def look(path: str) -> str:
    """Look at the search API."""
    return await asyncio.to_thread(get, path)


def worker(name: str, model: Gemini, *tools: object, below: tuple[BaseAgent, ...] = ()) -> LlmAgent:
    return LlmAgent(name=name, description=name, model=model, tools=list(tools) or [look], sub_agents=list(below))


def lead(way: str) -> BaseAgent:
    gemini = Gemini(model="gemini-2.5-flash", client=client())
    workers = [worker(name, gemini) for name in ("research", "browse", "stranger")]
    if way == "handoff":
        return worker("lead", gemini, below=tuple(workers))
    if way == "at once":
        return ParallelAgent(name="both", sub_agents=workers[:2])
    return worker("lead", gemini, *(AgentTool(each) for each in workers))


async def answer(agent: BaseAgent, text: str, *plugins: BasePlugin) -> str:
    told = await InMemoryRunner(agent, plugins=list(plugins)).run_debug(text, quiet=True)
    return " / ".join(sorted({part.text for event in told for part in event.content.parts if part.text}))


def work(way: str, text: str) -> str:
    """Let the lead work."""
    if way == "forgot":
        return asyncio.run(answer(worker("lead", Gemini(model="gemini-2.5-flash")), text))
    members = MEMBERS | ({"greedy": TOO_MUCH} if way == "exceed" else {})
    with team(members) as plugin:
        return asyncio.run(answer(lead(way), text, plugin))


start(work)
