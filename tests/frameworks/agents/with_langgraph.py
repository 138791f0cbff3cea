"""LangChain on LangGraph: a lead that calls others by tools, each under a child grant."""

from __future__ import annotations

import asyncio

from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from remit.integrations.langgraph import DelegatedRunnable, clients
from tests.frameworks.agents.told import BROWSE, LEAD, RESEARCH, TOO_MUCH, get, start

gpt = ChatOpenAI(model="gpt-test", **clients())


@tool
def look(path: str) -> str:
    """Look at the search API."""
    return get(path)


worker = create_agent(gpt, [look])
researcher = DelegatedRunnable(worker, "research", grants=RESEARCH)
browser = DelegatedRunnable(worker, "browse", grants=BROWSE)
greedy = DelegatedRunnable(worker, "greedy", grants=TOO_MUCH)


def asked(text: str) -> dict[str, object]:
    return {"messages": [("user", text)]}


@tool
def research(work: str) -> str:
    """Let the researcher work."""
    return str(researcher.invoke(asked(work))["messages"][-1].content)


@tool
def browse(work: str) -> str:
    """Let the browser work, as a stream."""
    *_, last = browser.stream(asked(work), stream_mode="values")
    return str(last["messages"][-1].content)


@tool
async def research_later(work: str) -> str:
    """Let the researcher work, async."""
    return str((await researcher.ainvoke(asked(work)))["messages"][-1].content)


@tool
async def browse_later(work: str) -> str:
    """Let the browser work, as an async stream."""
    return str([last async for last in browser.astream(asked(work), stream_mode="values")][-1]["messages"][-1].content)


@tool
def exceed(work: str) -> str:
    """Let one work that asks for more than there is."""
    return str(greedy.invoke(asked(work)))


def work(way: str, text: str) -> str:
    """Let the lead work."""
    if way == "forgot":
        return str(create_agent(ChatOpenAI(model="gpt-test"), [look]).invoke(asked(text))["messages"][-1].content)
    tools = [research_later, browse_later] if way.startswith("a") else [research, browse, exceed]
    lead = DelegatedRunnable(create_agent(gpt, tools), "lead", grants=LEAD, depth=1, fan_out=8)
    if way == "ainvoke":
        return str(asyncio.run(lead.ainvoke(asked(text)))["messages"][-1].content)
    return str(lead.invoke(asked(text))["messages"][-1].content)


start(work)
