"""CrewAI: a grant for each agent of a crew, by its role.

CrewAI goes on when a hook fails, unless it fails by ``HookAborted``: every error becomes that here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Unpack

import httpx
from crewai.hooks.dispatch import HookAborted, InterceptionPoint, scoped_hooks
from crewai.llms.hooks.base import BaseInterceptor

from remit import integrations
from remit.errors import InvalidRequestError
from remit.sdk.detail import Wishes
from remit.sdk.verbs import BoundsOptions


class Interceptor(BaseInterceptor[httpx.Request, httpx.Response]):
    """For ``LLM(interceptor=...)``: each request is made under the grant that is current when it is sent. In a run."""

    def on_outbound(self, message: httpx.Request) -> httpx.Request:
        grant = integrations.held()
        if not grant.place.in_run:
            raise InvalidRequestError("an interceptor cannot prove a grant outside a run", help="use `remit run`")
        signed: httpx.Request = next(grant.signer.steps(message))
        return signed

    async def aon_outbound(self, message: httpx.Request) -> httpx.Request:
        return self.on_outbound(message)

    def on_inbound(self, message: httpx.Response) -> httpx.Response:
        return message

    async def aon_inbound(self, message: httpx.Response) -> httpx.Response:
        return message


@contextmanager
def team(members: Mapping[str, Wishes], **bounds: Unpack[BoundsOptions]) -> Iterator[None]:
    """Let each agent of a crew work under a grant of its own, by its role; one that is not named is refused."""
    with integrations.team(members, **bounds) as grants:

        def enter(call: Any) -> None:
            try:
                grants.enter(call.agent.role if call.agent is not None else None)
            except Exception as error:
                raise HookAborted(str(error), "remit") from error

        with scoped_hooks({InterceptionPoint.PRE_MODEL_CALL: [enter], InterceptionPoint.PRE_TOOL_CALL: [enter]}):
            yield
