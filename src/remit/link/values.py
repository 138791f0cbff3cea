"""Values of the protocols as msgpack has them, and back: what each may hold is said by the annotations alone.

For each type what writes it and what reads it is made once. What msgspec can write and check by itself it does; only
classes of a union, which come with their name, and values with a form of their own (details, secrets, errors) are
walked through.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from functools import cache, partial

import msgspec

from remit import errors
from remit.core import scope as scopes
from remit.core.request import GrantRequest
from remit.core.scope import Access, Detail
from remit.core.secret import Secret
from remit.errors import IntegrityError, PolicyError, RemitError

Turn = Callable[[typing.Any], typing.Any]

_ERRORS = {
    each.__name__: each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, RemitError)
}


class Failure(msgspec.Struct, frozen=True, tag=0, array_like=True):
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
    known = next(each for each in type(error).__mro__ if each.__name__ in _ERRORS)
    return Failure(
        known.__name__,
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


write_failure = msgspec.msgpack.Encoder().encode
read_failure = msgspec.msgpack.Decoder(Failure).decode


def _other(value: object) -> object:
    """Return what msgspec can write for a read-only mapping or another sequence, wherever it stands."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence | AbstractSet):
        return list(value)
    raise TypeError


encode = msgspec.msgpack.Encoder(enc_hook=_other).encode

_WRITE: Mapping[object, Turn] = {
    Detail: lambda detail: scopes.dump((detail,))[0],
    Access: lambda access: (access.resource, access.action, access.path),  # what it was judged by stays where it was
    Secret: lambda secret: secret.parts(),
    RemitError: failure,
}
_READ: Mapping[object, Turn] = {
    Detail: lambda value: scopes.read([value])[0],
    Access: lambda value: Access(*msgspec.convert(value, tuple[str, str, str])),
    Secret: Secret,
    RemitError: lambda value: raised(msgspec.convert(value, Failure)),
}
# what is asked for is bounded as where it was read first: a worker may have been taken over since
_BOUNDED: Mapping[object, Mapping[str, Turn]] = {GrantRequest: {"scope": scopes.parse}}
_TOLD_APART = {str, bytes, int, bool}  # by how they look
_PLAIN = {*_TOLD_APART, object, float, types.NoneType, datetime, timedelta}


@cache
def plain(kind: typing.Any) -> bool:
    """Whether msgspec writes a type, and checks what it reads of it, with nothing of it lost."""
    if kind in _WRITE or _is_one_of(kind):
        return False
    if (args := typing.get_args(kind)) or typing.get_origin(kind) is tuple:
        return all(plain(each) for each in args if each is not Ellipsis)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return True
    return kind in _PLAIN or ((fields := fields_of(kind)) is not None and all(map(plain, fields.values())))


def _is_one_of(kind: object) -> bool:
    """Whether a type is one of several, so that which one has to be said."""
    union = typing.get_origin(kind) in {typing.Union, types.UnionType}
    return union and len(kinds := _kinds(kind)) > 1 and not _TOLD_APART.issuperset(kinds)


def _kinds(union: object) -> list[typing.Any]:
    return [kind for kind in typing.get_args(union) if kind is not types.NoneType]


@cache
def fields_of(kind: typing.Any) -> Mapping[str, object] | None:
    """Return the fields of a class with their types; None: it is no dataclass and no Struct."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        names = kind.__struct_fields__
    elif isinstance(kind, type) and dataclasses.is_dataclass(kind):
        names = tuple(field.name for field in dataclasses.fields(kind) if field.init)
    else:
        return None
    hints = typing.get_type_hints(kind)
    return {name: hints[name] for name in names}


def _same(value: typing.Any) -> typing.Any:
    return value


@cache
def writer(kind: typing.Any) -> Turn:
    """Return what turns a value of a type into what ``encode`` takes."""
    if plain(kind):
        return _same
    if (write := _WRITE.get(kind)) is not None:
        return write
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in {typing.Union, types.UnionType}:
        return _union_writer(kind)
    if origin is not None and issubclass(origin, Mapping):
        item = writer(args[1])
        return lambda value: {name: item(each) for name, each in value.items()}
    if origin is tuple and args[-1] is not Ellipsis:
        items = [writer(each) for each in args]
        return lambda value: [write(each) for write, each in zip(items, value, strict=True)]
    if origin is not None:
        item = writer(args[0])
        return lambda value: [item(each) for each in value]
    return _class_writer(kind)


def _class_writer(kind: typing.Any) -> Turn:
    fields = [(name, writer(each)) for name, each in (fields_of(kind) or {}).items()]
    return lambda value: [write(getattr(value, name)) for name, write in fields]


def _union_writer(kind: object) -> Turn:
    kinds = _kinds(kind)
    if len(kinds) == 1:
        one = writer(kinds[0])
        return lambda value: None if value is None else one(value)
    named = {each: writer(each) for each in kinds}

    def write(value: object) -> object:
        if value is None:
            return None
        found = next(each for each in type(value).__mro__ if each in named)
        return [found.__name__, named[found](value)]

    return write


@cache
def reader(kind: typing.Any) -> Turn:
    """Return what turns what was decoded into a value of a type; it raises all sorts of errors (``read``)."""
    if plain(kind):
        return _same if kind is object else partial(msgspec.convert, type=kind)
    if (read := _READ.get(kind)) is not None:
        return read
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in {typing.Union, types.UnionType}:
        return _union_reader(kind)
    if origin is not None and issubclass(origin, Mapping):
        item = reader(args[1])
        return lambda value: {name: item(each) for name, each in value.items()}
    if origin is tuple and args[-1] is not Ellipsis:
        items = [reader(each) for each in args]
        return lambda value: tuple(read(each) for read, each in zip(items, value, strict=True))
    if origin is not None:
        item = reader(args[0])
        make: Turn = frozenset if issubclass(origin, AbstractSet) else tuple if origin is tuple else list
        return lambda value: make(item(each) for each in value)
    return _class_reader(kind)


def _class_reader(kind: typing.Any) -> Turn:
    bounded = _BOUNDED.get(kind, {})
    fields = [(name, bounded.get(name) or reader(each)) for name, each in (fields_of(kind) or {}).items()]
    return lambda value: kind(**{name: read(each) for (name, read), each in zip(fields, value, strict=True)})


def _union_reader(kind: object) -> Turn:
    kinds = _kinds(kind)
    if len(kinds) == 1:
        one = reader(kinds[0])
        return lambda value: None if value is None else one(value)
    named = {each.__name__: reader(each) for each in kinds}
    can_be_none = types.NoneType in typing.get_args(kind)

    def read(value: typing.Any) -> object:
        if value is None and can_be_none:
            return None
        name, held = value
        return named[name](held)

    return read


def read(kind: object, value: object) -> typing.Any:
    """Return the value of a type that its ``writer`` made, or raise IntegrityError."""
    try:
        return reader(kind)(value)
    except (msgspec.MsgspecError, TypeError, KeyError, ValueError, AttributeError, RecursionError) as error:
        raise IntegrityError("a message of the link does not hold what its call says") from error
