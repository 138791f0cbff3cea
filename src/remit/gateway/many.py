"""One MCP endpoint for all servers of a grant: a message goes to the one that it is for, or to each of them.

What goes to a server is a request of its own, which goes the way that it would go to that server's own endpoint: judged
by the grant's details for it, permitted, recorded by its name, sent with its credential, searched. So nothing is
permitted here, and nothing is kept: a session is what the servers' own sessions are, written as one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from http import HTTPStatus

from remit import __version__
from remit.errors import MethodError, NotFoundError, RemitError, ScopeError, UpstreamError
from remit.gateway import canon
from remit.gateway.authorize import HttpRequest
from remit.gateway.conversation import RESUME, SESSION, Conversation, SessionError
from remit.gateway.downstream import ParsedHeaders, RequestHead
from remit.gateway.exchange import HttpExchange
from remit.gateway.framing import Fields
from remit.gateway.mcp import answers, descriptions, merging, messages
from remit.gateway.mcp.events import MOST, ServerEvent
from remit.gateway.mcp.headers import BY_NAME, NAME, VERSION, encoded, spoken
from remit.gateway.mcp.merging import ServerAnswer
from remit.gateway.mcp.messages import Message
from remit.gateway.mcp.rules import LISTEN
from remit.gateway.mcp.seals import HandleSeal
from remit.gateway.mcp.servers import MOST_SERVERS, ServerNames, addressed, is_for_one, packed, unpacked
from remit.gateway.parts import EVENTS, PassedPart, ReadPart, ServerPart
from remit.gateway.plane import GrantRoute
from remit.gateway.response import chunk

_ALL = ""  # in a handle: what is of no server alone
_MOST_HANDLE = 8_192  # bytes of one of several servers' handles
_HELD = 1_048_576  # bytes that wait until every server has acknowledged a subscription, and what each event counts for
_LEAST = 4_096
_ACKNOWLEDGED = b"notifications/subscriptions/acknowledged"
_OWN = {SESSION, RESUME, VERSION, NAME, b"content-length", b"transfer-encoding", b"expect"}  # of each part


Shares = Mapping[str, tuple[RequestHead, bytes | None]]  # by server, the request that it gets


@dataclass(frozen=True, slots=True)
class Handles:
    """What a client hands back of an earlier answer, by server."""

    mark: str | None  # tells one session from another
    sessions: Mapping[str, tuple[str | None, str]] | None  # with the revision that each speaks
    last: Mapping[str, str] | None  # of a stream that goes on


def handles(fields: Fields) -> Handles:
    """Read them, or raise SessionError. Each server's own is looked at where it goes."""
    session, last = (_unpacked(fields, name) for name in (SESSION, RESUME))
    found: dict[str, tuple[str | None, str]] | None = None if session is None else {}
    for name, held in session.items() if session is not None else ():
        match held:
            case [str() | None as handle, str() as version] if found is not None:
                found[name] = (handle, version)
            case str() if name == _ALL:
                pass
            case _:
                raise SessionError
    after = None if last is None else {name: str(handle) for name, handle in last.items()}
    return Handles(None if session is None else str(session.get(_ALL)), found, after)


def _unpacked(fields: Fields, name: bytes) -> dict[str, object] | None:
    text = fields.get(name)
    found = None if text is None else unpacked(text.decode("latin-1"))
    if text is not None and found is None:
        raise SessionError
    return found


