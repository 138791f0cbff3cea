"""A link without a process in between: every call, answer and notice is encoded, and read back at the other end.

What a message may hold is said by the annotations of ``BrokerPort`` and ``Pending``, so it is written down once
(``link.values``). The suite runs the edges over it, so that nothing crosses that could not be encoded.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import lru_cache

import msgspec

from remit.errors import IntegrityError, RemitError
from remit.link.values import Failure, failure, plain, raised, typed
from remit.ports.broker import BrokerPort, Notice
from remit.ports.pending import Pending

Port = typing.TypeVar("Port", BrokerPort, Pending)


class Call(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A call of a method of the protocol, with its arguments by name."""

    method: str
    arguments: dict[str, object]


class Answer(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """What a method returned."""

    value: object


encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[Call | Answer | Failure] = msgspec.msgpack.Decoder(Call | Answer | Failure)
_PROTOCOL = {**vars(BrokerPort), **vars(Pending)}
_METHODS = {name: method for name, method in _PROTOCOL.items() if inspect.isfunction(method) and name[0] != "_"}


@lru_cache
def hints(method: str) -> Mapping[str, object]:
    """Return the types of a method's arguments, and of its answer (``return``)."""
    if method not in _METHODS:
        raise IntegrityError("there is no such call")
    return typing.get_type_hints(_METHODS[method])


def decode(data: bytes) -> Call | Answer | Failure:
    """Read a message, or raise IntegrityError."""
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise IntegrityError("a message of the link cannot be read") from error


def call(method: str, *args: object, **named: object) -> Call:
    """Return the call of a method."""
    bound = inspect.signature(_METHODS[method]).bind(None, *args, **named).arguments
    return Call(method, {name: plain(value) for name, value in list(bound.items())[1:]})


def arguments(message: Call) -> dict[str, object]:
    """Return the arguments of a call as the method takes them, or raise IntegrityError."""
    kinds = hints(message.method)
    if not message.arguments.keys() <= kinds.keys():
        raise IntegrityError("there is no such call")
    return {name: typed(kinds[name], value) for name, value in message.arguments.items()}


async def answered(broker: BrokerPort | Pending, data: bytes) -> bytes:
    """Answer the bytes of a call: the authority's end of the link."""
    message = decode(data)
    assert isinstance(message, Call)  # noqa: S101 - the other end calls
    try:
        named, method = arguments(message), getattr(broker, message.method, None)
        if method is None:
            raise IntegrityError("there is no such call here")
        value = await method(**named)
    except RemitError as error:
        return encode(failure(error))
    return encode(Answer(plain(value)))


class _Loopback:
    """Sends every call of the protocol through the bytes of its message."""

    def __init__(self, broker: BrokerPort | Pending) -> None:
        self._broker = broker

    def __getattr__(self, method: str) -> Callable[..., Awaitable[object]]:
        async def called(*args: object, **named: object) -> object:
            answer = decode(await answered(self._broker, encode(call(method, *args, **named))))
            if isinstance(answer, Failure):
                raise raised(answer)
            assert isinstance(answer, Answer)  # noqa: S101 - the other end answers
            return typed(hints(method)["return"], answer.value)

        return called

    def notices(self) -> AsyncIterator[Notice]:
        notices = typing.cast("BrokerPort", self._broker).notices()  # it tells of what ends from this call on
        sent = (encode(plain(notice)) async for notice in notices)
        return (typing.cast("Notice", typed(Notice, msgspec.msgpack.decode(data))) async for data in sent)


def loopback(broker: Port) -> Port:
    """Return a broker, or what is kept for edges, as it is behind a link."""
    return typing.cast("Port", _Loopback(broker))
