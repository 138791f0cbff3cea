"""A link without a process in between: every call, answer and notice is encoded, and read back at the other end.

The suite runs the surfaces over it, so that nothing crosses that could not be encoded.
"""

from __future__ import annotations

import typing
from collections.abc import AsyncIterator, Mapping

from remit.errors import IntegrityError, RemitError
from remit.link.messages import (
    Answer,
    Call,
    Method,
    Noticed,
    Refusal,
    RemotePort,
    from_authority,
    from_worker,
    method,
)
from remit.link.values import encode, failure, raised, read
from remit.ports.broker import BrokerPort, Notice

Port = typing.TypeVar("Port")


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
        return encode(Refusal(call.number, failure(error)))
    return encode(Answer(call.number, asked.answer(value)))


def loopback(broker: Port) -> Port:
    """Return a broker, or what is kept for workers, as it is behind a link."""

    async def call(asked: Method, arguments: Mapping[str, object]) -> object:
        answer = from_authority(await answered(broker, asked.call(1, arguments)))
        if isinstance(answer, Refusal):
            raise raised(answer.failure)
        assert isinstance(answer, Answer)  # noqa: S101 - the other end answers
        return read(asked.returns, answer.value)

    def notices() -> AsyncIterator[Notice]:
        notices = typing.cast("BrokerPort", broker).notices()  # it tells of what ends from this call on
        sent = (from_authority(encode(Noticed(1, notice))) async for notice in notices)
        return (message.notice async for message in sent if isinstance(message, Noticed))

    return typing.cast("Port", RemotePort(call, notices=notices))
