"""smolagents: an agent that works under a child grant, also where another manages it."""

from __future__ import annotations

from collections.abc import Generator
from inspect import signature
from typing import Any, Unpack

from smolagents import MultiStepAgent

from remit.integrations import client, stepped
from remit.sdk import current
from remit.sdk.detail import Wishes
from remit.sdk.verbs import BoundsOptions


def clients() -> dict[str, Any]:
    """Return arguments of ``OpenAIModel``: every request is made under the grant that is current then."""
    return {"client_kwargs": {"http_client": client()}}


def delegated(agent: MultiStepAgent, label: str, *, grants: Wishes, **bounds: Unpack[BoundsOptions]) -> MultiStepAgent:
    """Have each run of an agent work under a child of the grant that is current when it is called; return the agent."""
    run, wishes = agent.run, tuple(grants)
    shape = signature(run)

    def under(*args: Any, **kwargs: Any) -> Any:
        def steps() -> Generator[Any, None, None]:
            with current().delegate(label, grants=wishes, **bounds):
                yield from run(*args, **kwargs)

        if shape.bind(*args, **kwargs).arguments.get("stream"):
            return stepped(steps())
        with current().delegate(label, grants=wishes, **bounds):
            return run(*args, **kwargs)

    agent.run = under
    return agent
