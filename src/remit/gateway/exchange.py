"""One request on its way: permitted, recorded, sent with its credential, answered, its outcome recorded.

``begin`` asks for its use: at once where these bytes were permitted before, else from ``_run``, when they were judged.
What follows is told by callbacks, and ``_over`` records how it ended. So are bodies, with back-pressure both ways.
"""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from functools import partial

from remit.core.scope import Access
from remit.errors import InvalidRequestError, PlaceholderError, RemitError, UpstreamError
from remit.gateway import canon
from remit.gateway.authorize import HttpRequest, Permit, authorize, places_in_body
from remit.gateway.conversation import Conversation
from remit.gateway.downstream import Downstream, ParsedHeaders, RequestHead
from remit.gateway.framing import BODILESS, request_body
from remit.gateway.patterns import LeakError
from remit.gateway.plane import DataPlane, GrantRoute
from remit.gateway.recorder import Found
from remit.gateway.response import Delivery, ResponseBody, ResponsePlan, framing_lines
from remit.gateway.scrub import searched
from remit.gateway.target import BoundCredential, HttpTarget, TokenRefusedError
from remit.gateway.upload import Upload
from remit.gateway.upstream import Pool, StaleError, UpstreamConnection
from remit.gateway.websocket import SWITCHED, Opening, WebSocket, opening
from remit.ports.broker import Use

_UNEXPECTED = "remit failed on this request"  # of which the client learns nothing
_log = logging.getLogger("remit.gateway")


