"""A link without a process in between: every call, answer and notice is encoded, and read back at the other end.

The suite runs the edges over it, so that nothing crosses that could not be encoded.
"""

from __future__ import annotations

import typing
from collections.abc import AsyncIterator, Awaitable, Callable

from remit.errors import IntegrityError, RemitError
from remit.link.messages import Answer, Call, Noticed, Refusal, frame, from_authority, from_worker, method
from remit.link.values import failure, raised, read
from remit.ports.broker import BrokerPort, Notice

Port = typing.TypeVar("Port")
_HEAD = 4  # bytes of a frame before its message


async def answered(broker: object, data: bytes) -> bytes:
    """Answer a call, as the authority's end of a link does."""
    call = from_worker(data)
    if not isinstance(call, Call):
        raise IntegrityError("this is no call")
    try:
        asked = method(call.method)
        arguments, does = asked.arguments(call.arguments), getattr(broker, asked.name, None)
        if does is None:
            raise IntegrityError("there is no such call here")
        value = await does(**arguments)
    except RemitError as error:
        return frame(Refusal(call.number, failure(error)))[_HEAD:]
    return frame(Answer(call.number, asked.answer(value)))[_HEAD:]


class _Loopback:
    """Sends every call of the protocol through the bytes of its message."""

    def __init__(self, broker: object) -> None:
        self._broker = broker

    def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
        asked = method(name)

        async def called(*args: object, **named: object) -> object:
            data = asked.call(1, asked.bound(args, named))
            answer = from_authority(await answered(self._broker, data[_HEAD:]))
            if isinstance(answer, Refusal):
                raise raised(answer.failure)
            assert isinstance(answer, Answer)  # noqa: S101 - the other end answers
            return read(asked.returns, answer.value)

        return called

    def notices(self) -> AsyncIterator[Notice]:
        notices = typing.cast("BrokerPort", self._broker).notices()  # it tells of what ends from this call on
        sent = (from_authority(frame(Noticed(1, notice))[_HEAD:]) async for notice in notices)
        return (message.notice async for message in sent if isinstance(message, Noticed))


def loopback(broker: Port) -> Port:
    """Return a broker, or what is kept for edges, as it is behind a link."""
    return typing.cast("Port", _Loopback(broker))
