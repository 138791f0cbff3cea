"""The transmitter of CAEP session-revoked events about ended tasks (SSF 1.0), pushed or polled.

A task is a session of its human: the subject names both, so that a receiver that knows only one of them can act. Events
of one cascade share a ``txn``. Nothing in an event is secret, and nothing says what the task was for.

The audit log is the queue: an end and its entry are one commit. Each receiver has a cursor in the log of its own, a
record: what is before it was acknowledged, or is none of its business. So after a crash whatever was not acknowledged
is sent again, and nothing is sent before it is durable. A receiver that is new begins at the end of the log.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from starlette.requests import Request
from starlette.responses import Response

from remit import jose
from remit.broker.ends import END_EVENTS
from remit.broker.sessions import SessionAccess
from remit.core import audit, fields
from remit.core.audit import Event
from remit.errors import InvalidRequestError, NotFoundError
from remit.jose import token
from remit.ports import PutRecord, Record, SigningKeys
from remit.ports.events import EventPort, PendingEvent
from remit.web import wire
from remit.web.routes import Route

SESSION_REVOKED = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
PUSH, POLL = "urn:ietf:rfc:8935", "urn:ietf:rfc:8936"
METADATA, JWKS, STREAM = "/.well-known/ssf-configuration", "/v1/signals/jwks", "/v1/signals/streams/{receiver}"
MAX_EVENTS = 64  # of one answer
TYPE = "secevent+jwt"

KIND = "stream"
KEPT = timedelta(days=400)  # a cursor that nobody has moved for so long begins anew
PAGE = 512  # entries read at once
STRIDE = 10_000  # entries that were of no interest before a cursor moves on by itself

_POLLING = frozenset({"maxEvents", "returnImmediately", "ack", "setErrs"})


@dataclass(frozen=True, slots=True)
class EndedTask:
    """A task that ended: ``seq`` is the place of its entry in the log."""

    seq: int
    event: Event


@dataclass
class StreamCursor:
    """Where a receiver is: all before ``next`` is done, and so is what is in ``done``."""

    next: int
    rev: int = 0
    done: set[int] = field(default_factory=set)
    read: int = 0  # the log was looked through up to here
    waiting: dict[int, EndedTask] = field(default_factory=dict)


class EventStream:
    """Ends of tasks, in order, for each receiver until it has taken them."""

    def __init__(self, broker: SessionAccess) -> None:
        self._broker = broker
        self._cursors: dict[str, StreamCursor] | None = None
        self._moving = asyncio.Lock()

    async def pending(self, receiver: str, limit: int) -> Sequence[EndedTask]:
        """Return the first ``limit`` ends that ``receiver`` has not acknowledged."""
        cursor = await self._cursor(receiver)
        while len(cursor.waiting) < limit:
            at = cursor.read
            entries = await self._broker.entries(at, PAGE)
            if cursor.read != at:  # somebody else has read on meanwhile, and may have acknowledged what is here
                continue
            if not entries:
                break
            for entry in entries:
                event = audit.read(entry)
                ends = event.event in END_EVENTS and event.decision == "done" and len(event.lineage) == 1  # of a root
                if ends and entry.seq not in cursor.done:
                    cursor.waiting[entry.seq] = EndedTask(entry.seq, event)
            cursor.read = entries[-1].seq + 1
        async with self._moving:
            if not cursor.waiting and cursor.read - cursor.next >= STRIDE:
                await self._move(receiver, cursor, set())
        return tuple(cursor.waiting[seq] for seq in sorted(cursor.waiting)[:limit])

    async def acknowledge(self, receiver: str, seqs: Iterable[int]) -> None:
        """Note that ``receiver`` has the ends at these places; unknown places are passed over."""
        cursor = await self._cursor(receiver)
        async with self._moving:
            known = {seq for seq in seqs if seq in cursor.waiting}
            if known:
                await self._move(receiver, cursor, known)

    async def _cursor(self, receiver: str) -> StreamCursor:
        async with self._moving:
            if self._cursors is None:
                self._cursors = {}
                for record in await self._broker.records(KIND):
                    raw = json.loads(record.body)
                    cursor = StreamCursor(raw["next"], record.rev, set(raw["done"]), raw["next"])
                    self._cursors[raw["receiver"]] = cursor
            if receiver not in self._cursors:
                size = await self._broker.size()
                cursor = StreamCursor(size, read=size)
                await self._move(receiver, cursor, set())
                self._cursors[receiver] = cursor
            return self._cursors[receiver]

    async def _move(self, receiver: str, cursor: StreamCursor, known: set[int]) -> None:
        now, left = self._broker.now(), cursor.waiting.keys() - known
        to = min(left, default=cursor.read)
        done = {seq for seq in cursor.done | known if seq > to}
        body = json.dumps({"receiver": receiver, "next": to, "done": sorted(done)}).encode()
        record = Record(KIND, jose.digest(receiver), cursor.rev + 1, body, now + KEPT)
        ends = (cursor.waiting[seq].event for seq in sorted(known))
        events = [
            Event("signal.tell", now, "done", task=end.task, subject=end.subject, resource=receiver) for end in ends
        ]
        await self._broker.record((PutRecord(record),), events)
        cursor.next, cursor.rev, cursor.done = to, cursor.rev + 1, done
        for seq in known:
            cursor.waiting.pop(seq, None)


@dataclass(frozen=True, slots=True)
class StreamReceiver:
    """A receiver. ``authorization`` returns the header that it polls with; None: it is pushed to."""

    name: str
    audience: str
    authorization: Callable[[], str] | None = None


class EventSigner(EventPort):
    """Signs the events of each receiver."""

    def __init__(
        self, events: EventStream, issuer: str, keys: SigningKeys, receivers: Sequence[StreamReceiver]
    ) -> None:
        self._events, self._issuer, self._keys = events, issuer, keys
        self._receivers = {one.name: one for one in receivers}

    async def pending_events(self, receiver: str, limit: int) -> Sequence[PendingEvent]:
        stream, found = self._named(receiver), list[PendingEvent]()
        for ended in await self._events.pending(receiver, min(limit, MAX_EVENTS)):
            found.append(PendingEvent(jti_of(ended, stream), self.security_event_token(ended, stream)))
            await asyncio.sleep(0)  # a signature takes most of a millisecond
        return found

    async def acknowledge_events(self, receiver: str, jtis: Sequence[str]) -> None:
        stream = self._named(receiver)
        known = {jti_of(ended, stream): ended.seq for ended in await self._events.pending(receiver, MAX_EVENTS)}
        await self._events.acknowledge(receiver, [known[jti] for jti in jtis if jti in known])

    async def event_keys(self) -> Sequence[Mapping[str, str]]:
        return self._keys.public_jwks()

    def _named(self, receiver: str) -> StreamReceiver:
        if (found := self._receivers.get(receiver)) is None:
            raise NotFoundError
        return found

    def security_event_token(self, ended: EndedTask, stream: StreamReceiver) -> str:
        """Return the security event token (RFC 8417) of a task's end, the same for the same end but for its key."""
        event, signer = ended.event, self._keys.signer
        at, entity, reason = int(event.at.timestamp()), "user", "it was closed"
        if event.policy is not None:
            entity, reason = "policy", "policy does not allow it any more"
        elif event.request is not None:
            entity, reason = "admin", "the issuer ended the login"
        elif event.cause == "expired":
            entity, reason = "system", "its time was up"
        why = {"initiating_entity": entity, "reason_admin": {"en": reason}}  # CAEP 1.0 §2: in fixed words
        claims = {
            "iss": self._issuer,
            "aud": stream.audience,
            "iat": at,
            "jti": jti_of(ended, stream),
            "txn": txn(ended),
            "sub_id": subject_id(event),
            "events": {SESSION_REVOKED: {"event_timestamp": at, **why}},
        }
        return token.mint(claims, signer.kid, signer.alg, signer.sign, typ=TYPE)


