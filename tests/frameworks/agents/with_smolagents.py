"""smolagents: a lead that manages others, each under a child grant."""

from __future__ import annotations

from smolagents import LogLevel, OpenAIModel, Tool, ToolCallingAgent, tool

from remit import current
from remit.integrations.smolagents import clients, delegated
from tests.frameworks.agents.told import BROWSE, LEAD, RESEARCH, TOO_MUCH, Wishes, get, start


@tool
def look(path: str) -> str:
    """Look at the search API.

    Args:
        path: what to look at
    """
    return get(path)


def agent(name: str, model: OpenAIModel, *managed: ToolCallingAgent) -> ToolCallingAgent:
    tools: list[Tool] = [] if managed else [look]
    named = {"name": name, "description": name, "managed_agents": list(managed), "verbosity_level": LogLevel.OFF}
    return ToolCallingAgent(tools=tools, model=model, max_steps=4, **named)


def worker(name: str, grants: Wishes) -> ToolCallingAgent:
    return delegated(agent(name, gpt), name, grants=grants)


gpt = OpenAIModel("gpt-test", **clients())


def work(way: str, text: str) -> str:
    """Let the lead work."""
    if way == "forgot":
        return str(agent("lead", OpenAIModel("gpt-test")).run(text))
    managed = [worker("research", RESEARCH), worker("browse", BROWSE), worker("exceed", TOO_MUCH)]
    lead = delegated(agent("lead", gpt, *managed), "lead", grants=LEAD, depth=1, fan_out=8)
    if way != "stream":
        return str(lead.run(text))
    *_, last = lead.run(text, stream=True)
    assert current() is not None
    return str(last.output)


start(work)
