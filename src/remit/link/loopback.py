"""A link without a process in between: every call and answer is encoded, and read back at the other end.

The suite runs the edges over it, so that nothing crosses that could not be encoded.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar, cast

from remit.errors import IntegrityError, RemitError
from remit.link import messages
from remit.link.messages import Answer, Call
from remit.link.values import Failure, failure, plain, raised
from remit.ports.broker import BrokerPort, Notice
from remit.ports.pending import Pending

Port = TypeVar("Port", BrokerPort, Pending)


class _Loopback:
    """Sends every call of the protocol through the bytes of its message."""

    def __init__(self, broker: BrokerPort | Pending) -> None:
        self._broker = broker

    def __getattr__(self, method: str) -> Callable[..., Awaitable[object]]:
        async def called(*args: object, **named: object) -> object:
            sent = messages.encode(messages.call(method, *args, **named))
            answer = messages.decode(await answered(self._broker, sent))
            if isinstance(answer, Failure):
                raise raised(answer)
            assert isinstance(answer, Answer)  # noqa: S101 - the other end answers
            return messages.answered(method, answer)

        return called

    def notices(self) -> AsyncIterator[Notice]:
        return _copied(cast("BrokerPort", self._broker).notices())


async def _copied(notices: AsyncIterator[Notice]) -> AsyncIterator[Notice]:
    async for notice in notices:
        yield messages.read_notice(messages.notice_bytes(notice))


async def answered(broker: BrokerPort | Pending, data: bytes) -> bytes:
    """Answer the bytes of a call: the authority's end of the link."""
    call = messages.decode(data)
    assert isinstance(call, Call)  # noqa: S101 - the other end calls
    try:
        arguments, method = messages.arguments(call), getattr(broker, call.method, None)
        if method is None:
            raise IntegrityError("there is no such call here")
        value = await method(**arguments)
    except RemitError as error:
        return messages.encode(failure(error))
    return messages.encode(Answer(plain(value)))


def loopback(broker: Port) -> Port:
    """Return a broker, or what is kept for edges, as it is behind a link."""
    return cast("Port", _Loopback(broker))
