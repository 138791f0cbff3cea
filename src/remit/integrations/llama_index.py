"""LlamaIndex: a workflow whose agents each work under a grant of their own, and a tool under a child grant."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy
from typing import Any, Unpack

from llama_index.core.agent.workflow import AgentWorkflow
from llama_index.core.tools import FunctionTool

from remit import integrations
from remit.errors import DeniedError
from remit.sdk import acurrent
from remit.sdk.detail import Wishes
from remit.sdk.verbs import BoundsOptions

_team: ContextVar[integrations.Team | None] = ContextVar("remit_team", default=None)


def clients() -> dict[str, Any]:
    """Return arguments of the ``OpenAI`` model: every request is made under the grant that is current then.

    In a run they have its base URL, which the model does not look for under the name that OpenAI's own library uses.
    """
    base = {"api_base": os.environ["OPENAI_BASE_URL"]} if "OPENAI_BASE_URL" in os.environ else {}
    return {"http_client": integrations.client("httpx"), "async_http_client": integrations.aclient("httpx"), **base}


@contextmanager
def team(members: Mapping[str, Wishes], **bounds: Unpack[BoundsOptions]) -> Iterator[None]:
    """Let each agent of a GrantedWorkflow work under a grant of its own, by its name; one not named is refused."""
    with integrations.team(members, **bounds) as grants:
        token = _team.set(grants)
        try:
            yield
        finally:
            _team.reset(token)


class GrantedWorkflow(AgentWorkflow):
    """An ``AgentWorkflow`` in which an agent's grant is entered before its model and before its tools are called."""

    async def get_tools(self, agent_name: str, input_str: str | None = None) -> Sequence[Any]:
        """Enter the agent's grant: each step asks for its agent's tools first, in the task in which it then works."""
        grants = _team.get()
        if grants is None:
            raise DeniedError("this workflow has no team", help="run it in `with team({...}):`")
        grants.enter(agent_name)
        found: Sequence[Any] = await super().get_tools(agent_name, input_str)
        return found


def delegated(tool: FunctionTool, label: str, *, grants: Wishes, **bounds: Unpack[BoundsOptions]) -> FunctionTool:
    """Return a tool, such as one that runs an agent, that works under a child of the grant current when called."""
    found, acall = copy(tool), tool.acall
    wishes = tuple(grants)

    async def under(*args: Any, **kwargs: Any) -> Any:
        async with (await acurrent()).delegate(label, grants=wishes, **bounds):
            return await acall(*args, **kwargs)

    found.acall = under
    return found
