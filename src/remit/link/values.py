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


class Codec(typing.NamedTuple):
    """What turns a value of a type into what ``encode`` takes, and back; reading raises all sorts of errors."""

    write: Turn
    read: Turn


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
    url: str | None = None


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
        error.url,
    )


def raised(message: Failure) -> RemitError:
    """Return the error that a failure stands for."""
    found = _ERRORS.get(message.kind, RemitError)(
        message.detail, offending=message.offending, enough=message.enough, retry_after=message.retry_after
    )
    found.help, found.url = message.help, message.url
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

_OWN: Mapping[object, Codec] = {
    Detail: Codec(lambda detail: scopes.dump((detail,))[0], lambda value: scopes.read([value])[0]),
    Access: Codec(  # what it was judged by stays where it was
        lambda access: (access.resource, access.action, access.path),
        lambda value: Access(*msgspec.convert(value, tuple[str, str, str])),
    ),
    Secret: Codec(lambda secret: secret.parts(), Secret),
    RemitError: Codec(failure, lambda value: raised(msgspec.convert(value, Failure))),
}
# what is asked for is bounded as where it was read first: a worker may have been taken over since
_BOUNDED: Mapping[object, Mapping[str, Turn]] = {GrantRequest: {"scope": scopes.parse}}
_TOLD_APART = {str, bytes, int, bool}  # by how they look
_PLAIN = {*_TOLD_APART, object, float, types.NoneType, datetime, timedelta}


@cache
def plain(kind: typing.Any) -> bool:
    """Whether msgspec writes a type, and checks what it reads of it, with nothing of it lost."""
    if kind in _OWN or _is_one_of(kind):
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
def codec(kind: typing.Any) -> Codec:
    """Return what writes and reads values of a type."""
    if plain(kind):
        return Codec(_same, _same if kind is object else partial(msgspec.convert, type=kind))
    if (own := _OWN.get(kind)) is not None:
        return own
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in {typing.Union, types.UnionType}:
        return _union(kind)
    if origin is None:
        return _class(kind)
    if issubclass(origin, Mapping):
        item = codec(args[1])
        return Codec(*(lambda value, turn=turn: {name: turn(each) for name, each in value.items()} for turn in item))
    if origin is tuple and args[-1] is not Ellipsis:
        items = [codec(each) for each in args]
        return Codec(
            lambda value: [each.write(one) for each, one in zip(items, value, strict=True)],
            lambda value: tuple(each.read(one) for each, one in zip(items, value, strict=True)),
        )
    item = codec(args[0])
    make: Turn = frozenset if issubclass(origin, AbstractSet) else tuple if origin is tuple else list
    return Codec(lambda value: [item.write(each) for each in value], lambda value: make(item.read(e) for e in value))


def _class(kind: typing.Any) -> Codec:
    fields = {name: codec(each) for name, each in (fields_of(kind) or {}).items()}
    writes = [(name, each.write) for name, each in fields.items()]
    reads = list({**{name: each.read for name, each in fields.items()}, **_BOUNDED.get(kind, {})}.items())
    return Codec(
        lambda value: [write(getattr(value, name)) for name, write in writes],
        lambda value: kind(**{name: read(one) for (name, read), one in zip(reads, value, strict=True)}),
    )


def _union(kind: object) -> Codec:
    """One of several classes goes with its name, one that may be missing without."""
    kinds = _kinds(kind)
    if len(kinds) == 1:
        one = codec(kinds[0])
        return Codec(*(lambda value, turn=turn: None if value is None else turn(value) for turn in one))
    named = {each: codec(each) for each in kinds}
    by_name = {each.__name__: named[each].read for each in kinds}
    can_be_none = types.NoneType in typing.get_args(kind)

    def write(value: object) -> object:
        if value is None:
            return None
        found = next(each for each in type(value).__mro__ if each in named)
        return [found.__name__, named[found].write(value)]

    def read(value: typing.Any) -> object:
        if value is None and can_be_none:
            return None
        name, held = value
        return by_name[name](held)

    return Codec(write, read)


def read(kind: object, value: object) -> typing.Any:
    """Return the value of a type that its codec has written, or raise IntegrityError."""
    try:
        return codec(kind).read(value)
    except (msgspec.MsgspecError, TypeError, KeyError, ValueError, AttributeError, RecursionError) as error:
        raise IntegrityError("a message of the link does not hold what its call says") from error
