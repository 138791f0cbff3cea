"""Values of the broker's protocol as msgspec encodes them, and back: to equal values, by the types that are announced.

A value of a class comes with the name of its class, so that one of a union is told from the others.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Hashable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cache

import msgspec

from remit import errors
from remit.core import scope as scopes
from remit.core.scope import Detail
from remit.core.secret import Secret
from remit.errors import IntegrityError, PolicyError, RemitError

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
