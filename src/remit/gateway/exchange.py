"""One request on its way: permitted, recorded, sent with its credential, answered, its outcome recorded.

``_run`` goes through it in order until it is sent. What comes back is told by callbacks, and ``_over`` records how it
ended. The bytes of bodies flow beside it, by callbacks too, with back-pressure both ways.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace

from remit.core.scope import Access
from remit.errors import InvalidRequestError, PlaceholderError, RemitError, TooLargeError
from remit.gateway import canon
from remit.gateway.authorize import HttpRequest, Permit, authorize, authorize_body
from remit.gateway.downstream import Downstream, ParsedHeaders, misplaced
from remit.gateway.framing import BODILESS, Body, request_body
from remit.gateway.patterns import LeakError
from remit.gateway.plane import DataPlane, GrantRoute
from remit.gateway.response import Delivery, ResponseBody, ResponsePlan, chunk, framing_lines
from remit.gateway.scrub import Scrubber
from remit.gateway.target import HttpTarget
from remit.gateway.upstream import Pool, StaleError, UpstreamConnection
from remit.ports.broker import Use

PIECE = 16_384  # bytes of a body that are read and searched at a time
_UNEXPECTED = "remit failed on this request"  # of which the client learns nothing
_log = logging.getLogger("remit.gateway")


@dataclass(slots=True, eq=False, repr=False)
class HttpExchange:
    """One request and its response."""

    _downstream: Downstream
    method: str
    _raw: bytes  # the request's target as it came
    _headers: ParsedHeaders
    grant: str | None = None
    reading: bool = False  # bytes of the body are still to come
    _plane: DataPlane = field(init=False)
    _request: str = field(init=False)
    _task: asyncio.Task[object] | None = None
    _target: canon.RequestTarget | None = None
    _body: Body | None = None
    _keep: bool = False
    _unread: bytes = b""  # of the body, to be read in a later turn
    _pending: list[bytes] = field(default_factory=list)  # body that came before it could be sent
    _size: int = 0
    _scrubber: Scrubber | None = None  # of the body on its way to the upstream
    _read_whole: bool = False  # the upstream is trusted to read all of the body
    _expects: bool = False
    _full: bool = False  # the upstream takes no more of the body for now
    _up: UpstreamConnection | None = None
    _route: GrantRoute = field(init=False)
    _permit: Permit = field(init=False)
    _use: Use = field(init=False)
    _wake: asyncio.Future[None] | None = None
    _sent_off: bool = False  # and what becomes of it will be told
    _delivery: Delivery | None = None
    _dropped: bytes = b""
    _started: bool = False  # response bytes have gone to the client
    _answered: bool = False  # the response is complete
    _ended: RemitError | None = None
    _status: int = 0

    def __post_init__(self) -> None:
        self._plane = self._downstream.plane
        self._request = self._plane.new_request()
        self._body = request_body(self._headers.fields)
        self.reading = self._body is not None
        self._keep = self._headers.fields.keep
        self._expects = self._headers.expects

    def begin(self) -> None:
        self._task = self._plane.loop.create_task(self._run())
        self._plane.tasks.add(self._task)

    async def _run(self) -> None:
        try:
            grant, target = await self._addressed()
            routes, name = self._plane.routes, target.resource
            route = routes.of(grant, name) or await routes.compiled(grant, name)
            known = (self.method, self._raw, self._headers.block)
            permit = route.known.get(known) if self._body is None else None
            if permit is None:
                permit = await self._authorized(route, target)
                if self._body is None:
                    route.known.keep(known, len(self._raw) + len(self._headers.block), permit)
            use = await self._plane.recorder.use(grant, permit.access, self._request, permit.index)
            self._route, self._permit = route, permit
            self._plane.in_flight.add(self)
        except RemitError as error:
            await self._denied(error)
        except Exception:  # noqa: BLE001 - logged, and the client learns nothing of it
            _log.exception("request %s failed", self._request)
            self._refuse(RemitError(_UNEXPECTED))
        else:
            await self._carried(use)
        finally:
            self._plane.tasks.discard(self._task)

    async def _addressed(self) -> tuple[str, canon.RequestTarget]:
        """Return whose request it is, its channel's, the one it proves or one inside either by name, and what for."""
        front, headers = self._downstream.listener.front, self._headers
        # who it was, whatever becomes of it
        self.grant = own = front.bound_grant or await front.principal(self.method, self._raw, headers.fields)
        if len(self._raw) + len(headers.block) // 4 > canon.SHORT:
            await self._plane.turns.wait((await self._plane.broker.grant(own)).task)
        self._target = target = front.target(self._raw, headers.fields)
        if target.grant is not None and headers.named not in {None, target.grant}:
            raise InvalidRequestError("the URL names another grant than `Remit-Grant`", help="name it in one place")
        named = target.grant or headers.named or own
        if named != own:
            await self._plane.broker.check_acting(own, named)
            self.grant = named
        return self.grant, target

    async def _authorized(self, route: GrantRoute, target: canon.RequestTarget) -> Permit:
        grant, headers = self.grant or "", self._headers
        await self._plane.broker.grant(grant)  # an ended grant is told so, whatever it covered
        placeholders = self._downstream.listener.placeholders
        placeholders.check_head(headers.fields, self._raw, route.target)
        request = HttpRequest(self.method, target, headers.fields, has_body=self._body is not None)
        permit = authorize(route.rules, route.target, request)
        if permit is None:
            request = replace(request, body=await self._collected(route.target, route.view.task))
            turn = self._plane.authorizing.setdefault(route.view.task, asyncio.Lock())
            permit = await authorize_body(route.rules, route.target, request, turn, self._check_ended)
            assert permit is not None  # noqa: S101 - a body that was read is enough
        return permit

    def _check_ended(self) -> None:
        if self._ended is not None:
            raise self._ended

    async def _carried(self, use: Use) -> None:
        """Have a permitted use go out; what becomes of it is told by callbacks, in the end to ``_over``."""
        self._use = use
        await self._unless_failed(self._sent())

    async def _unless_failed(self, story: Coroutine[None, None, None]) -> None:
        try:
            await story
        except RemitError as error:
            self._over(error)
        except Exception:  # noqa: BLE001 - logged, and the client learns nothing of it
            _log.exception("request %s failed", self._request)
            self._over(RemitError(_UNEXPECTED))

    def _over(self, error: RemitError | None) -> None:
        """Record how the use ended."""
        self._sent_off = False
        self._plane.in_flight.discard(self)
        if error is not None:
            self._failed(error)
        resource = self._use.resource
        if isinstance(error, PlaceholderError):
            self._plane.routes.misplaced(self.grant, resource, error)
        if isinstance(error, LeakError):
            self._plane.routes.leaked(self.grant, self._downstream.listener.front.bound_grant, resource)
        decision = "done" if error is None else "failed"
        self._plane.recorder.outcome(self._use, decision, error.code if error else None, str(self._status or ""))

    async def _sent(self) -> None:
        """Send on an idle connection or a new one."""
        pool = await self._plane.pools.of(self._use, self._route.target)
        permit = await self._signed(pool)
        self._begin(pool.take() or await pool.connect(), permit)

    async def _again(self, error: StaleError) -> None:
        """Send once more, on a new connection, what went out on one that turned out to be closed.

        The upstream may have seen the first request, so the second is a use of its own, with its own entry.
        """
        use, permit = self._use, self._permit
        again = await self._plane.recorder.use(use.grant, permit.access, f"{self._request}.again", permit.index)
        self._plane.recorder.outcome(use, "failed", error.code)
        self._use = again
        pool = await self._plane.pools.of(again, self._route.target)
        permit = await self._signed(pool)
        self._begin(await pool.connect(), permit)

    async def _signed(self, pool: Pool) -> Permit:
        """Return what is sent: a credential that signs adds its lines, and has the body read whole for that."""
        permit, signer = self._permit, pool.credential.signer
        if signer is None:
            return permit
        if permit.body is None and self._body is not None:
            permit = replace(permit, body=await self._collected(pool.credential.target, self._use.task))
        lines = await pool.credential.signed(signer, permit.start, permit.lines, permit.body or b"")
        self._plane.pools.check_current(pool)
        return replace(permit, lines=permit.lines + lines)

    def _begin(self, up: UpstreamConnection, permit: Permit) -> None:
        self._up = up
        try:
            self._check_ended()
            self._plane.check_live(self._use.grant)
            if up.fresh:  # connecting took time; an idle one was taken in the same turn as its pool
                self._plane.pools.check_current(up.pool)
        except RemitError:
            self._up = None
            up.abort()
            raise
        self._dropped = permit.dropped
        credential = up.pool.credential
        self._read_whole = credential.target.reads_bodies and self.method not in BODILESS
        framed = framing_lines(self.method, self._headers.fields, self._body, permit.body, keep=self._read_whole)
        head = b"".join((permit.start, credential.fixed, permit.lines, framed, *self._first(permit)))
        self._sent_off = True
        up.begin(self, head)

    def _first(self, permit: Permit) -> list[bytes]:
        """Return the part of the body that has come, and let the rest come."""
        if self._body is None and permit.body is None:
            return []
        fields = self._headers.fields
        if permit.body is not None:
            return [permit.body]
        self._scrubber = self._downstream.listener.placeholders.scrubber(fields)
        pending, self._pending = self._pending, []
        first = self._upload(b"".join(pending), done=not self.reading)
        if self.reading:
            self._proceed()
        return [first]

    def _upload(self, payload: bytes, *, done: bool) -> bytes:
        """Return what of the body goes to the upstream now; PlaceholderError for what must not."""
        scrubber = self._scrubber
        try:
            safe = payload if scrubber is None else scrubber.feed(payload)
        except LeakError:
            assert self._up is not None  # noqa: S101 - it is on its way there
            raise misplaced("body", self._up.pool.credential.target) from None
        if done and scrubber is not None:
            safe += scrubber.end()
        return chunk(safe, done=done) if self._headers.fields.chunked else safe

    @property
    def busy(self) -> bool:  # of the body's bytes that came some are to be read in a later turn
        return self.reading and self._body is not None and (self._body.more or bool(self._unread))

    @property
    def wants(self) -> bool:  # the body's bytes are for something
        return self._up is not None or self._wake is not None

    def receive(self, data: bytes) -> bytes:
        """Take bytes of the request's body, some at a time; return what follows it."""
        assert self._body is not None  # noqa: S101 - the client asks ``reading`` first
        data = self._unread + data if self._unread else data
        payload, rest = self._body.feed(data[:PIECE])
        self.reading = not (done := self._body.done)
        self._unread = b"" if done else data[PIECE:]
        rest = rest + data[PIECE:] if done else rest
        if self._up is not None and not self._answered:
            self._up.send(self._upload(payload, done=done))
        elif payload and not self._answered:
            self._pending.append(payload)
            self._size += len(payload)
            self._downstream.hold()
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
        if self._up is not None and not self._full:
            self._downstream.release()
        return rest

    def _proceed(self) -> None:
        if self._expects and self._size == 0:
            self._downstream.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._expects = False
        self._downstream.release()

    async def _collected(self, target: HttpTarget, task: str) -> bytes:
        """Read and search the whole body, to be authorized or signed."""
        limit = target.max_body
        while self.reading and max(self._size, self._headers.fields.length or 0) <= limit:
            self._wake = self._plane.loop.create_future()
            self._proceed()
            await self._wake
            self._check_ended()
        if max(self._size, self._headers.fields.length or 0) > limit:
            raise TooLargeError(f"a body whose arguments are judged may have {limit} bytes")
        self._wake = None
        body = b"".join(self._pending)
        if (scrubber := self._downstream.listener.placeholders.scrubber(self._headers.fields)) is not None:
            for at in range(0, len(body), PIECE):  # others get their turns in between
                try:
                    scrubber.feed(body[at : at + PIECE])
                except LeakError:
                    raise misplaced("body", target) from None
                if at + PIECE < len(body):
                    await self._plane.turns.wait(task)
                    self._check_ended()
        return body

    def on_head(self, plan: ResponsePlan) -> tuple[Delivery, bool]:
        assert self._up is not None  # noqa: S101 - responses come from there
        self._keep = self._keep and not self.reading
        body = ResponseBody(self._up.pool.credential.patterns, plan)
        self._status = plan.status
        head = plan.heads[self._keep]
        head = head[:-2] + self._dropped + b"\r\n" if self._dropped else head
        self._delivery = delivery = Delivery(self, body, [head], self._plane.turns, self._use.task)
        return delivery, self._body is None or (self._read_whole and not self.reading)

    def on_end(self) -> None:
        assert self._delivery is not None  # noqa: S101 - the head comes first
        self._delivery.flush()
        self._keep = self._keep and not self.reading
        self._up = None
        self._delivery.end()

    def on_failure(self, error: RemitError) -> None:
        up, self._up = self._up, None
        idle = up is not None and not up.fresh and self._body is None
        if isinstance(error, StaleError) and idle and self.method in {"GET", "HEAD"}:
            self._sent_off = False
            self._plane.start(self._unless_failed(self._again(error)))
        else:
            self._settle(error)

    def on_writable(self, *, writable: bool) -> None:
        self._full = not writable
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
        if self._up is not None:
            (self._up.pause if hold else self._up.resume)()

    def delivered(self) -> None:
        self._answered = True
        self._over(None)
        self._downstream.finished(self, keep=self._keep)

    def cut(self, error: RemitError) -> None:
        self._ended = error
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
        self._settle(error)

    def shut(self) -> None:
        """Shut both connections, in another thread: the loop is late."""
        self._downstream.shut()
        if (up := self._up) is not None:
            up.shut()

    def _settle(self, error: RemitError) -> None:
        """Fail; what is not on its way yet, or has to go again, sees so by itself and says how its use ended."""
        if self._sent_off:
            self._over(error)
        else:
            self._failed(error)

    def _failed(self, error: RemitError) -> None:
        if self._answered:
            return
        if self._delivery is not None:
            self._delivery.stop()
        if self._up is not None:
            self._up.abort()
            self._up = None
        if self._started:
            self._answered = True
            self._downstream.abort()
        else:
            self._refuse(error)

    async def _denied(self, error: RemitError) -> None:
        target = self._target
        access = Access(target.resource if target else "", self.method, target.path if target else "")
        named = (target.grant if target else None) or self._headers.named
        cause = f"under {named}" if named not in {None, self.grant} else None
        if isinstance(error, PlaceholderError):
            self._plane.routes.misplaced(self.grant, access.resource, error)
        self._refuse(await self._plane.recorder.deny(self.grant, access, error, self._request, cause))

    def _refuse(self, error: RemitError) -> None:
        if self._answered:
            return
        self._answered = True
        keep = self._keep and not self.reading
        self._downstream.refuse(error, self._request, head=self.method == "HEAD", keep=keep)
        self._downstream.finished(self, keep=keep)
