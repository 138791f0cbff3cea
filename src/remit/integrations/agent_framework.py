"""Microsoft Agent Framework: an agent as a tool under a child grant.

Not by middleware of the sub-agent: what it sets is gone before the sub-agent's answer, a stream, is read.
"""

from __future__ import annotations

from copy import copy
from typing import Any, Unpack

from agent_framework import FunctionTool
from openai import AsyncOpenAI

from remit.integrations import aclient
from remit.sdk import acurrent
from remit.sdk.detail import Wishes
from remit.sdk.verbs import BoundsOptions


def client(**options: Any) -> AsyncOpenAI:
    """Return the ``async_client`` of chat clients: every request is made under the grant that is current then."""
    return AsyncOpenAI(http_client=aclient(), **options)


def delegated(tool: FunctionTool, label: str, *, grants: Wishes, **bounds: Unpack[BoundsOptions]) -> FunctionTool:
    """Return a tool, such as ``agent.as_tool()``, that works under a child of the grant current when called."""
    found, invoke = copy(tool), tool.invoke
    wishes = tuple(grants)

    async def under(**call: Any) -> Any:
        async with (await acurrent()).delegate(label, grants=wishes, **bounds):
            return await invoke(**call)

    found.invoke = under
    return found
