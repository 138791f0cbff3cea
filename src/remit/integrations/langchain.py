"""LangChain and LangGraph: an agent that works under a child grant, wherever it is called."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from typing import Any, Unpack

from langchain_core.runnables import Runnable

from remit.integrations import aclient, astepped, client, stepped
from remit.sdk import acurrent, current
from remit.sdk.detail import Wishes
from remit.sdk.verbs import BoundsOptions


def clients() -> dict[str, Any]:
    """Return arguments of ``ChatOpenAI`` and its like: every request is made under the grant that is current then."""
    return {"http_client": client(), "http_async_client": aclient()}


class DelegatedRunnable(Runnable[Any, Any]):
    """An agent (or any Runnable) that works under a child of the grant that is current when it is called."""

    def __init__(
        self, agent: Runnable[Any, Any], label: str, *, grants: Wishes, **bounds: Unpack[BoundsOptions]
    ) -> None:
        self._agent, self._label, self._grants, self._bounds = agent, label, tuple(grants), bounds

    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:  # noqa: A002 - the interface's name
        with current().delegate(self._label, grants=self._grants, **self._bounds):
            return self._agent.invoke(input, config, **kwargs)

    async def ainvoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:  # noqa: A002 - as above
        async with (await acurrent()).delegate(self._label, grants=self._grants, **self._bounds):
            return await self._agent.ainvoke(input, config, **kwargs)

    def stream(self, input: Any, config: Any = None, **kwargs: Any) -> Iterator[Any]:  # noqa: A002 - as above
        def steps() -> Generator[Any, None, None]:
            with current().delegate(self._label, grants=self._grants, **self._bounds):
                yield from self._agent.stream(input, config, **kwargs)

        return stepped(steps())

    def astream(self, input: Any, config: Any = None, **kwargs: Any) -> AsyncIterator[Any]:  # noqa: A002 - as above
        async def steps() -> AsyncGenerator[Any, None]:
            async with (await acurrent()).delegate(self._label, grants=self._grants, **self._bounds):
                async for item in self._agent.astream(input, config, **kwargs):
                    yield item

        return astepped(steps())
