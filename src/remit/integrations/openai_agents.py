"""OpenAI Agents SDK: an agent as a tool under a child grant, and a grant for each of agents that hand over.

Not by ``RunHooks``: what these set is lost before the model is called.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from typing import Any, Unpack

from agents import FunctionTool, RunConfig, set_default_openai_client
from agents.run_config import CallModelData, ModelInputData
from agents.tool_context import ToolContext
from openai import AsyncOpenAI

from remit import integrations
from remit.sdk import acurrent
from remit.sdk.detail import Wishes
from remit.sdk.verbs import BoundsOptions


def use(**options: Any) -> None:
    """Make the default client of every model one under the grant that is current at each request.

    ``options`` are those of ``AsyncOpenAI``. Traces are not sent by it: they are nobody's grant.
    """
    set_default_openai_client(AsyncOpenAI(http_client=integrations.aclient(), **options), use_for_tracing=False)


def delegated(tool: FunctionTool, label: str, *, grants: Wishes, **bounds: Unpack[BoundsOptions]) -> FunctionTool:
    """Return a tool, such as ``agent.as_tool(...)``, that works under a child of the grant current when called."""
    found, invoke = copy(tool), tool.on_invoke_tool
    wishes = tuple(grants)

    async def on_invoke_tool(context: ToolContext[Any], arguments: str) -> Any:
        async with (await acurrent()).delegate(label, grants=wishes, **bounds):
            return await invoke(context, arguments)

    found.on_invoke_tool = on_invoke_tool
    return found


@contextmanager
def team(members: Mapping[str, Wishes], **bounds: Unpack[BoundsOptions]) -> Iterator[RunConfig]:
    """Return a ``run_config`` under which each agent works under a grant of its own, by the agent's name.

    It is entered before each call of a model, so also after a handoff. An agent that is not named is refused.
    """
    with integrations.team(members, **bounds) as grants:

        def enter(call: CallModelData[Any]) -> ModelInputData:
            grants.enter(call.agent.name)
            return call.model_data

        yield RunConfig(call_model_input_filter=enter)