@dataclass(slots=True, eq=False, repr=False)
class ManyExchange(HttpExchange):
    """One request for all MCP servers of a grant."""

    _parts: dict[str, ServerPart] = field(default_factory=dict)
    _handles: Handles = field(init=False)
    _last: dict[str, object] = field(default_factory=dict)  # ids of events, of a stream
    _held: list[ServerEvent] | None = None  # until a subscription is acknowledged
    _room: int = _HELD
    _acks: dict[ReadPart, Message] = field(default_factory=dict)
    _acknowledging: asyncio.Event = field(default_factory=asyncio.Event)  # set: each server has, or will not
    _all_over: asyncio.Event = field(default_factory=asyncio.Event)

    async def _run(self) -> None:
        self._plane.in_flight.add(self)  # what was read of one server's waits here for others'
        try:
            await self._served()
        except RemitError as error:
            await self._denied(error)
        except Exception as error:  # noqa: BLE001 - logged
            self._refuse(self._told(error))
        finally:
            self._plane.in_flight.discard(self)

    async def _served(self) -> None:
        grant, target = await self._addressed()
        routes = await self._routes(grant)
        widest = max(routes.values(), key=lambda route: route.target.max_body)
        of = (grant, widest.key, self._plane.problems, descriptions.nothing)  # for refusals: each part hears its own
        self.talk = talk = Conversation(widest.messages, widest.target, *of)
        request = HttpRequest(self.method, target, self._headers.fields, has_body=self.upload is not None)
        talk.check(request)
        self._handles = handles(self._headers.fields)
        body, task = b"", widest.view.task
        if self.upload is not None:
            body, _ = await self.upload.collected(widest.target, task)
        shares = await self._plane.judged(task, body, self.check_ended, partial(self._shares, grant, body, routes))
        said = talk.said
        if said is not None and said.method == "ping":
            self._answer(HTTPStatus.OK, canon.json_bytes({"jsonrpc": "2.0", "id": said.id, "result": {}}))
        elif said is not None and is_for_one(said):
            self._hand_out(shares, partial(PassedPart, self, self._downstream, grant))
        elif self.method == "GET" or (said is not None and said.method == LISTEN):
            await self._streamed(shares)
        else:
            starts = said is not None and said.method == "initialize"
            slow = starts and any(routes[name].target.command for name in shares)
            await self._collected(shares, task, self._plane.starting if slow else self._plane.patience)

    async def _routes(self, grant: str) -> Mapping[str, GrantRoute]:
        """Return the grant's routes to MCP servers, by their names."""
        view, routes = await self._plane.routes.live(grant), self._plane.routes
        found: dict[str, GrantRoute] = {}
        for name in sorted({one.resource for one in view.grant.scope if self._plane.kinds[one.type].messages}):
            with suppress(ScopeError, NotFoundError):  # one that is no server's, or reached otherwise
                found[name] = routes.of(grant, name) or await routes.compiled(grant, name)
        if not found:
            raise ScopeError("the grant holds no MCP server that is reached through the gateway")
        if len(found) > MOST_SERVERS:
            raise ScopeError(
                f"the grant holds more than {MOST_SERVERS} MCP servers", help="delegate one that holds fewer"
            )
        return found

    def _shares(self, grant: str, body: bytes, among: Mapping[str, GrantRoute]) -> Shares:
        """Return what each server gets of a message, or raise for what none gets."""
        assert self.talk is not None  # noqa: S101 - it has begun
        known = self._handles
        said = self.talk.said = messages.read(body) if self.upload is not None else None
        told = dict(spoken(self._headers.fields.items, said))
        names = self._names(grant, among, said)
        here = {name: one for name, one in names.items() if known.sessions is None or name in known.sessions}
        if said is None:
            whole = known.last is None or _ALL in known.last
            shares: Mapping[str, Message | None] = {name: None for name in here if whole or name in (known.last or {})}
        else:
            shares = addressed(said, names if is_for_one(said) else here)
            if outside := shares.keys() - here.keys():
                raise UpstreamError(f"`{min(outside)}` was left out of this session", help="connect again")
        if not shares:
            raise SessionError
        return {name: self._head_of(name, names[name], one, told) for name, one in shares.items()}

    def _names(self, grant: str, among: Mapping[str, GrantRoute], said: Message | None) -> Mapping[str, ServerNames]:
        """Return how servers are told apart: what is asked of each, by the way, is no answer to what one is asked."""
        mark = self._request if self._handles.mark is None else self._handles.mark
        each = " each" if said is not None and said.asks and not is_for_one(said) else ""

        def seal(purpose: str, name: str) -> HandleSeal:
            return HandleSeal(among[name].key, f"{purpose} {mark}", f"{grant} {name}")

        return {name: ServerNames(name, seal(f"id{each}", name), seal("progress", name)) for name in among}

    def _head_of(
        self, name: str, names: ServerNames, said: Message | None, told: Mapping[bytes, bytes]
    ) -> tuple[RequestHead, bytes | None]:
        """Return the request that one server gets."""
        fields, known, target = self._headers.fields, self._handles, self._target
        assert target is not None  # noqa: S101 - it was read
        body = None if said is None else canon.json_bytes(said.body)
        handle, version = (known.sessions or {}).get(name, (None, None))
        own = {SESSION: handle, RESUME: (known.last or {}).get(name), VERSION: version}
        if said is not None and NAME in told:
            own[NAME] = encoded(str(said.params.get(BY_NAME.get(said.method or "", "")))).decode()
        items = [item for item in fields.items if item[0] not in _OWN or (item[0] == VERSION and version is None)]
        items += [(field_, text.encode("latin-1", "replace")) for field_, text in own.items() if text is not None]
        length = None if body is None else len(body)
        section = Fields(tuple(items), length, chunked=False, keep=fields.keep, nominated=fields.nominated)
        headers = ParsedHeaders(self._headers.size, section, self._headers.named, expects=False)
        place = f"/{name}" if target.grant is None else f"/@{target.grant}/{name}"
        return RequestHead(b"", self.method, place.encode(), headers, names=names), body

    # -- answers that are made one -------------------------------------------------------------------------------

    def _hand_out(self, shares: Shares, made: Callable[[], ServerPart]) -> None:
        self.check_ended()
        self._parts = {name: made() for name in shares}
        for name, (head, body) in shares.items():
            self._parts[name].begin(head, body)

    def _readers(self, *, lasts: bool) -> Callable[[], ServerPart]:
        return partial(ReadPart, self, self._downstream, self.grant or "", [MOST], lasts=lasts)

    async def _collected(self, shares: Shares, task: str, patience: float) -> None:
        """Answer once each server has, or has had its time."""
        plane, known = self._plane, self._handles.sessions
        self._hand_out(shares, self._readers(lasts=False))
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._all_over.wait()
        for part in self._parts.values():
            part.exchange.cut(UpstreamError(f"the server did not answer within {patience:g} seconds"))
        if self.answered:
            return
        parts = {name: part.answer for name, part in self._parts.items() if isinstance(part, ReadPart)}
        if known is not None and all(part.status == HTTPStatus.NOT_FOUND for part in parts.values()):
            raise SessionError
        said = None if self.talk is None else self.talk.said
        if said is None:
            if not any(part.status < HTTPStatus.BAD_REQUEST for part in parts.values()):
                raise MethodError("no server lets a client end a session")
            self._answer(HTTPStatus.NO_CONTENT)
        elif not said.asks:
            self._answer(HTTPStatus.ACCEPTED)
        else:
            whole = b"".join(part.body for part in parts.values())
            body, sessions = await plane.judged(task, whole, self.check_ended, partial(_merged, said, parts))
            session = packed({**sessions, _ALL: self._request}) if sessions else None
            self._answer(HTTPStatus.OK, body, *(() if session is None else (f"Mcp-Session-Id: {session}",)))

    def _answer(self, status: HTTPStatus, body: bytes | None = None, *lines: str) -> None:
        """Answer by what is none of any server's alone."""
        if self.answered:
            return
        self._plane.check_live(self.grant or "")
        self.answered, keep = True, self._keep and not self.reading
        typed = () if body is None else ("Content-Type: application/json", f"Content-Length: {len(body)}")
        closes = () if keep else ("Connection: close",)
        none = ("Content-Length: 0",) if status is HTTPStatus.ACCEPTED else ()
        head = (f"HTTP/1.1 {status.value} {status.phrase}", *lines, *typed, *none, "Cache-Control: no-store", *closes)
        raw = "\r\n".join((*head, "", "")).encode()
        self._downstream.write(self._downstream.headed(raw, b"", self._headers.fields) + (body or b""))
        self._downstream.finished(self, keep=keep)

    def part_over(self, part: ServerPart, *, keep: bool) -> None:
        readings = self._readings()
        if isinstance(part, PassedPart):
            self.answered = True
            self._downstream.finished(self, keep=keep)
        elif all(one.over.is_set() for one in readings) or (isinstance(part, ReadPart) and part.lasting):
            self._all_over.set()
        self._look_for_acks()

    def _look_for_acks(self) -> None:
        if all(one in self._acks or one.over.is_set() for one in self._readings()):
            self._acknowledging.set()

    # -- streams that are made one -------------------------------------------------------------------------------

    async def _streamed(self, shares: Shares) -> None:
        """Pass on what each server says, until one of them ends: the client then comes again, for all."""
        last = self._handles.last
        self._last = {_ALL: ""} if last is None or _ALL in last else {}
        self._held = [] if self.method == "POST" else None
        self._hand_out(shares, self._readers(lasts=True))
        with suppress(TimeoutError):
            async with asyncio.timeout(self._plane.patience):
                await self._acknowledging.wait()
        self._acknowledge()
        await self._all_over.wait()
        if self.answered:
            return
        if not self._started:
            raise MethodError("no server says anything by itself")
        self.answered = True
        self._downstream.write(chunk(b"", done=True))
        self._leave()
        self._downstream.finished(self, keep=self._keep and not self.reading)

    def streams(self) -> None:
        if not self._started:
            raw = (
                b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\nCache-Control: no-store\r\n\r\n"
            )
            self.deliver(self._downstream.headed(raw % EVENTS, b"", self._headers.fields))

    def said(self, part: ReadPart, event: ServerEvent) -> None:
        ack = None if self._held is None else _acknowledged(event)
        if self._held is not None and ack is None:
            self._room -= max(_LEAST, len(event.data or b""))
            if self._room < 0:  # before ``_last`` passes over it: who comes again hears it
                raise UpstreamError("too much is said before every server has acknowledged")
        event = replace(event, retry=None)  # no server says for how long the others are not heard
        if event.id is not None:
            self._last |= unpacked(event.id.decode("latin-1")) or {}
            told = packed(self._last).encode()
            event = replace(event, id=told if len(told) <= _MOST_HANDLE else None)
        if self._held is None:
            self._tell(event)
        elif ack is not None:
            self._acks.setdefault(part, ack)
            self._look_for_acks()
        else:
            self._held.append(event)

    def _acknowledge(self) -> None:
        """Tell what servers acknowledge of a subscription, and all that waited for that."""
        held, self._held = self._held, None
        if self._acks and self.talk is not None and self.talk.said is not None:
            told = merging.acknowledged(self.talk.said, self._acks.values())
            self._tell(ServerEvent(answers.written(told), name=b"message"))
        for event in held or ():
            self._tell(event)

    def _tell(self, event: ServerEvent) -> None:
        if not self.answered:
            self.deliver(chunk(event.written, done=False))

    # -- as a whole ----------------------------------------------------------------------------------------------

    def client_writable(self, *, writable: bool) -> None:
        for part in self._parts.values():
            part.exchange.client_writable(writable=writable)

    def cut(self, error: RemitError) -> None:
        if not any(isinstance(part, PassedPart) for part in self._parts.values()):
            HttpExchange.cut(self, error)
        self._ended = error
        for part in self._parts.values():
            part.exchange.cut(error)
        self._all_over.set()

    def _leave(self) -> None:
        for part in self._parts.values():
            part.exchange.left()

    def _readings(self) -> list[ReadPart]:
        return [part for part in self._parts.values() if isinstance(part, ReadPart)]


def _acknowledged(event: ServerEvent) -> Message | None:
    """Return an acknowledgement, if that is what an event says."""
    if event.data is None or _ACKNOWLEDGED not in event.data or canon.heavy(event.data):
        return None
    said = answers.read(event.data)
    return said if said.method == _ACKNOWLEDGED.decode() else None


def _merged(said: Message, parts: Mapping[str, ServerAnswer]) -> tuple[bytes, dict[str, object]]:
    answer, sessions = merging.merged(said, parts, __version__)
    return answers.written(answer), sessions
