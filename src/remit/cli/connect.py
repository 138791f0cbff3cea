"""One conversation with the broker that this environment names."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from remit.sdk._wire import Flow

T = TypeVar("T")


def ask(flow: Flow[T]) -> T:
    """Run a flow and return its result."""
    from remit.sdk.client import Client

    with Client() as client:
        return client.run(flow)
