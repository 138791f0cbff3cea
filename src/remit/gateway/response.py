"""Responses on their way through, scrubbed, a slice a turn; the lines that frame a request.

What is long is not looked through at one go, whatever it inflates to and however many come together: others get their
turns in between. Until it is, its upstream is not read, and the client is sent no more than it takes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from itertools import chain
from typing import Protocol

from remit.errors import ConnectError, RemitError, UpstreamError
from remit.gateway.codings import LABELS
from remit.gateway.framing import BODILESS, Fields, Status
from remit.gateway.patterns import SecretPatterns
from remit.gateway.scrub import TURN, Inflated, Scrubber, searched
from remit.gateway.target import BoundCredential
from remit.gateway.websocket import MessageStream
from remit.jose import challenge

CLOSE = b"connection: close\r\n"  # what is left of a body must not be read as a request
# `alt-svc` would send the client round the gateway; only remit says what remit did (`proxy-status`, `remit-dropped`);
# cookies are never sent on, so none are handed out.
_DROPPED = frozenset(
    (
        b"alt-svc connection content-length keep-alive proxy-authenticate proxy-authentication-info proxy-connection "
        b"proxy-status remit-dropped set-cookie set-cookie2 te trailer transfer-encoding upgrade"
    ).split()
)
_LINES = (b"text/event-stream", b"application/x-ndjson", b"application/jsonl", b"application/json-seq")
_IDENTITY = frozenset({b"", b"identity"})


def framing_lines(method: str, fields: Fields, anew: bytes | None, *, streams: bool, keep: bool) -> bytes:
    """Return the lines that frame a request, and end its head.

    ``anew`` is a body that is written anew, and ``streams`` says that it goes on as it comes; ``keep`` says whether the
    upstream is trusted to read all of a body before it takes another request.
    """
    if anew is None and not streams:
        return b"\r\n" if method in BODILESS else b"content-length: 0\r\n\r\n"
    close = b"" if keep else CLOSE
    if anew is None and fields.chunked:
        return close + b"transfer-encoding: chunked\r\n\r\n"
    return close + b"content-length: %d\r\n\r\n" % (len(anew) if anew is not None else fields.length or 0)


class ResponsePlan:
    """How responses with one head go on. Made once for equal heads; the caller has searched the raw head already.

    ``heads`` are for the client: where its connection is closed afterwards, and where it is kept.
    """

    __slots__ = ("chunked", "coding", "has_body", "heads", "lines", "status")

    def __init__(self, status: Status, fields: Fields, *, has_body: bool) -> None:
        coding = (fields.get(b"content-encoding") or b"").lower()
        if has_body and coding not in _IDENTITY and coding not in LABELS:
            raise UpstreamError("the upstream answered in an encoding that remit did not ask for and cannot look into")
        self.status, self.has_body = status.code, has_body
        self.coding = LABELS.get(coding) if has_body else None
        self.lines = (fields.get(b"content-type") or b"").startswith(_LINES)
        self.chunked = has_body and (self.coding is not None or fields.length is None)
        dropped = _DROPPED | fields.nominated | ({b"content-encoding"} if self.coding is not None else set())
        lines = [b"HTTP/1.1 %d %b\r\n" % (status.code, status.reason)]
        lines += [b"%b: %b\r\n" % (name, value) for name, value in fields.items if name not in dropped]
        if self.chunked:
            lines.append(b"transfer-encoding: chunked\r\n")
        elif fields.length is not None and status.code != 204:  # noqa: PLR2004 - RFC 9110 §8.6: none on 204
            lines.append(b"content-length: %d\r\n" % fields.length)
        head = b"".join(lines)
        self.heads = (head + b"connection: close\r\n\r\n", head + b"\r\n")

    @property
    def challenges(self) -> Sequence[str]:
        """What each `WWW-Authenticate` says."""
        split = (line.partition(b": ") for line in self.heads[0].split(b"\r\n"))
        return [value.decode("latin-1") for name, _, value in split if name.lower() == b"www-authenticate"]


def check_reach(plan: ResponsePlan, credential: BoundCredential) -> None:
    """Raise ConnectError where an upstream says that its human's token does not reach (RFC 6750 §3.1)."""
    if plan.status != HTTPStatus.FORBIDDEN or not credential.token:
        return
    said, name = challenge.read(plan.challenges), credential.target.resource.name
    if said.error != challenge.INSUFFICIENT:
        return
    more = "".join(f" --scope {scope}" for scope in said.scopes)
    raise ConnectError(
        f"the server wants more than `{name}` was connected for: {' '.join(said.scopes) or 'it does not say what'}",
        help=f"where the operator agrees, the task's human connects for more: `remit connect {name}{more}`",
    )


