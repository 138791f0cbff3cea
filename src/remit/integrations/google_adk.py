"""Google ADK: a plugin under which each agent of a runner works under a grant of its own, by its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Unpack

from google.adk.plugins import BasePlugin
from google.genai import Client
from google.genai.types import HttpOptions

from remit import integrations
from remit.errors import DeniedError
from remit.sdk.detail import Wishes
from remit.sdk.grant import current_grant
from remit.sdk.verbs import BoundsOptions


def client(**options: Any) -> Client:
    """Return the ``client`` of ``Gemini`` models: every request is made under the grant that is current then."""
    by = HttpOptions(httpx_client=integrations.client("httpx"), httpx_async_client=integrations.aclient("httpx"))
    return Client(http_options=by, **options)


class TeamPlugin(BasePlugin):
    """Enters an agent's grant before its model and before its tools are called; one that has none is refused.

    What is set while an agent works is still set in its caller afterwards, so none is when an agent has ended.
    """

    def __init__(self, grants: integrations.Team) -> None:
        super().__init__(name="remit")
        self._grants = grants

    async def before_agent_callback(self, *, agent: Any, callback_context: Any) -> None:  # noqa: ARG002 - the interface
        with suppress(DeniedError):  # an agent that only orders others needs none, and has none then
            self._grants.enter(agent.name)

    async def before_model_callback(self, *, callback_context: Any, llm_request: Any) -> None:  # noqa: ARG002 - as above
        self._grants.enter(callback_context.agent_name)

    async def before_tool_callback(self, *, tool: Any, tool_args: Any, tool_context: Any) -> None:  # noqa: ARG002 - as above
        self._grants.enter(tool_context.agent_name)

    async def after_agent_callback(self, *, agent: Any, callback_context: Any) -> None:  # noqa: ARG002 - as above
        current_grant.set(None)


@contextmanager
def team(members: Mapping[str, Wishes], **bounds: Unpack[BoundsOptions]) -> Iterator[TeamPlugin]:
    """Return a plugin for the runner under which each agent works under a grant of its own, by the agent's name."""
    with integrations.team(members, **bounds) as grants:
        yield TeamPlugin(grants)
