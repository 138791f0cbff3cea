"""A grant for each agent of a framework: a request is made under the grant that is current when it is sent.

A framework makes its clients once and uses them for every agent. ``auth`` and ``clients`` prove each request under the
grant that is current then (``remit.current``); where no agent's grant is current nothing is sent. The modules beside
this one, a framework each, make a child grant current while an agent works. None is imported unless it is named.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from typing import Any, TypeVar

from remit.errors import DeniedError
from remit.sdk import Grant, current
from remit.sdk.detail import Wishes
from remit.sdk.grant import GrantHandle, Steps, auth_of, current_grant, not_hiding

T = TypeVar("T")
ExitCall = Callable[[object, BaseException | None, object], None]


class CurrentProof:
    """Signs each request under the grant that is current when it is sent."""

    def sync_auth_flow(self, request: Any) -> Steps:
        return held().signer.sync_auth_flow(request)

    def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        return held().signer.async_auth_flow(request)


def held() -> GrantHandle:
    """Return the agent's grant, or raise DeniedError: a run's own grant is not what an agent falls back to."""
    grant = current_grant.get()
    if grant is None:
        raise DeniedError("no agent's grant is current here", help="delegate one to the agent that works here")
    return grant


def auth(library: str = "httpx2") -> Any:
    """Return auth for ``httpx2`` or ``httpx`` that proves each request under the grant that is current then."""
    return auth_of(importlib.import_module(library), CurrentProof())


def client(library: str = "httpx2") -> Any:
    """Return a blocking client that does so."""
    return importlib.import_module(library).Client(auth=auth(library))


def aclient(library: str = "httpx2") -> Any:
    """Return an async client that does so."""
    return importlib.import_module(library).AsyncClient(auth=auth(library))


class Team:
    """A grant for each of several agents, by name."""

    def __init__(self, grants: dict[str, GrantHandle]) -> None:
        self._grants = dict(grants)

    def of(self, agent: str | None) -> GrantHandle:
        """Return an agent's grant, or raise DeniedError."""
        found = self._grants.get(agent or "")
        if found is None:
            raise DeniedError(f"the agent `{agent}` has no grant", help="name it where the team's grants are")
        return found

    def enter(self, agent: str | None) -> None:
        """Make this agent's grant current from here on; DeniedError if it has none, and then no grant is."""
        current_grant.set(None)
        current_grant.set(self.of(agent))


@contextmanager
def team(members: Mapping[str, Wishes], **bounds: Any) -> Iterator[Team]:
    """Delegate a child of the current grant to each agent by its name, until the block ends.

    In the block no grant is current until an agent's is entered.
    """
    own, grants = current(), dict[str, GrantHandle]()
    with ExitStack() as stack:
        stack.callback(current_grant.reset, current_grant.set(None))
        for name, wishes in members.items():
            grants[name] = grant = own.delegate(name, grants=wishes, **bounds)
            stack.push(_ending(grant))
        yield Team(grants)


def _ending(grant: Grant) -> ExitCall:
    def end(_kind: object, error: BaseException | None, _trace: object) -> None:
        with not_hiding(error):
            grant.revoke()

    return end


def stepped(steps: Generator[T, None, Any]) -> Iterator[T]:
    """Take each step in a context of its own: a generator's context variables are else its caller's, too."""
    context = copy_context()
    try:
        while True:
            try:
                item = context.run(next, steps)
            except StopIteration:
                return
            yield item
    finally:
        context.run(steps.close)


async def astepped(steps: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """Take each step of an async generator in a context of its own."""
    context = copy_context()

    async def step() -> T:
        return await anext(steps)

    try:
        while True:
            try:
                item = await asyncio.create_task(step(), context=context)
            except StopAsyncIteration:
                return
            yield item
    finally:
        await asyncio.create_task(steps.aclose(), context=context)
