"""The messages of a link, in msgpack.

A worker sends calls, batches of uses with the outcomes of earlier ones, and which notice it has acted on. What a call
may hold, and what its answer, is said by the annotations of the protocols: there is no second list of messages. What
every request through the gateway needs has Structs of its own, which msgspec reads and checks without help.
"""

from __future__ import annotations

import gc
import inspect
import typing
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import cache

import msgspec

from remit.errors import IntegrityError, InvalidRequestError
from remit.link.values import Failure, codec, encode, read
from remit.ports.broker import BrokerPort, Notice, UseRequest
from remit.ports.connections import ConnectionPort, ProviderPort
from remit.ports.events import EventPort
from remit.ports.identity import Workloads
from remit.ports.pending import Pending
from remit.ports.reports import ReportPort
from remit.ports.runs import RunPort
from remit.ports.targets import DocumentPort, EnginePort
from remit.ports.tokens import TokenPort
from remit.ports.trust import CertificatePort, TrustPort

# whose methods can be called over a link; a method's name stands in one of them
PROTOCOLS: tuple[type, ...] = (
    *(BrokerPort, Pending, TokenPort, TrustPort, EventPort, Workloads, RunPort, ReportPort),
    *(CertificatePort, EnginePort, DocumentPort, ConnectionPort, ProviderPort),
)
MAX_CALL = 9 << 14  # bytes of a message from a worker: two requests of 64 KiB, and what belongs to them
MAX_ITEMS = 2_560  # of a call, whatever they are: a request for a grant has no more, and they are read in 4 ms
MAX_BEGUN = 1 << 16  # bytes that may begin a list or a map, or stand in text: as many lists are made in 3 ms
MAX_ENDED = 512  # outcomes in a batch
MAX_ANSWER = 1 << 26  # of one from the authority, which is believed
MAX_USES = 256  # in a batch, of which a worker has one under way
MAX_USES_OF_TASK = 64  # of these
MAX_CALLS = 32  # that a worker may have unanswered
MAX_CALLS_OF_TASK = 4  # of these
MAX_LOOKS = 256  # as above, of calls that look at memory alone
MAX_LOOKS_OF_TASK = 64
MAX_WAITS = 64  # as above, of calls that wait for a human
MAX_WAITS_OF_TASK = 8
_BEGINNING = bytes([*range(0x80, 0xA0), *range(0xDC, 0xE0)])  # of lists and maps in msgpack
SMALL = 4_096  # bytes of a message that has not so many items
Message = typing.TypeVar("Message")


class Call(msgspec.Struct, frozen=True, tag=1, array_like=True, gc=False):
    """A call of a method of a protocol; ``number`` is that of its answer."""

    number: int
    method: str
    arguments: list[object]


class Cancel(msgspec.Struct, frozen=True, tag=4, array_like=True, gc=False):
    """Nobody waits any more for the answer to a call."""

    number: int