@dataclass(slots=True, eq=False, repr=False)
class HttpExchange:
    """One request and its response."""

    _downstream: Downstream
    _head: RequestHead
    method: str = field(init=False)
    grant: str | None = None
    _plane: DataPlane = field(init=False)
    _request: str = field(init=False)
    _headers: ParsedHeaders = field(init=False)
    _target: canon.RequestTarget | None = None
    upload: Upload | None = None
    talk: Conversation | None = None  # where the request is a message of MCP
    opening: Opening | None = None  # of a WebSocket, if that is asked for
    _socket: WebSocket | None = None
    _keep: bool = False
    _read_whole: bool = False  # the upstream is trusted to read all of the body
    up: UpstreamConnection | None = None
    _route: GrantRoute = field(init=False)
    _permit: Permit = field(init=False)
    _use: Use = field(init=False)
    _sent_off: bool = False  # and what becomes of it will be told
    _delivery: Delivery | None = None
    _dropped: bytes = b""
    _started: bool = False  # response bytes have gone to the client
    answered: bool = False  # the response is complete
    _ended: RemitError | None = None
    _status: int = 0

    def __post_init__(self) -> None:
        self._plane = self._downstream.plane
        self.method, self._headers = self._head.method, self._head.headers
        self._request = self._plane.new_request()
        self._keep = self._headers.fields.keep
        if (body := request_body(self._headers.fields)) is not None:
            self.upload = Upload(self, self._downstream, self._headers, body)

    @property
    def reading(self) -> bool:  # bytes of the body are still to come
        return self.upload is not None and self.upload.reading

    def begin(self) -> None:
        judged, bound = self._head.judged, self._downstream.listener.front.bound_grant
        if judged is None or judged[1].view.id != bound or not self._plane.routes.holds(judged[1]):
            self._plane.start(self._run())
        else:
            self.grant, self._target = bound, judged[0]
            self._ask(*judged[1:])

    async def _run(self) -> None:
        try:
            route, permit = await self._judged()
        except RemitError as error:
            await self._denied(error)
        except Exception as error:  # noqa: BLE001 - logged
            self._refuse(self._told(error))
        else:
            self._ask(route, permit)

    async def _judged(self) -> tuple[GrantRoute, Permit]:
        grant, target = await self._addressed()
        routes, name = self._plane.routes, target.resource
        route = routes.of(grant, name) or await routes.compiled(grant, name)
        if (before := self._head.judged) is not None and before[1] is route:
            return before[1:]
        permit = await self._authorized(route, target)
        if self.upload is None and self.opening is None and self.talk is None:
            self._downstream.listener.keep(self._head, target, route, permit)
        return route, permit

    def _ask(self, route: GrantRoute, permit: Permit) -> None:
        self._route, self._permit = route, permit
        self._plane.recorder.ask(route.view.id, permit.access, self._request, permit.index, self._asked)

    def _asked(self, found: Found) -> None:
        """Send a use that was permitted: at once if that can be, else in a task."""
        if isinstance(found, RemitError):
            self._plane.start(self._denied(found))
            return
        self._use = found
        self._plane.in_flight.add(self)
        try:
            pool = self._plane.pools.ready(found, self._route.target)
            up = None if pool is None or pool.credential.signer is not None else pool.take()
            if up is None:
                self._plane.start(self._unless_failed(self._sent()))
            else:
                self._begin(up, self._permit)
        except Exception as error:  # noqa: BLE001 - it ends this request alone
            self._over(self._told(error))

    async def _addressed(self) -> tuple[str, canon.RequestTarget]:
        """Return whose request it is, its channel's, the one it proves or one inside either by name, and what for."""
        front, headers = self._downstream.listener.front, self._headers
        self.grant = own = front.bound_grant or await self._downstream.proven(self._head)
        if len(self._head.target) + headers.size // 4 > canon.SHORT:
            await self._plane.turns.wait((await self._plane.broker.grant(own)).task)
        self._target = target = front.target(self._head.target, headers.fields)
        if target.grant is not None and headers.named not in {None, target.grant}:
            raise InvalidRequestError("the URL names another grant than `Remit-Grant`", help="name it in one place")
        named = target.grant or headers.named
        named = own if named is None else named  # an empty name is not no name
        if named != own:
            await self._plane.broker.check_acting(own, named)
            self.grant = named
        return self.grant, target

    async def _authorized(self, route: GrantRoute, target: canon.RequestTarget) -> Permit:
        grant, headers = self.grant or "", self._headers
        await self._plane.broker.grant(grant)  # an ended grant is told so, whatever it covered
        placeholders = self._downstream.listener.placeholders
        query = placeholders.check_head(headers.fields, self._head.target, route.target)
        if query != target.query:
            target = replace(target, query=query)
        request = HttpRequest(self.method, target, headers.fields, has_body=self.upload is not None)
        if route.messages:
            return await self._conversed(route, request)
        permit = authorize(route.rules, route.target, request)
        if b"upgrade" in headers.fields.nominated and permit is not None:
            permit = self._opened(request, route.target, permit)
        if self.upload is not None and (permit is None or places_in_body(route.target, headers.fields)):
            body, anew = await self.upload.collected(route.target, route.view.task)
            if permit is not None and not anew and route.target.key_in_body is None:
                return permit
            work = partial(authorize, route.rules, route.target, replace(request, body=body))
            permit = await self._plane.judged(route.view.task, body, self.check_ended, work)
        assert permit is not None  # noqa: S101 - a body that was read is enough
        return permit

    async def _conversed(self, route: GrantRoute, request: HttpRequest) -> Permit:
        plane, task, upload, grant = self._plane, route.view.task, self.upload, route.view.id
        of = (grant, route.key, plane.problems, partial(plane.pins.shows, route.target.resource.name))
        self.talk = talk = Conversation(route.messages, route.target, *of, route.tasks, self._head.names)
        talk.check(request)
        body = None if upload is None else (await upload.collected(route.target, task))[0]
        permit = await plane.judged(task, body or b"", self.check_ended, partial(talk.judged, request, body))
        await plane.pins.check(grant, permit.access.resource, talk.said)
        return permit

    def _opened(self, request: HttpRequest, target: HttpTarget, permit: Permit) -> Permit:
        """Have a permitted request ask for a WebSocket, if that is what it does."""
        self.opening = opening(self.method, request.fields, target, has_body=request.has_body)
        if self.opening is None:
            return permit
        self._keep = False  # what a client says before it is open is not taken for a request
        return replace(permit, lines=permit.lines + self.opening.lines)

    def check_ended(self) -> None:
        if self._ended is not None:
            raise self._ended

    async def _unless_failed(self, story: Coroutine[None, None, None]) -> None:
        try:
            await story
        except Exception as error:  # noqa: BLE001 - it ends this request alone
            self._over(self._told(error))

    def _told(self, error: Exception) -> RemitError:
        """Return what the client learns: of what is no RemitError nothing, but the log all."""
        if isinstance(error, RemitError):
            return error
        _log.error("request %s failed", self._request, exc_info=error)
        return RemitError(_UNEXPECTED)

    def _over(self, error: RemitError | None) -> None:
        """Record how the use ended."""
        self._sent_off = False
        self._plane.in_flight.discard(self)
        if error is not None:
            self._failed(error)
        if isinstance(error, PlaceholderError):
            self._plane.routes.misplaced(self.grant, self._use.resource, error)
        if isinstance(error, LeakError):
            self._plane.routes.leaked(self.grant, self._downstream.listener.front.bound_grant, self._use.resource)
        told = str(self._status or "") if self._socket is None else self._socket.told()
        self._plane.recorder.outcome(self._use, "failed" if error else "done", error.code if error else None, told)

    async def _sent(self, refused: BoundCredential | None = None, *, anew: bool = False) -> None:
        """Send on an idle connection or a new one."""
        pool = await self._plane.pools.of(self._use, self._route.target, refused)
        permit = await self._signed(pool)
        self._begin((None if anew else pool.take()) or await pool.connect(), permit)

    async def _again(self, error: RemitError) -> None:
        """Send once more, on a new connection, what the upstream refused or may not have seen: a use of its own."""
        use, permit = self._use, self._permit
        again = await self._plane.recorder.use(use.grant, permit.access, f"{self._request}.again", permit.index)
        self._plane.recorder.outcome(use, "failed", error.code)
        self._use = again
        await self._sent(error.credential if isinstance(error, TokenRefusedError) else None, anew=True)

    async def _signed(self, pool: Pool) -> Permit:
        """Return what is sent: a credential that signs adds its lines, and has the body read whole for that."""
        permit, signer = self._permit, pool.credential.signer
        if signer is None:
            return permit
        if permit.body is None and self.upload is not None:
            body, _ = await self.upload.collected(pool.credential.target, self._use.task)
            permit = replace(permit, body=body)
        lines = await pool.credential.signed(signer, permit.start, permit.lines, permit.body or b"")
        self._plane.pools.check_current(pool, self._use.task)
        return replace(permit, lines=permit.lines + lines)

    def _begin(self, up: UpstreamConnection, permit: Permit) -> None:
        self.up = up
        try:
            self.check_ended()
            self._plane.check_live(self._use.grant)
            if up.fresh:  # connecting took time; an idle one was taken in the same turn as its pool
                self._plane.pools.check_current(up.pool, self._use.task)
        except RemitError:
            self.up = None
            up.abort()
            raise
        self._dropped = permit.dropped
        credential = up.pool.credential
        self._read_whole = credential.target.reads_bodies and self.method not in BODILESS
        body = permit.body if credential.target.key_in_body is None else credential.body(permit.body)
        streams = self.upload is not None and body is None
        framed = framing_lines(self.method, self._headers.fields, body, streams=streams, keep=self._read_whole)
        if self.upload is not None and body is None:
            body = self.upload.begin(up)
        start = credential.line(permit.start) if credential.query else permit.start
        head = b"".join((start, credential.fixed, permit.lines, framed, body or b""))
        self._sent_off = True
        up.begin(self, head)

    def on_head(self, plan: ResponsePlan, whole: bytes | None) -> tuple[Delivery | None, bool]:
        assert self.up is not None  # noqa: S101 - responses come from there
        self._keep = self._keep and not self.reading
        patterns, whole_body = self.up.pool.credential.patterns, self.upload is None or self._permit.body is not None
        again = whole_body and self.opening is None and self._use.request == self._request  # it can be sent once more
        self._plane.pools.check_taken(plan, self.up.pool.credential, again=again)
        self._status = plan.status
        head = self._downstream.headed(plan.heads[self._keep], self._dropped, self._headers.fields)
        if self.talk is None and whole is not None and plan.coding is None and searched(patterns, whole):
            self.deliver(head + whole)
        else:
            beside = partial(self._plane.beside, self._use)
            body = ResponseBody(patterns, plan) if self.talk is None else self.talk.answer(head, plan, patterns, beside)
            self._delivery = Delivery(self, body, [body.head(head)], self._plane.turns, self._use.task)
        return self._delivery, self.upload is None or (self._read_whole and not self.upload.reading)

    def on_switch(self, plan: ResponsePlan) -> Delivery:
        assert self.up is not None  # noqa: S101 - responses come from there
        credential = self.up.pool.credential
        if self._downstream.pipelined:
            raise InvalidRequestError("something follows a WebSocket's handshake before its answer")
        shown = self._downstream.listener.placeholders.looked_for(self._headers.fields)
        self._socket = socket = WebSocket(credential.patterns, shown)
        self.upload = Upload(self, self._downstream, self._headers, socket.sent)
        body = ResponseBody(credential.patterns, plan, socket.heard)
        head = plan.heads[True][:-2] + SWITCHED + self._dropped + b"\r\n"
        self._delivery = Delivery(self, body, [head], self._plane.turns, self._use.task)
        return self._delivery

    def on_end(self) -> None:
        if (delivery := self._delivery) is not None:
            delivery.flush()
        self._keep = self._keep and not self.reading
        self.up = None
        (self.delivered if delivery is None else delivery.end)()

    def on_failure(self, error: RemitError) -> None:
        up, self.up = self.up, None
        again = up is not None and up.repeatable and self.upload is None and self.method in {"GET", "HEAD"}
        if isinstance(error, TokenRefusedError) or (isinstance(error, StaleError) and again):
            self._sent_off = False
            self._plane.start(self._unless_failed(self._again(error)))
        else:
            self._settle(error)

    def on_writable(self, *, writable: bool) -> None:
        if self.upload is not None:
            self.upload.full = not writable
        (self._downstream.release if writable else self._downstream.hold)()

    def client_writable(self, *, writable: bool) -> None:
        """Hold the upstream's body while the client takes no more."""
        if self._delivery is not None:
            self._delivery.writable(writable=writable)
        else:
            self.hold_upstream(hold=not writable)

    def deliver(self, data: bytes) -> None:
        self._started = True
        self._downstream.write(data)

    def hold_upstream(self, *, hold: bool) -> None:
        if self.up is not None:
            (self.up.pause if hold else self.up.resume)()

    def delivered(self) -> None:
        self.answered = True
        self._over(None)
        self._downstream.finished(self, keep=self._keep)

    def left(self) -> None:
        """Take note that the client has gone."""
        if self._socket is None or not self._socket.closed:
            self.cut(UpstreamError("the client went away"))
        elif self.up is not None:
            self.up.abort()
            self.on_end()

    def cut(self, error: RemitError) -> None:
        self._ended = error
        if self.upload is not None:
            self.upload.wake()
        self._settle(error)

    def shut(self) -> None:
        """Shut both connections, in another thread: the loop is late."""
        self._downstream.shut()
        if (up := self.up) is not None:
            up.shut()

    def _settle(self, error: RemitError) -> None:
        """Fail; what is not on its way yet, or has to go again, sees so by itself and says how its use ended."""
        if self._sent_off:
            self._over(error)
        else:
            self._failed(error)

    def _failed(self, error: RemitError) -> None:
        if self.answered:
            return
        if self._delivery is not None:
            self._delivery.stop()
        if self.up is not None:
            self.up.abort()
            self.up = None
        if self._started:
            self.answered = True
            if end := self.talk and self.talk.last(error, self._request):
                self._downstream.write(end)
                self._downstream.finished(self, keep=False)
            else:
                self._downstream.abort()
        else:
            self._refuse(error)

    async def _denied(self, error: RemitError) -> None:
        target = self._target
        action, path = (self.method, target.path if target else "") if self.talk is None else self.talk.asked
        access = Access(target.resource if target else "", action, path)
        named = (target.grant if target else None) or self._headers.named
        cause = f"under {named}" if named not in {None, self.grant} else None
        if isinstance(error, PlaceholderError):
            self._plane.routes.misplaced(self.grant, access.resource, error)
        self._refuse(await self._plane.recorder.deny(self.grant, access, error, self._request, cause))

    def _refuse(self, error: RemitError) -> None:
        if self.answered:
            return
        self.answered = True
        keep = self._keep and not self.reading
        told = None if self.talk is None else self.talk.refusal(error, self._request)
        self._downstream.refuse(error, self._request, self._head, (self.grant, self._target), told, keep=keep)
        self._downstream.finished(self, keep=keep)
