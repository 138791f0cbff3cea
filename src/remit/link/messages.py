"""The messages of the link: a call of ``BrokerPort`` or ``Pending``, its answer or its error, and a notice.

What a message may hold is said by the protocol's own annotations, so it is written down once (``link.values``).
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from functools import lru_cache

import msgspec

from remit.errors import IntegrityError
from remit.link.values import Failure, plain, typed
from remit.ports.broker import BrokerPort, Notice
from remit.ports.pending import Pending


class Call(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A call of a method of the protocol, with its arguments by name."""

    method: str
    arguments: dict[str, object]


class Answer(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """What a method returned."""

    value: object


Message = Call | Answer | Failure

encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)
_PROTOCOL = {**vars(BrokerPort), **vars(Pending)}
_METHODS = {name: method for name, method in _PROTOCOL.items() if inspect.isfunction(method) and name[0] != "_"}


def decode(data: bytes) -> Message:
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
    """Return the arguments of a call as the method takes them."""
    hints = _hints(message.method)
    if hints is None or not message.arguments.keys() <= hints.keys():
        raise IntegrityError("there is no such call")
    return {name: typed(hints[name], value) for name, value in message.arguments.items()}


def answered(method: str, message: Answer) -> object:
    """Return what a method returned."""
    return typed((_hints(method) or {})["return"], message.value)


@lru_cache
def _hints(method: str) -> Mapping[str, object] | None:
    return typing.get_type_hints(_METHODS[method]) if method in _METHODS else None


def notice_bytes(notice: Notice) -> bytes:
    """Write a notice."""
    return encode(plain(notice))


def read_notice(data: bytes) -> Notice:
    """Read a notice."""
    found = typed(Notice, msgspec.msgpack.decode(data))
    assert isinstance(found, Notice)  # noqa: S101 - ``typed`` says so
    return found