class EndedUse(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How a use ended that the authority permitted over this link, by the id of its request."""

    request: str
    decision: str
    code: str | None
    action: str | None


class Batch(msgspec.Struct, frozen=True, tag=2, array_like=True):
    """Uses that are asked for together, and how earlier ones ended."""

    uses: list[UseRequest]
    ended: list[EndedUse]


class Acted(msgspec.Struct, frozen=True, tag=3, array_like=True, gc=False):
    """A notice has been acted on, and all before it."""

    number: int


class Answer(msgspec.Struct, frozen=True, tag=1, array_like=True):
    """What a method returned."""

    number: int
    value: object


class DocumentAnswer(msgspec.Struct, frozen=True, tag=1, array_like=True, gc=False):
    """An answer that may be long: it holds nothing that would take long to decode."""

    number: int
    value: bytes


class Refusal(msgspec.Struct, frozen=True, tag=2, array_like=True):
    """What a method raised."""

    number: int
    failure: Failure


class Permitted(msgspec.Struct, frozen=True, tag=1, array_like=True, gc=False):
    """One use is permitted; the rest of ``Use`` is known to who asked."""

    task: str
    root: str
    version: int


class Permits(msgspec.Struct, frozen=True, tag=3, array_like=True):
    """The answer to a batch: one for each use, and whether the outcomes are on record."""

    uses: list[Permitted | Failure]
    lost: Failure | None


class Noticed(msgspec.Struct, frozen=True, tag=4, array_like=True):
    """What the broker has told, in order."""

    number: int
    notice: Notice


class Leave(msgspec.Struct, frozen=True, tag=5, array_like=True, gc=False):
    """The authority is about to end: the worker is to end what it serves, say how that went, and end the link."""


FromWorker = Call | Batch | Acted
FromAuthority = Answer | Refusal | Permits | Noticed | Leave

_from_worker: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)
_call_or_cancel: msgspec.msgpack.Decoder[Call | Cancel] = msgspec.msgpack.Decoder(Call | Cancel)
_from_authority: msgspec.msgpack.Decoder[FromAuthority] = msgspec.msgpack.Decoder(FromAuthority)
_answer: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)
_document: msgspec.msgpack.Decoder[DocumentAnswer] = msgspec.msgpack.Decoder(DocumentAnswer)
_answer_or_refusal: msgspec.msgpack.Decoder[Answer | Refusal] = msgspec.msgpack.Decoder(Answer | Refusal)


def from_worker(data: bytes) -> FromWorker:
    """Read a worker's message, or raise IntegrityError; what is large is bounded by what it holds, too."""
    return _bounded(_from_worker, data)


def call_or_cancel(data: bytes, *, believed: bool) -> Call | Cancel:
    """Read what whoever answers calls is sent, or raise IntegrityError; bounded as above unless it is ``believed``."""
    return (_read if believed else _bounded)(_call_or_cancel, data)


def _bounded(decoder: msgspec.msgpack.Decoder[Message], data: bytes) -> Message:
    found = _decoded(decoder, data)
    if len(data) > SMALL and isinstance(found, Call) and not few(found.arguments):
        raise IntegrityError("a call has too many items")
    return found


def answer_from_worker(data: bytes) -> Answer | Refusal | DocumentAnswer:
    """Read what a worker answers, bounded as a call is, or raise IntegrityError; a refusal is small."""
    if len(data) <= SMALL:
        return _decoded(_answer_or_refusal, data)
    if len(data) > MAX_CALL:
        return _read(_document, data)
    found = _decoded(_answer, data)
    if not few(found.value):
        raise IntegrityError("an answer has too many items")
    return found


def _decoded(decoder: msgspec.msgpack.Decoder[Message], data: bytes) -> Message:
    if len(data) > MAX_BEGUN and not _few_begin(data):
        raise IntegrityError("a message has too many lists")
    if large := len(data) > SMALL:
        gc.disable()  # else it would look again and again at what is being made: ten times the cost
    try:
        return _read(decoder, data)
    finally:
        if large:
            gc.enable()


def _few_begin(data: bytes) -> bool:
    return len(data) - len(data.translate(None, _BEGINNING)) <= MAX_BEGUN


def few(value: object) -> bool:
    """Whether a value has at most MAX_ITEMS items, at all depths together."""
    left, looked = MAX_ITEMS, [value]
    while looked:
        each = looked.pop()
        if isinstance(each, dict | list):
            left -= len(each)
            if left < 0:
                return False
            looked.extend(each.values() if isinstance(each, dict) else each)
    return True


def from_authority(data: bytes) -> FromAuthority:
    """Read a message of the authority, or raise IntegrityError."""
    return _read(_from_authority, data)


def _read(decoder: msgspec.msgpack.Decoder[Message], data: bytes) -> Message:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise IntegrityError("a message of the link cannot be read") from error


class Method:
    """A method of a protocol: its arguments in order, with their types, and its answer's."""

    def __init__(self, name: str, function: typing.Any) -> None:
        hints, parameters = typing.get_type_hints(function), list(inspect.signature(function).parameters.values())[1:]
        self.name, self.returns = name, hints["return"]
        self.parameters = {each.name: hints[each.name] for each in parameters}
        self._defaults = {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}
        self._writers = [codec(kind).write for kind in self.parameters.values()]
        self.answer = codec(self.returns).write

    def bound(self, args: Sequence[object], named: Mapping[str, object]) -> dict[str, object]:
        """Return all arguments of a call by name."""
        given = {**self._defaults, **dict(zip(self.parameters, args, strict=False)), **named}
        if given.keys() != self.parameters.keys() or len(args) > len(self.parameters):
            raise TypeError(self.name)
        return {name: given[name] for name in self.parameters}

    def call(self, number: int, arguments: Mapping[str, object], *, believed: bool = False) -> bytes:
        """Return a call as it is sent; InvalidRequestError for what cannot be, or has more items than is taken.

        Who is ``believed``, the authority, may send as many as go into a call: a thousand leases that end are many.
        """
        try:
            values = [write(value) for write, value in zip(self._writers, arguments.values(), strict=True)]
            sent = encode(Call(number, self.name, values))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidRequestError("a value is not one that can be sent") from error
        items = believed or len(sent) <= SMALL or (few(values) and _few_begin(sent))
        if len(sent) > MAX_CALL or not items:
            raise InvalidRequestError("the request is too large")
        return sent

    def arguments(self, values: Sequence[object]) -> dict[str, object]:
        """Return the arguments that ``call`` has written, by name, or raise IntegrityError."""
        if len(values) != len(self.parameters):
            raise IntegrityError("a call has not the arguments of its method")
        return {name: read(kind, value) for (name, kind), value in zip(self.parameters.items(), values, strict=True)}


class RemotePort:
    """All protocols, as they are answered at the other end of a link; ``own`` are methods that are not simply sent."""

    def __init__(
        self, call: Callable[[Method, Mapping[str, object]], Awaitable[object]], **own: Callable[..., object]
    ) -> None:
        self._call = call
        vars(self).update(own)

    def __getattr__(self, name: str) -> Callable[..., Coroutine[None, None, object]]:
        asked, call = method(name), self._call

        async def called(*args: object, **named: object) -> object:
            return await call(asked, asked.bound(args, named))

        setattr(self, name, called)
        return called


@cache
def functions() -> Mapping[str, object]:
    """Return the methods of the protocols that can be called, by name."""
    found = {name: each for protocol in PROTOCOLS for name, each in vars(protocol).items() if name[0] != "_"}
    return {name: each for name, each in found.items() if inspect.iscoroutinefunction(each)}


@cache
def _method(name: str) -> Method | None:
    return Method(name, functions()[name]) if name in functions() else None


def method(name: str) -> Method:
    """Return a method of the protocols, or raise IntegrityError."""
    found = _method(name) if name in functions() else None
    if found is None:
        raise IntegrityError("there is no such call")
    return found
