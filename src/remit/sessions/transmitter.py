"""The transmitter of CAEP session-revoked events about ended tasks (SSF 1.0), pushed or polled.

A task is a session of its human: the subject names both, so that a receiver that knows only one of them can act. Events
of one cascade share a ``txn``. Nothing in an event is secret, and nothing says what the task was for.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response

from remit import jose
from remit.core import audit, fields
from remit.core.audit import Event
from remit.errors import InvalidRequestError
from remit.jose import token
from remit.ports import Signer
from remit.sessions.event_stream import EndedTask, EventStream
from remit.web import wire
from remit.web.routes import Route

SESSION_REVOKED = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
PUSH, POLL = "urn:ietf:rfc:8935", "urn:ietf:rfc:8936"
METADATA, JWKS, STREAM = "/.well-known/ssf-configuration", "/v1/signals/jwks", "/v1/signals/streams/{receiver}"
MAX_EVENTS = 64  # of one answer
TYPE = "secevent+jwt"
UNAUTHORIZED = 401

_POLLING = frozenset({"maxEvents", "returnImmediately", "ack", "setErrs"})


class EventKeys(Protocol):
    """The keys that sign events."""

    @property
    def signer(self) -> Signer:
        """The key that signs now."""

    def public_jwks(self) -> Sequence[Mapping[str, str]]:
        """Return the keys that verify."""


@dataclass(frozen=True, slots=True)
class StreamReceiver:
    """A receiver. ``authorization`` returns the header that it polls with; None: it is pushed to."""

    name: str
    audience: str
    authorization: Callable[[], str] | None = None


class Transmitter:
    """Signs the events, and answers the receivers that poll."""

    def __init__(self, events: EventStream, issuer: str, keys: EventKeys, receivers: Sequence[StreamReceiver]) -> None:
        self._events, self._issuer, self._keys = events, issuer, keys
        self._receivers = {one.name: one for one in receivers}

    def routes(self) -> tuple[Route, ...]:
        """Return the routes."""
        return (
            Route("GET", METADATA, self.metadata),
            Route("GET", JWKS, self.jwks),
            Route("POST", STREAM, self.poll, authenticate=self._receiver),
        )

    async def metadata(self, _request: Request) -> Response:
        """Return the transmitter metadata (SSF 1.0 §7.1); streams are configured, so there is no endpoint for them."""
        polled = [one.authorization is not None for one in self._receivers.values()]
        methods = ([PUSH] if not all(polled) else []) + ([POLL] if any(polled) else [])
        schemes = {"authorization_schemes": [{"spec_urn": "urn:ietf:rfc:6750"}]} if any(polled) else {}
        return wire.answer(
            {
                "spec_version": "1_0",
                "issuer": self._issuer,
                "jwks_uri": self._issuer + JWKS,
                "delivery_methods_supported": methods,
                "default_subjects": "ALL",
                **schemes,
            }
        )

    async def jwks(self, _request: Request) -> Response:
        """Return the keys that verify events."""
        return wire.answer({"keys": list(self._keys.public_jwks())})

    async def poll(self, request: Request, stream: StreamReceiver | None) -> Response:
        """Hand out what is pending, and take acknowledgements (RFC 8936 §2); it answers at once, always."""
        if stream is None:
            told = {"error": "invalid_token", "error_description": "this needs the token of a configured receiver"}
            return wire.answer(told, UNAUTHORIZED, {"www-authenticate": 'Bearer error="invalid_token"'})
        poll = await wire.document(request, _POLLING)
        most, done = _poll_request(poll)
        if done:
            known = {jti_of(ended, stream): ended.seq for ended in await self._events.pending(stream.name, MAX_EVENTS)}
            await self._events.acknowledge(stream.name, [known[jti] for jti in done if jti in known])
        found = await self._events.pending(stream.name, MAX_EVENTS)
        sets = {jti_of(ended, stream): self.security_event_token(ended, stream) for ended in found[:most]}
        return wire.answer({"sets": sets, "moreAvailable": len(found) > most})

    def security_event_token(self, ended: EndedTask, stream: StreamReceiver) -> str:
        """Return the security event token (RFC 8417) of a task's end, the same for the same end but for its key."""
        event, signer = ended.event, self._keys.signer
        at = int(event.at.timestamp())
        claims = {
            "iss": self._issuer,
            "aud": stream.audience,
            "iat": at,
            "jti": jti_of(ended, stream),
            "txn": txn(ended),
            "sub_id": subject_id(event),
            "events": {SESSION_REVOKED: {"event_timestamp": at, **_why(event)}},
        }
        return token.mint(claims, signer.kid, signer.alg, signer.sign, typ=TYPE)

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


def _why(event: Event) -> Mapping[str, object]:
    """Return who ended it, as far as the log says (CAEP 1.0 §2): for administrators, in fixed words."""
    entity, reason = "user", "it was closed"
    if event.policy is not None:
        entity, reason = "policy", "policy does not allow it any more"
    elif event.request is not None:
        entity, reason = "admin", "the issuer ended the login"
    elif event.cause == "expired":
        entity, reason = "system", "its time was up"
    return {"initiating_entity": entity, "reason_admin": {"en": reason}}


def _poll_request(poll: Mapping[str, object]) -> tuple[int, Sequence[str]]:
    most = fields.whole("maxEvents", poll.get("maxEvents", MAX_EVENTS))
    acknowledged, errors = fields.texts("ack", poll.get("ack", [])), poll.get("setErrs", {})
    if not isinstance(errors, dict) or not all(isinstance(why, dict) for why in errors.values()):
        raise InvalidRequestError("`setErrs` must hold errors by names of events")
    return min(most, MAX_EVENTS - 1), [*acknowledged, *errors]
