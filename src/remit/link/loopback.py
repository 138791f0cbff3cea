"""A link without a process in between: every call, answer and notice is encoded, and read back at the other end.

What a message may hold is said by the annotations of ``BrokerPort`` and ``Pending``, so it is written down once; a
value of a class comes with the name of its class, so that one of a union is told from the others. The suite runs the
edges over it, so that nothing crosses that could not be encoded.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cache

import msgspec

from remit import errors
from remit.core import scope as scopes
from remit.core.scope import Detail
from remit.core.secret import Secret
from remit.errors import IntegrityError, PolicyError, RemitError
from remit.ports.broker import BrokerPort, Notice
from remit.ports.pending import Pending

Port = typing.TypeVar("Port", BrokerPort, Pending)

_ERRORS = {
    each.__name__: each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, RemitError)
}


class Failure(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """What a method raised; ``inside`` is what the audit has, where the caller is told less."""

    kind: str
    detail: str
    help: str | None
    offending: list[dict[str, object]]
    enough: dict[str, object] | None
    retry_after: int | None
    version: str | None = None
    inside: Failure | None = None


def failure(error: RemitError) -> Failure:
    """Return an error as data; of its cause nothing goes along."""
    version, inside = (error.version, error.inside) if isinstance(error, PolicyError) else (None, None)
    return Failure(
        type(error).__name__,
        error.detail,
        error.help,
        [dict(detail) for detail in error.offending],
        None if error.enough is None else dict(error.enough),
        error.retry_after,
        version,
        None if inside is None else failure(inside),
    )


def raised(message: Failure) -> RemitError:
    """Return the error that a failure stands for."""
    found = _ERRORS.get(message.kind, RemitError)(
        message.detail, offending=message.offending, enough=message.enough, retry_after=message.retry_after
    )
    found.help = message.help
    if isinstance(found, PolicyError):
        inside = None if message.inside is None else raised(message.inside)
        found.version, found.inside = message.version, inside if isinstance(inside, PolicyError) else None
    return found


def plain(value: object) -> object:
    """Return a value of the protocol as msgspec encodes it."""
    if isinstance(value, str | bytes):
        return value
    if (write := _WRITE.get(type(value))) is not None:
        return write(value)
    if (names := _fields(typing.cast("Hashable", type(value)))) is not None:
        return {"": type(value).__name__, **{name: plain(getattr(value, name)) for name in names}}
    if isinstance(value, RemitError):
        return msgspec.to_builtins(failure(value))
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, Sequence | AbstractSet) else msgspec.to_builtins(value)


def typed(kind: object, value: object) -> object:
    """Return the value of a type that ``plain`` wrote, or raise IntegrityError."""
    try:
        return _typed(kind, value)
    except (msgspec.MsgspecError, TypeError, KeyError, ValueError, AttributeError) as error:
        raise IntegrityError("a message of the link does not hold what its call says") from error


_WRITE: Mapping[type, Callable[[typing.Any], object]] = {
    Detail: lambda detail: scopes.dump((detail,))[0],
    Secret: lambda secret: dict(secret.parts()),
}
_READ: Mapping[object, Callable[[typing.Any], object]] = {
    Detail: lambda value: scopes.read([value])[0],
    Secret: Secret,
    RemitError: lambda value: raised(msgspec.convert(value, Failure)),
    object: lambda value: value,
}


@cache
def _fields(kind: typing.Any) -> Mapping[str, object] | None:
    """Return the fields of a class with their types; None: it is no dataclass and no Struct."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        names = kind.__struct_fields__
    elif isinstance(kind, type) and dataclasses.is_dataclass(kind):
        names = tuple(field.name for field in dataclasses.fields(kind))
    else:
        return None
    hints = typing.get_type_hints(kind)
    return {name: hints[name] for name in names}


def _typed(kind: object, value: typing.Any) -> object:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in {typing.Union, types.UnionType}:
        return _one_of(args, value)
    if origin is not None:
        return _collection(origin, args, value)
    if (read := _READ.get(kind)) is not None:
        return read(value)
    if (fields := _fields(kind)) is None:
        return msgspec.convert(value, typing.cast("type[object]", kind))
    make = typing.cast("Callable[..., object]", kind)
    return make(**{name: _typed(fields[name], item) for name, item in value.items() if name})


def _collection(origin: type, args: Sequence[object], value: typing.Any) -> object:
    if issubclass(origin, Mapping):
        return {name: _typed(args[1], item) for name, item in value.items()}
    if origin is tuple and args[-1] is not Ellipsis:
        return tuple(_typed(each, item) for each, item in zip(args, value, strict=True))
    items = (_typed(args[0], item) for item in value)
    return frozenset(items) if issubclass(origin, AbstractSet) else tuple(items) if origin is tuple else list(items)


def _one_of(kinds: Sequence[object], value: typing.Any) -> object:
    """Return a value of a union: of the class that it names, or of the one type that it can be of."""
    if value is None and types.NoneType in kinds:
        return None
    rest = [kind for kind in kinds if kind is not types.NoneType]
    if len(rest) > 1:
        named = {kind.__name__: kind for kind in rest if isinstance(kind, type)}
        name = value.get("") if isinstance(value, dict) else type(value).__name__
        rest = [named[name] if name in named else named[Secret.__name__]]  # a secret is all parts
    return _typed(rest[0], value)


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


@cache
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


async def answered(broker: BrokerPort | Pending, data: bytes) -> bytes:
    """Answer the bytes of a call: the authority's end of the link."""
    message = decode(data)
    assert isinstance(message, Call)  # noqa: S101 - the other end calls
    try:
        kinds, method = hints(message.method), getattr(broker, message.method, None)
        if method is None or not message.arguments.keys() <= kinds.keys():
            raise IntegrityError("there is no such call here")
        value = await method(**{name: typed(kinds[name], item) for name, item in message.arguments.items()})
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
