"""AG2: a middleware under which each turn of an agent has a child grant."""

from __future__ import annotations

from typing import Any, Unpack

from ag2.middleware import BaseMiddleware, Middleware

from remit.integrations import aclient
from remit.sdk import acurrent
from remit.sdk.detail import Wishes
from remit.sdk.verbs import BoundsOptions

http_client = aclient


class _Delegating(BaseMiddleware):
    def __init__(self, event: Any, context: Any, *, label: str, grants: Wishes, bounds: BoundsOptions) -> None:
        super().__init__(event, context)
        self._label, self._grants, self._bounds = label, grants, bounds

    async def on_turn(self, call_next: Any, event: Any, context: Any) -> Any:
        async with (await acurrent()).delegate(self._label, grants=self._grants, **self._bounds):
            return await call_next(event, context)


def delegated(label: str, *, grants: Wishes, **bounds: Unpack[BoundsOptions]) -> Middleware:
    """Return a middleware: each turn of the agent works under a child of the grant that is current when it is asked."""
    return Middleware(_Delegating, label=label, grants=tuple(grants), bounds=bounds)