@dataclass(slots=True, eq=False, repr=False)
class ResponseBody:
    """The body of one response on its way. ``feed`` and ``more`` raise LeakError or UpstreamError.

    What takes long is taken in turns of some ``TURN`` bytes: while ``busy``, ``more`` is due in a later turn of the
    loop.
    """

    _patterns: SecretPatterns
    _plan: ResponsePlan
    _body: Inflated | Scrubber | MessageStream | None = None
    _steps: Iterator[bytes] | None = None
    _done: bool = False

    @property
    def busy(self) -> bool:
        """Whether there is more to look through before anything else is to be fed."""
        return self._steps is not None

    def when_ready(self, step: Callable[[], None]) -> None:
        """Do a step once ``more`` makes something."""
        step()

    def head(self, head: bytes) -> bytes:
        """Return what goes ahead of all of a body."""
        return head

    def feed(self, payload: bytes, *, done: bool) -> bytes:
        """Take payload of the upstream's body; return bytes for the client. ``done``: there is no more."""
        coding = self._plan.coding
        if done and self._body is None and coding is None and searched(self._patterns, payload):  # as most are
            return self._framed(payload, done=True)
        if self._body is None:
            scrubber = Scrubber(self._patterns, lines=self._plan.lines)
            self._body = scrubber if coding is None else Inflated(scrubber, coding)
        self._body.meter.fed += len(payload)
        steps = self._body.steps(payload)
        self._steps = steps if self._steps is None else chain(self._steps, steps)
        self._done = done
        return self.more()

    def more(self) -> bytes:
        """Return what another turn makes of what was fed, for the client."""
        assert self._steps is not None  # noqa: S101 - ``busy`` says so
        assert self._body is not None  # noqa: S101 - so it has begun
        meter = self._body.meter
        meter.turn = 0
        released = []
        for piece in self._steps:
            released.append(piece)
            if meter.turn >= TURN:
                return self._framed(b"".join(released), done=False)
        self._steps = None
        if self._done:
            released.append(self._body.end())
        return self._framed(b"".join(released), done=self._done)

    def _framed(self, released: bytes, *, done: bool) -> bytes:
        return chunk(released, done=done) if self._plan.chunked else released


def chunk(data: bytes, *, done: bool) -> bytes:
    """Write a chunk of a body, and its end if it is ``done``."""
    framed = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
    return framed + b"0\r\n\r\n" if done else framed


class Recipient(Protocol):
    """Whose response it is."""

    def deliver(self, data: bytes) -> None: ...  # the client may be full then
    def hold_upstream(self, *, hold: bool) -> None: ...  # read no more of the upstream for now, or read on
    def delivered(self) -> None: ...  # the response is all there, and all sent
    def cut(self, error: RemitError) -> None: ...  # at once: the rest must not be sent


@dataclass(slots=True, eq=False, repr=False)
class TaskTurns:
    """What is due in later turns of the loop: one step of one body in each, of one task after the other."""

    _loop: asyncio.AbstractEventLoop
    _due: dict[str, deque[Callable[[], None]]] = field(default_factory=dict)  # by task, in the order they came
    _scheduled: bool = False

    def add(self, task: str, step: Callable[[], None]) -> None:
        """Have a step done when it is its task's turn, and its own."""
        self._due.setdefault(task, deque()).append(step)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._one)

    async def wait(self, task: str) -> None:
        turn = asyncio.Event()
        self.add(task, turn.set)
        await turn.wait()

    def _one(self) -> None:
        task = next(iter(self._due))
        mine = self._due.pop(task)
        step = mine.popleft()
        if mine:
            self._due[task] = mine  # behind the others
        self._scheduled = bool(self._due)
        if self._scheduled:
            self._loop.call_soon(self._one)
        step()


@dataclass(slots=True, eq=False, repr=False)
class Delivery:
    """A response on its way to the client, in turns of ``task``. ``take`` raises what ``ResponseBody.feed`` does."""

    _recipient: Recipient
    _body: ResponseBody
    _out: list[bytes]  # for the client: at first the head
    _turns: TaskTurns
    _task: str
    _full: bool = False  # the client takes no more for now
    _done: bool = False  # the upstream has said all
    _waits: bool = False  # for its turn

    def take(self, payload: bytes, *, done: bool) -> None:
        self._out.append(self._body.feed(payload, done=done))
        if self._body.busy:
            self._go_on_later()

    def flush(self) -> None:
        if not self._out:
            return
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        if data:  # of an answer that is read whole first there is none yet
            self._recipient.deliver(data)

    def end(self) -> None:
        if self._body.busy:
            self._done = True
        else:
            self._recipient.delivered()

    def writable(self, *, writable: bool) -> None:
        self._full = not writable
        if not self._body.busy:
            self._recipient.hold_upstream(hold=self._full)
        elif writable:
            self._go_on_later()

    def stop(self) -> None:
        self._out.clear()
        self._full = True

    def later(self, step: Callable[[], None]) -> None:
        self._turns.add(self._task, step)

    def _go_on_later(self) -> None:
        self._recipient.hold_upstream(hold=True)
        if not self._waits:
            self._waits = True
            self._body.when_ready(partial(self._turns.add, self._task, self._go_on))

    def _go_on(self) -> None:
        self._waits = False
        if self._full:
            return
        try:
            self._out.append(self._body.more())
        except RemitError as error:
            self._recipient.cut(error)
            return
        self.flush()
        if self._body.busy:
            self._go_on_later()
        elif self._done:
            self._recipient.delivered()
        else:
            self._recipient.hold_upstream(hold=self._full)