class Transmitter:
    """Answers the receivers that poll."""

    def __init__(self, events: EventPort, issuer: str, receivers: Sequence[StreamReceiver]) -> None:
        self._events, self._issuer = events, issuer
        self._receivers = {one.name: one for one in receivers}

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("GET", METADATA, self.metadata),
            Route("GET", JWKS, self.jwks),
            Route("POST", STREAM, self.poll, authenticate=self._receiver),
        )

    async def metadata(self, _request: Request) -> Response:
        """Return the transmitter metadata (SSF 1.0 §7.1); streams are configured, so there is no endpoint for them."""
        polled = [one.authorization is not None for one in self._receivers.values()]
        methods = ([PUSH] if not all(polled) else []) + ([POLL] if any(polled) else [])
        told = {
            "spec_version": "1_0",
            "issuer": self._issuer,
            "jwks_uri": self._issuer + JWKS,
            "delivery_methods_supported": methods,
            "default_subjects": "ALL",
        }
        schemes = {"authorization_schemes": [{"spec_urn": "urn:ietf:rfc:6750"}]} if any(polled) else {}
        return wire.answer({**told, **schemes})

    async def jwks(self, _request: Request) -> Response:
        return wire.answer({"keys": list(await self._events.event_keys())})

    async def poll(self, request: Request, stream: StreamReceiver | None) -> Response:
        """Hand out what is pending, and take acknowledgements (RFC 8936 §2); it answers at once, always."""
        if stream is None:
            told = {"error": "invalid_token", "error_description": "this needs the token of a configured receiver"}
            return wire.answer(told, 401, {"www-authenticate": 'Bearer error="invalid_token"'})
        poll = await wire.document(request, _POLLING, others=True)  # §2.2
        most = min(fields.whole("maxEvents", poll.get("maxEvents", MAX_EVENTS)), MAX_EVENTS - 1)
        acknowledged, errors = fields.texts("ack", poll.get("ack", [])), poll.get("setErrs", {})
        if not isinstance(errors, dict) or not all(isinstance(why, dict) for why in errors.values()):
            raise InvalidRequestError("`setErrs` must hold errors by names of events")
        done = [*acknowledged, *errors]
        if done:
            await self._events.acknowledge_events(stream.name, done)
        found = await self._events.pending_events(stream.name, most + 1)
        sets = {event.jti: event.text for event in found[:most]}
        return wire.answer({"sets": sets, "moreAvailable": len(found) > most})

    async def _receiver(self, request: Request) -> StreamReceiver | None:
        """Return the receiver that a bearer token (RFC 6750) is of; an unknown name is a wrong token."""
        stream = self._receivers.get(request.path_params["receiver"])
        given = request.headers.getlist("authorization")
        if stream is None or stream.authorization is None or len(given) != 1:
            return None
        return stream if hmac.compare_digest(given[0].encode(), stream.authorization().encode()) else None


def jti_of(ended: EndedTask, stream: StreamReceiver) -> str:
    """Return the ``jti``: the same end is the same event, however often it is told."""
    return jose.digest(f"{stream.name} {ended.seq} {ended.event.task}")


def txn(ended: EndedTask) -> str:
    """Return what the ends of one cascade have in common: the signal, the policy, or the end itself."""
    event = ended.event
    policy = f"end {ended.seq}" if event.policy is None else f"policy {event.policy}"
    return jose.digest(f"signal {event.request}" if event.request else policy)


def subject_id(event: Event) -> Mapping[str, object]:
    """Return whose task it was, and which (RFC 9493 §3, SSF 1.0 §3.2). Names too long for the log are left out."""
    issuer, mark, sub = (event.subject or "").partition("#")
    whole = bool(mark and sub) and len(event.subject or "") < audit.MAX_TEXT
    user = {"user": {"format": "iss_sub", "iss": issuer, "sub": sub}} if whole else {}
    return {"format": "complex", **user, "session": {"format": "opaque", "id": event.task}}
