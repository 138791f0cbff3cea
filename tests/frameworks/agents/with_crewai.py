"""CrewAI: a crew whose agents each work under a grant of their own."""

from __future__ import annotations

import asyncio

from crewai import LLM, Agent, Crew, Task
from crewai.tools import tool

from remit.integrations.crewai import Interceptor, team
from tests.frameworks.agents.told import BROWSE, LEAD, RESEARCH, TOO_MUCH, Wishes, get, start

gpt = LLM(model="openai/gpt-test", interceptor=Interceptor())


@tool
def look(path: str) -> str:
    """Look at the search API."""
    return get(path)


def member(role: str, llm: LLM = gpt, *, delegating: bool = False) -> Agent:
    told = {"goal": "work", "backstory": "none", "max_iter": 4, "max_retry_limit": 0}
    return Agent(role=role, llm=llm, tools=[look], allow_delegation=delegating, **told)


def crew(text: str, *agents: Agent) -> Crew:
    """Return a crew whose first agent has the work."""
    return Crew(agents=list(agents), tasks=[Task(description=text, expected_output="text", agent=agents[0])])


async def beside(*crews: Crew) -> list[str]:
    return [str(result) for result in await asyncio.gather(*(each.kickoff_async() for each in crews))]


def work(way: str, text: str) -> str:
    """Let a crew work, or two of them at once."""
    if way == "forgot":
        return str(crew(text, member("research", LLM(model="openai/gpt-test"))).kickoff())
    grants: dict[str, Wishes] = {"lead": LEAD, "research": RESEARCH, "browse": BROWSE}
    grants |= {"greedy": TOO_MUCH} if way == "exceed" else {}
    with team(grants):
        if way == "both":
            first, second = text.split("\n\n")
            return " / ".join(asyncio.run(beside(crew(first, member("research")), crew(second, member("browse")))))
        if way == "delegate":
            return str(crew(text, member("lead", delegating=True), member("research")).kickoff())
        return str(crew(text, member("stranger" if way == "stranger" else "research")).kickoff())


start(work)
