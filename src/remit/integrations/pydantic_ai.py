"""Pydantic AI: a capability under which each run of an agent has a child grant."""

from __future__ import annotations

from typing import Any, Unpack

from pydantic_ai.capabilities import AbstractCapability

from remit.integrations import aclient
from remit.sdk import acurrent
from remit.sdk.detail import Wishes
from remit.sdk.verbs import BoundsOptions

http_client = aclient


class DelegatedCapability(AbstractCapability[Any]):
    """Every run of the agent works under a child of the grant that is current when it is called."""

    def __init__(self, label: str, *, grants: Wishes, **bounds: Unpack[BoundsOptions]) -> None:
        self._label, self._grants, self._bounds = label, tuple(grants), bounds

    async def wrap_run(self, ctx: Any, *, handler: Any) -> Any:  # noqa: ARG002 - the interface's
        async with (await acurrent()).delegate(self._label, grants=self._grants, **self._bounds):
            return await handler()
