"""The MCP side of one exchange over HTTP: the message that is asked, the answer on its way, a refusal as a message.

One endpoint: a POST carries one message, a GET opens a stream of what the server says by itself, a DELETE ends a
session (MCP 2025-11-25 and 2026-07-28, transports). Sessions, ids of events and state are the upstream's; a client gets
them sealed for its grant (``mcp.seals``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus

from remit.core.scope import Access
from remit.errors import (
    DeniedError,
    GrantEndedError,
    InvalidRequestError,
    MethodError,
    NotFoundError,
    RemitError,
    UpstreamError,
)
from remit.gateway import canon
from remit.gateway.authorize import HttpRequest, Permit, is_json
from remit.gateway.downstream import document
from remit.gateway.framing import Fields
from remit.gateway.mcp import headers, messages, pages, rules, tasks
from remit.gateway.mcp.answers import Relay
from remit.gateway.mcp.denials import INVALID_PARAMS, MALFORMED, MISMATCH, REFUSED, UNKNOWN_METHOD, denied, told
from remit.gateway.mcp.descriptions import Shows, UndescribedError
from remit.gateway.mcp.events import MOST, EventReader, ServerEvent
from remit.gateway.mcp.headers import MismatchError, spoken
from remit.gateway.mcp.messages import Json, Message
from remit.gateway.mcp.rules import MessageRules, UnknownMethodError, judge
from remit.gateway.mcp.seals import HandleSeal
from remit.gateway.mcp.servers import ServerNames
from remit.gateway.mcp.tasks import TaskHandles
from remit.gateway.patterns import SecretPatterns
from remit.gateway.response import ResponseBody, ResponsePlan, chunk
from remit.gateway.scrub import TURN
from remit.gateway.target import HttpTarget

SESSION, RESUME = b"mcp-session-id", b"last-event-id"
_SHOWS = "session of a client that shows pages"
_JSON, _EVENTS = b"application/json", b"text/event-stream"
_TEXT = b"text/plain"  # of an error, which is no message
# Of an answer's head: nothing that speaks for the endpoint, as of where to log in, or of what proofs have in them.
_HEARD = frozenset(b"cache-control connection date remit-dropped retry-after vary x-accel-buffering".split())
_FRAMES = frozenset({b"content-length", b"transfer-encoding"})
_SHARED = b"access-control-"  # for pages of any origin
_LEAST = 4_096  # bytes that what is told counts for at least in its turn
_PIECE = 16_384  # bytes of a stream that are cut into events at one go
_ORIGINS = (b"http://", b"https://")

Beside = Callable[[bytes, Callable[[], bytes]], asyncio.Future[bytes]]  # work on what was said, beside the loop


class SessionError(NotFoundError):
    """the session is not one of this grant"""  # noqa: D400 - the message


class StateError(DeniedError):
    """the state that is handed back was not given to this grant"""  # noqa: D400 - the message


@dataclass(slots=True, eq=False, repr=False)
class Conversation:
    """One exchange. ``key`` is what handles are sealed with, ``names`` how a server is told from others beside it."""

    _rules: MessageRules
    _target: HttpTarget
    _grant: str
    _key: bytes
    _problems: str  # where those of refusals are, among remit's other pages
    _shows: Shows
    _tasks: dict[str, None] = field(default_factory=dict)  # ids of those that the grant was given
    _names: ServerNames | None = None
    said: Message | None = None
    due: bytes = b""  # events that came with one that is refused
    _method: str = ""
    _session: str = ""  # the upstream's
    _sealed: str = "session"  # which of two kinds that is: nobody has to remember what its client is capable of
    _pages: bool = False  # the client brings its human to pages,
    _brought: bool = False  # and says that it did
    _relay: Relay = field(init=False)

    def __post_init__(self) -> None:
        kind, resource = self._target.resource.kind, self._target.resource.name
        state, handles = self._seal("state").sealed, TaskHandles(self._seal("task"), self._tasks)
        named = None if self._names is None else self._names.outward
        of = (self._rules, kind, resource, self._shows, self._problems)
        self._relay = Relay(*of, state, handles, named)

    def _seal(self, purpose: str) -> HandleSeal:
        return HandleSeal(self._key, purpose, f"{self._grant} {self._target.resource.name}")

    def _events(self) -> HandleSeal:
        return self._seal(f"event {self._session}")

    def check(self, request: HttpRequest) -> None:
        """Raise for a request that can carry nothing for this endpoint, whatever its body says."""
        fields, self._method = request.fields, request.method
        if request.method not in {"POST", "GET", "DELETE"}:
            raise MethodError("an MCP endpoint takes POST, GET and DELETE")
        if request.target.path != "/" or request.target.query:
            raise NotFoundError(f"`{request.target.resource}` is one endpoint, without a path and a query of its own")
        origin = fields.get(b"origin")
        if origin is not None and origin not in {scheme + (fields.get(b"host") or b"") for scheme in _ORIGINS}:
            raise DeniedError("a page of another origin may not speak here")
        if request.has_body is not (request.method == "POST"):
            raise InvalidRequestError("a message is the body of a POST")
        if request.has_body and (not is_json(fields) or request.coded):
            raise InvalidRequestError("a message is JSON in UTF-8: `Content-Type: application/json`, not compressed")

    def judged(self, request: HttpRequest, body: bytes | None) -> Permit:
        """Return how a request is permitted and written, or raise."""
        self.said = said = None if body is None else messages.read(body)
        kept = dict(spoken(request.fields.items, said))
        if said is not None:
            self._pages = pages.announced(said)
            self._sealed = _SHOWS if self._pages and said.method == "initialize" else self._sealed
            said, self._brought = pages.taken(said)
        kept |= self._handles(request.fields)
        if said is None:
            action, index = request.method, self._rules[0].index
        else:
            resource = self._target.resource
            known = self._relay.tasks.said(self._unsealed(said))
            if headers.NAME in kept and said.method in tasks.OF_ONE:
                kept[headers.NAME] = headers.encoded(str(known.params.get("taskId")))
            permit = judge(self._rules, known, resource.kind, resource.name)
            action, index = permit.recorded, permit.index
            body = canon.json_bytes(permit.body)
        plain, dropped = self._target.forwarded(request.fields, frozenset())
        told = b", ".join(name for name in dropped.split(b", ") if name not in kept)
        return Permit(
            Access(request.target.resource, action),
            index,
            f"{request.method} {self._target.destination.base or '/'} HTTP/1.1\r\n".encode(),
            plain + b"".join(b"%b: %b\r\n" % each for each in kept.items()),
            body,
            b"remit-dropped: " + told + b"\r\n" if told else b"",
        )

    def _handles(self, fields: Fields) -> dict[bytes, bytes]:
        """Return the session, and the event after which a stream goes on, as the upstream knows them."""
        found = {name: value for name, value in fields.items if name in {SESSION, RESUME}}
        if SESSION in found:
            handle = found[SESSION].decode("latin-1")
            if self._seal(_SHOWS).opened(handle) is not None:
                self._sealed, self._pages = _SHOWS, True
            opened = self._seal(self._sealed).opened(handle)
            if opened is None:
                raise SessionError
            self._session, found[SESSION] = opened, opened.encode("latin-1")
        if RESUME in found:
            opened = self._events().opened(found[RESUME].decode("latin-1"))
            if opened is None:
                raise SessionError("the stream is not one of this grant and session")
            found[RESUME] = opened.encode("latin-1")
        return found

    def _unsealed(self, said: Message) -> Message:
        state = said.params.get("requestState")
        if state is None:
            return said
        opened = self._seal("state").opened(state) if isinstance(state, str) else None
        if opened is None:
            raise StateError
        return Message({**said.body, "params": {**said.params, "requestState": opened}}, said.method, said.id)

    def answer(self, head: bytes, plan: ResponsePlan, patterns: SecretPatterns, beside: Beside) -> MessageBody:
        """Return what takes an answer; raise UpstreamError for one that would lead a client elsewhere."""
        called = self._target.resource.name
        if plan.status == HTTPStatus.UNAUTHORIZED:
            raise UpstreamError(
                "the server does not take the credential",
                help=f"the task's human connects anew: `remit connect {called}`"
                if self._target.connected
                else f"store one that it takes: `remit secret set {called}`",
            )
        if HTTPStatus.MULTIPLE_CHOICES <= plan.status < HTTPStatus.BAD_REQUEST:
            raise UpstreamError("the server answers that it is elsewhere", help="name that place as the destination")
        status, *fields = head[:-4].split(b"\r\n")
        lines, content = [status], b""
        for line in fields:
            name, _, value = line.partition(b": ")
            key = name.lower()
            content = value.partition(b";")[0].strip().lower() if key == b"content-type" else content
            if key == SESSION:
                self._session = value.decode("latin-1")
                value = self._seal(self._sealed).sealed(self._session).encode("latin-1")
                lines.append(b"%b: %b" % (name, value))
            elif key in _HEARD or key.startswith(_SHARED) or (key in _FRAMES and not plan.has_body):
                lines.append(line)
        if content not in {_JSON, _EVENTS}:
            if plan.has_body and plan.status < HTTPStatus.MULTIPLE_CHOICES and not self._unsaid(plan):
                raise UpstreamError("the server answers in what is neither JSON nor a stream of events")
            content = _TEXT
        if plan.has_body:
            lines += [b"content-type: " + content, b"transfer-encoding: chunked"]
        front = b"\r\n".join((*lines, b"", b""))
        return MessageBody(patterns, plan, talk=self, front=front, content=content, beside=beside)

    def _unsaid(self, plan: ResponsePlan) -> bool:
        """Whether no client reads the body of an answer: of one that says no more than that a message has come."""
        return plan.status == HTTPStatus.ACCEPTED or self._method == "DELETE"

    def heard(self, data: bytes | None) -> bytes | None:
        return self._relay.heard(data) if data else data

    def answered(self, whole: bytes) -> bytes:
        """Return an answer that is one message, as the client gets it."""
        told = self.heard(whole)
        if told is None and self.said is not None and self.said.asks:
            raise UpstreamError("the server answers what it was not asked")
        return told or b""

    def event(self, event: ServerEvent) -> bytes:
        """Return an event as the client gets it; of one that is not to be heard, its id alone."""
        data = None if event.name not in {None, b"", b"message"} else self.heard(event.data)
        handle = None if not event.id else self._events().sealed(event.id.decode("latin-1"))
        if handle is not None and self._names is not None:
            handle = self._names.event(handle)
        name = event.name if data is not None else None
        return ServerEvent(data, None if handle is None else handle.encode("latin-1"), name, event.retry).written

    def refusal(self, error: RemitError, request: str) -> tuple[HTTPStatus, str] | None:
        """Return a refusal as a message, with the status that it goes by; None where it is to be one of HTTP."""
        if self._method != "POST" or error.status == HTTPStatus.UNAUTHORIZED:
            return None
        status = HTTPStatus(error.status)
        if self.said is not None and self.said.asks and not isinstance(error, MismatchError | SessionError):
            status = HTTPStatus.OK  # clients show the message, and of another status only that
            if isinstance(error, UnknownMethodError) and self.said.version is not None:
                status = HTTPStatus.NOT_FOUND  # as that revision says
        return status, canon.json_bytes(self._told(error, request)).decode()

    def _told(self, error: RemitError, request: str) -> Mapping[str, object]:
        code = MALFORMED if self.said is None and isinstance(error, InvalidRequestError) else REFUSED
        code = MISMATCH if isinstance(error, MismatchError) else code
        code = UNKNOWN_METHOD if isinstance(error, UnknownMethodError) else code
        code = INVALID_PARAMS if isinstance(error, StateError) else code  # SEP-2322: and no result
        problem = document(error, request, self._problems)
        if self.said is not None and self.said.asks and self._pages and not self._brought and error.url is not None:
            asked = pages.brought(self.said, problem, told(self.said, problem))
            return self._by_id(denied(self.said, problem, code) if asked is None else asked)
        return self._by_id(denied(self.said, problem, code))

    def _by_id(self, body: Json) -> Json:
        """Return a refusal with the id that its client knows."""
        return body if self._names is None else {**body, "id": self._names.made(body["id"])}

    def last(self, error: RemitError, request: str) -> bytes | None:
        """Return the end of an answer that has begun as a stream: its request is refused, if it is one."""
        if self.said is None or not self.said.asks or isinstance(error, GrantEndedError):
            return None
        told = ServerEvent(canon.json_bytes(self._told(error, request)), name=b"message")
        return chunk(self.due + told.written, done=True)

    @property
    def asked(self) -> tuple[str, str]:
        """What a denial says of the request: its method, and what it is about."""
        said = self.said
        return (self._method, "") if said is None else (said.method or "answer", rules.path(said)[: rules.SHOWN])


@dataclass(slots=True, eq=False, repr=False)
class MessageBody(ResponseBody):
    """The body of an answer: an event of a stream, or all of it, is looked into before it goes on."""

    talk: Conversation = field(kw_only=True)
    front: bytes = field(kw_only=True)  # the head, until it has gone
    content: bytes = field(kw_only=True)  # the type of what is said
    beside: Beside = field(kw_only=True)
    reader: EventReader = field(default_factory=EventReader, kw_only=True)
    whole: list[bytes] = field(default_factory=list, kw_only=True)
    _size: int = 0  # of ``whole``
    _told: Iterator[bytes | None] | None = None  # what goes on of what was released, None while one is judged
    _job: asyncio.Future[bytes] | None = None  # judges one beside the loop
    _last: bool = False

    @property
    def busy(self) -> bool:
        return self._told is not None or self._steps is not None

    def when_ready(self, step: Callable[[], None]) -> None:
        if self._job is None:
            step()
        else:
            self._job.add_done_callback(lambda _: step())

    def head(self, head: bytes) -> bytes:
        if self._plan.has_body and self.content != _EVENTS:
            return b""
        head, self.front = self.front, b""
        return head

    def more(self) -> bytes:
        return ResponseBody.more(self) if self._told is None else self._turn()

    def _framed(self, released: bytes, *, done: bool) -> bytes:
        self._last = done
        self._told = self._events(released) if self.content == _EVENTS else self._answer(released, done=done)
        return self._turn()

    def _turn(self) -> bytes:
        """Return what goes on in this turn: what is told costs something, however short it is."""
        assert self._told is not None  # noqa: S101 - ``more`` and ``_framed`` say so
        out, spent = [], 0
        try:
            for said in self._told:
                if said is None:
                    break
                out.append(said)
                spent += max(len(said), _LEAST)
                if spent >= TURN:
                    break
            else:
                self._told = None
        except RemitError:
            self.talk.due = b"".join(out)
            raise
        over = self._last and self._told is None
        if not (out or over):
            return b""
        front, self.front = self.front, b""
        return front + chunk(b"".join(out), done=over)

    def _events(self, released: bytes) -> Iterator[bytes | None]:
        for at in range(0, len(released), _PIECE):
            for event in self.reader.feed(released[at : at + _PIECE]):
                yield from self._judged(event.data or b"", partial(self.talk.event, event))
            yield b""

    def _answer(self, released: bytes, *, done: bool) -> Iterator[bytes | None]:
        self.whole.append(released)
        self._size += len(released)
        if self._size > MOST:
            raise UpstreamError(f"the upstream sent an answer of more than {MOST:,} bytes")
        if done:
            whole = b"".join(self.whole)
            yield from self._judged(whole, partial(self._heard, whole))

    def _judged(self, said: bytes, work: Callable[[], bytes]) -> Iterator[bytes | None]:
        """Yield what work on what a server said makes: beside the loop, if that takes long, or something is asked."""
        if not canon.heavy(said):
            with suppress(UndescribedError):
                made = work()
                yield made
                return
        self._job = job = self.beside(said, work)
        while not job.done():
            yield None
        self._job = None
        failed = job.exception()
        if failed is not None and not isinstance(failed, RemitError):
            raise UpstreamError("what the server said could not be looked into") from failed
        yield job.result()

    def _heard(self, whole: bytes) -> bytes:
        if self._plan.status == HTTPStatus.ACCEPTED:
            return b""
        try:
            return self.talk.answered(whole) if self.content == _JSON else whole
        except UpstreamError:
            if self._plan.status < HTTPStatus.BAD_REQUEST:
                raise
        self.front = self.front.replace(b"content-type: " + _JSON, b"content-type: " + _TEXT)
        return whole  # an error whose body is no message
