"""One request on its way: permitted, recorded, sent with its credential, answered, its outcome recorded.

The coroutine ``run`` tells the story in order; the bytes of bodies flow beside it, by callbacks, with back-pressure
both ways. ``cut`` ends it at once, whatever it is doing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from remit.broker import Use
from remit.core.scope import Access
from remit.errors import RemitError, TooLargeError
from remit.gateway import beside, canon, problem
from remit.gateway.answer import Answer, Plan
from remit.gateway.delivery import Delivery
from remit.gateway.framing import BODILESS, Body, Fields, request_body
from remit.gateway.judge import Asked, Judged, judge
from remit.gateway.outgoing import Outgoing, framing
from remit.gateway.pool import Upstream
from remit.gateway.receiving import StaleError
from remit.gateway.scrub import LeakError

if TYPE_CHECKING:
    from remit.gateway.client import Client, Known
    from remit.gateway.inject import Shape
    from remit.gateway.server import Route

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_log = logging.getLogger("remit.gateway")


class Exchange:
    """One request and its response."""

    __slots__ = (
        "_answered",
        "_body",
        "_client",
        "_delivery",
        "_dropped",
        "_ended",
        "_expects",
        "_finished",
        "_full",
        "_gateway",
        "_keep",
        "_outgoing",
        "_pending",
        "_reading",
        "_size",
        "_started",
        "_status",
        "_target",
        "_up",
        "_use",
        "_wake",
        "fields",
        "grant",
        "known",
        "method",
        "raw",
        "request",
        "task",
    )

    def __init__(self, client: Client, method: str, raw: bytes, known: Known) -> None:
        """Begin with a head that was read strictly; ``raw`` is the target as it came."""
        self._client = client
        self._gateway = client.gateway
        self.task: asyncio.Task[object] | None = None
        self.method = method
        self.raw = raw
        self.known = known
        self.fields: Fields = known.fields
        self.grant: str | None = None
        self.request = self._gateway.new_request()
        self._body: Body | None = request_body(known.fields)
        self._target: canon.Target | None = None
        self._keep = known.fields.keep
        self._pending: list[bytes] = []  # body that came before it could be sent
        self._size = 0
        self._reading = self._body is not None
        self._expects = known.expects
        self._full = False  # the upstream takes no more of the body for now
        self._up: Upstream | None = None
        self._use: Use
        self._wake: asyncio.Future[None] | None = None
        self._finished: asyncio.Future[None] | None = None
        self._delivery: Delivery | None = None
        self._started = False  # response bytes have gone to the client
        self._answered = False  # the response is complete
        self._ended: RemitError | None = None
        self._status = 0

    # -- the story ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Take the request all the way."""
        try:
            await self._run()
        finally:
            self._gateway.over(self.task)

    async def _run(self) -> None:
        try:
            use, judged, shape = await self._permitted()
        except RemitError as error:
            await self._denied(error)
        except Exception:  # noqa: BLE001 - logged, and the client learns nothing of it
            _log.exception("request %s failed", self.request)
            self._refuse(problem.unexpected())
        else:
            await self._carried(use, judged, shape)

    async def _permitted(self) -> tuple[Use, Judged, Shape]:
        listener = self._client.listener
        self.grant = listener.principal
        if self.grant is None or self.known.named is not None or self.raw.startswith(canon.NAMES_GRANT):
            self.grant = await listener.grant(self)
        if len(self.raw) + len(self.known.block) // 4 > canon.SHORT:
            await self._gateway.turns.wait(self._gateway.broker.task_of(self.grant).id)
        self._target = target = canon.target(self.raw)
        route = self._gateway.route(self.grant, target.resource)
        judged = route.known.get((self.method, self.raw, self.known.block)) if self._body is None else None
        if judged is None:
            judged = await self._judged(route, target)
        use = await self._gateway.record.use(self.grant, judged.access, self.request, judged.index)
        self._gateway.moving(self)
        return use, judged, route.shape

    def named(self) -> str | None:
        """Return the grant that the URL or `Remit-Grant` names, or raise InvalidRequestError where they differ."""
        self._target = canon.target(self.raw)
        return canon.named(self._target, self.known.named)

    async def _judged(self, route: Route, target: canon.Target) -> Judged:
        self._gateway.broker.check(self.grant or "")  # an ended grant is told so, whatever it covered
        self._client.listener.check_placeholders(self.known, self.raw, route.shape)
        asked = Asked(self.method, target, self.fields, has_body=self._body is not None)
        judged = judge(route.matcher, route.shape, asked)
        if judged is None:
            asked = replace(asked, body=await self._collected(route.shape.max_body))
            turn = self._client.listener.turn(self.grant or "")
            judged = await beside.judged(route.matcher, route.shape, asked, turn, self._check_ended)
            assert judged is not None  # noqa: S101 - a body that was read is judged
        elif self._body is None:
            route.remember((self.method, self.raw, self.known.block), judged)
        return judged

    def _check_ended(self) -> None:
        if self._ended is not None:
            raise self._ended

    async def _carried(self, use: Use, judged: Judged, shape: Shape) -> None:
        error: RemitError | None = None
        self._use = use
        try:
            await self._sent(use, judged, shape)
        except RemitError as failure:
            error = failure
        except Exception:  # noqa: BLE001 - logged, and the client learns nothing of it
            _log.exception("request %s failed", self.request)
            error = problem.unexpected()
        finally:
            self._gateway.moved(self)
        if error is not None:
            self._failed(error)
        if isinstance(error, LeakError):
            self._gateway.leaked(self.grant, self._client.listener.principal, judged.access.resource)
        decision = "done" if error is None else "failed"
        self._gateway.record.outcome(self._use, decision, error.code if error else None, str(self._status or ""))

    async def _sent(self, use: Use, judged: Judged, shape: Shape) -> None:
        """Send on an idle connection or a new one.

        A connection that turns out to be closed is replaced once. The upstream may have seen the first request, so the
        second is a use of its own, with its own entry.
        """
        pool = self._gateway.pools.of(use, shape)
        up = pool.take() or await pool.connect()
        try:
            await self._tried(up, judged)
        except StaleError as error:
            if up.fresh or self._body is not None or self.method not in {"GET", "HEAD"}:
                raise
            again = await self._gateway.record.use(use.grant.id, judged.access, f"{self.request}.again", judged.index)
            self._gateway.record.outcome(use, "failed", error.code)
            self._use = again
            await self._tried(await self._gateway.pools.of(again, shape).connect(), judged)

    async def _tried(self, up: Upstream, judged: Judged) -> None:
        try:
            self._check_ended()
            if up.fresh:  # connecting took time; an idle one was taken in the same turn as its pool
                self._gateway.pools.check_current(up.pool)
        except RemitError:
            up.abort()
            raise
        self._finished = self._gateway.loop.create_future()
        self._up = up
        self._dropped = judged.dropped
        fixed = up.pool.recipe.fixed
        framed = framing(self.method, self.fields, self._body, judged.body, keep=self._read_whole)
        up.begin(self, b"".join((judged.start, fixed, judged.lines, framed, *self._first(judged))))
        await self._finished

    def _first(self, judged: Judged) -> list[bytes]:
        """Return what is there of the body, and let the rest come."""
        if judged.body is not None:
            self._client.listener.check_body(self.known, judged.body)
            return [judged.body]
        if self._body is None:
            return []
        self._outgoing = Outgoing(self._client.listener.body_scrubber(self.known), chunked=self.fields.chunked)
        pending, self._pending = self._pending, []
        first = self._outgoing.feed(b"".join(pending), done=not self._reading)
        if self._reading:
            self._proceed()
        return [first]

    # -- the request's body -------------------------------------------------------------------------------------

    @property
    def _read_whole(self) -> bool:
        """Whether the upstream is known to read a body before it takes another request."""
        assert self._up is not None  # noqa: S101 - it is asked about the request that is sent there
        return self._up.pool.recipe.shape.reads_bodies and self.method not in BODILESS

    @property
    def reading(self) -> bool:
        """Whether bytes of the request's body are still to come."""
        return self._reading

    @property
    def busy(self) -> bool:
        """Whether of the body's bytes that came some are to be read in a later turn."""
        return self._reading and self._body is not None and self._body.more

    def receive(self, data: bytes) -> bytes:
        """Take bytes of the request's body; return what follows it."""
        assert self._body is not None  # noqa: S101 - the client asks ``reading`` first
        payload, rest = self._body.feed(data)
        self._reading = not (done := self._body.done)
        if self._up is not None and not self._answered:
            self._up.send(self._outgoing.feed(payload, done=done))
        elif payload and not self._answered:
            self._pending.append(payload)
            self._size += len(payload)
            self._client.hold()
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
        if self.busy:
            self._client.hold()
            self._gateway.turns.add(self._client.listener.room.task, lambda: self._client.read_on(self))
        elif self._up is not None and not self._full:
            self._client.release()
        return rest

    def _proceed(self) -> None:
        if self._expects and self._size == 0:
            self._client.write(CONTINUE)
        self._expects = False
        self._client.release()

    async def _collected(self, limit: int) -> bytes:
        """Read the whole body, to be judged."""
        while self._reading and max(self._size, self.fields.length or 0) <= limit:
            self._wake = self._gateway.loop.create_future()
            self._proceed()
            await self._wake
            self._check_ended()
        if max(self._size, self.fields.length or 0) > limit:
            raise TooLargeError(f"a body whose arguments are judged may have {limit} bytes")
        self._wake = None
        return b"".join(self._pending)

    # -- the response (pool.Receiver) ---------------------------------------------------------------------------

    def on_head(self, plan: Plan) -> bool:
        """Take the head; it has been searched for the secret. Return whether nothing of the request can be unread."""
        assert self._up is not None  # noqa: S101 - responses come from there
        self._keep = self._keep and not self._reading
        answer = Answer(self._up.pool.recipe.patterns, plan)
        self._status = plan.status
        head = plan.head(keep=self._keep)
        head = head[:-2] + self._dropped + b"\r\n" if self._dropped else head
        self._delivery = Delivery(self, answer, head, self._gateway.turns, self._use.task)
        return self._body is None or (self._read_whole and not self._reading)

    def on_data(self, payload: bytes, *, done: bool) -> None:
        """Take payload of the body."""
        assert self._delivery is not None  # noqa: S101 - the head comes first
        self._delivery.take(payload, done=done)

    def on_flush(self) -> None:
        """Pass on what has come together."""
        if self._delivery is not None:
            self._delivery.flush()

    def on_end(self) -> None:
        """Take note that the response is complete; what of it is not delivered yet goes on."""
        self._keep = self._keep and not self._reading
        self._up = None
        assert self._delivery is not None  # noqa: S101 - the head comes first
        self._delivery.end()

    def on_failure(self, error: RemitError) -> None:
        """Take note that there will be no (more) response."""
        self._up = None
        self._settle(error)

    def on_writable(self, *, writable: bool) -> None:
        """Hold the client's body while the upstream takes no more."""
        self._full = not writable
        (self._client.release if writable else self._client.hold)()

    def client_writable(self, *, writable: bool) -> None:
        """Hold the upstream's body while the client takes no more."""
        if self._delivery is not None:
            self._delivery.writable(writable=writable)
        else:
            self.hold_upstream(hold=not writable)

    def later(self, step: Callable[[], None]) -> None:
        """Have a step of reading done when it is the task's turn."""
        self._gateway.turns.add(self._use.task, step)

    # -- its delivery (delivery.Receiver) -----------------------------------------------------------------------

    def deliver(self, data: bytes) -> None:
        """Send response bytes."""
        self._started = True
        self._client.write(data)

    def hold_upstream(self, *, hold: bool) -> None:
        """Read no more of the upstream for now, or read on."""
        if self._up is not None:
            (self._up.pause if hold else self._up.resume)()

    def delivered(self) -> None:
        """Go on to the client's next request."""
        self._answered = True
        self._client.finished(self, keep=self._keep)
        self._settle(None)

    # -- the end ------------------------------------------------------------------------------------------------

    def cut(self, error: RemitError) -> None:
        """End it at once: the grant has ended, time is up, or the client is gone."""
        self._ended = error
        if self._up is not None:
            self._up.abort()
            self._up = None
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
        self._settle(error)

    def _settle(self, error: RemitError | None) -> None:
        if error is not None and not isinstance(error, StaleError):
            self._failed(error)
        if self._finished is None or self._finished.done():
            return
        if error is None:
            self._finished.set_result(None)
        else:
            self._finished.set_exception(error)

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
            self._client.abort()
        else:
            self._refuse(error)

    async def _denied(self, error: RemitError) -> None:
        target = self._target
        access = Access("http", target.resource if target else "", self.method, target.path if target else "")
        named = (target.grant if target else None) or self.known.named
        cause = f"under {named}" if named not in {None, self.grant} else None
        self._refuse(await self._gateway.record.deny(self.grant, access, error, self.request, cause))

    def _refuse(self, error: RemitError) -> None:
        if self._answered:
            return
        self._answered = True
        keep = self._keep and not self._reading
        self._client.refuse(error, self.request, head=self.method == "HEAD", keep=keep)
        self._client.finished(self, keep=keep)
