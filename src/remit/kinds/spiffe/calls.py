"""The five calls of the SPIFFE Workload API (SPIFFE Workload API §5, §6) for one run, over ``grpclib``.

The caller is whoever reached the listener: nothing that a request says is taken for an identity. Every call must carry
the metadata ``workload.spiffe.io: true``, so that nobody can be made to call here by a browser or a forwarder.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any

from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.server import Stream
from h2.exceptions import ProtocolError
from spiffe._proto import workload_pb2 as pb

from remit.errors import (
    DeniedError,
    EngineError,
    InvalidRequestError,
    LimitError,
    NotFoundError,
    RemitError,
    UnauthenticatedError,
    UnavailableError,
)
from remit.jose import svid
from remit.jose.keys import key_set
from remit.kinds.spiffe.svids import Known, Pulse, Svids
from remit.ports import Clock
from remit.ports.broker import BrokerPort

SERVICE = "/SpiffeWorkloadAPI"
SECURITY = "workload.spiffe.io"
LOOK = 60.0  # seconds between looks for what ends without a word: a bundle that has not been renewed for long
ABSENT = ("FetchWITSVID", "FetchWITBundles")  # optional, and incubating

_LOG = logging.getLogger("remit.kinds")
Call = Callable[[Stream[Any, Any]], Awaitable[None]]


class WorkloadService:
    """Answers for one run."""

    def __init__(self, broker: BrokerPort, svids: Svids, known: Known, pulse: Pulse, clock: Clock) -> None:
        """Hand out ``svids``; push again when ``pulse`` beats and what was sent is no longer what there is."""
        self._broker, self._svids, self._known, self._pulse, self._clock = broker, svids, known, pulse, clock
        self.x509_bundles = partial(self._bundles, pb.X509BundlesResponse, known.roots)
        self.jwt_bundles = partial(self._bundles, pb.JWTBundlesResponse, known.jwks)

    def __mapping__(self) -> dict[str, Handler]:
        """Return the calls by path, as ``grpclib`` wants them."""
        one, many = Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM
        calls: dict[str, tuple[Any, ...]] = {
            "FetchX509SVID": (self.x509_svid, many, pb.X509SVIDRequest, pb.X509SVIDResponse),
            "FetchX509Bundles": (self.x509_bundles, many, pb.X509BundlesRequest, pb.X509BundlesResponse),
            "FetchJWTSVID": (self.jwt_svid, one, pb.JWTSVIDRequest, pb.JWTSVIDResponse),
            "FetchJWTBundles": (self.jwt_bundles, many, pb.JWTBundlesRequest, pb.JWTBundlesResponse),
            "ValidateJWTSVID": (self.validate, one, pb.ValidateJWTSVIDRequest, pb.ValidateJWTSVIDResponse),
            **dict.fromkeys(ABSENT, (self.absent, many, pb.X509SVIDRequest, pb.X509SVIDResponse)),
        }
        return {f"{SERVICE}/{name}": Handler(guarded(_asked(call[0])), *call[1:]) for name, call in calls.items()}

    async def x509_svid(self, stream: Stream[Any, Any], _request: Any) -> None:
        """Send an X.509-SVID with bundles, and the next at half its life or when some authority changes."""

        async def current() -> tuple[object, datetime | None]:
            svid = await self._svids.certified()
            chain, key, others = svid.der("certificate"), svid.der("key"), self._known.roots()
            name, own = str(svid.credential["spiffe_id"]), others.pop(self._known.name)
            one = pb.X509SVID(spiffe_id=name, x509_svid=chain, x509_svid_key=key, bundle=own)
            return pb.X509SVIDResponse(svids=[one], federated_bundles=others), svid.half

        await self._push(stream, current)

    async def _bundles(
        self, response: Callable[..., object], bundles: Callable[[], object], stream: Stream[Any, Any], _request: Any
    ) -> None:
        """Send the bundles of all authorities, and again when one changes."""

        async def current() -> tuple[object, None]:
            await self._svids.entitled()
            return response(bundles=bundles()), None

        await self._push(stream, current)

    async def _push(
        self, stream: Stream[Any, Any], current: Callable[[], Awaitable[tuple[object, datetime | None]]]
    ) -> None:
        """Send what is current, and again when that is another: at a beat, or when it is due, or that is looked for."""
        sent: object = None
        while True:
            beat = self._pulse.next
            message, due = await current()
            if message != sent:
                await stream.send_message(message)
                sent = message
            with suppress(TimeoutError):
                await asyncio.wait_for(beat.wait(), patience(due, self._clock()))

    async def jwt_svid(self, stream: Stream[Any, Any], request: Any) -> None:
        """Send a JWT-SVID for the audiences that were asked for."""
        if not request.audience:
            raise InvalidRequestError("`audience` is missing")
        if request.spiffe_id and request.spiffe_id != (await self._svids.entitled()).agent:
            raise DeniedError("this is not the caller's SPIFFE ID")
        spiffe_id, token = await self._svids.token(request.audience)
        svid = pb.JWTSVID(spiffe_id=spiffe_id, svid=token.reveal())
        await stream.send_message(pb.JWTSVIDResponse(svids=[svid]))

    async def validate(self, stream: Stream[Any, Any], request: Any) -> None:
        """Send what a JWT-SVID of this trust domain says; one whose grant has ended is refused before it expires."""
        await self._svids.entitled()
        try:
            own = self._known.own
            claims = svid.verify(request.svid, request.audience, key_set(own.jwks), own.trust_domain, self._clock())
            await self._broker.grant(str(claims.get("grant")))
        except (DeniedError, NotFoundError, UnauthenticatedError) as error:
            raise InvalidRequestError(error.detail) from error
        response = pb.ValidateJWTSVIDResponse(spiffe_id=str(claims["sub"]))
        response.claims.update(claims)
        await stream.send_message(response)

    async def absent(self, _stream: Stream[Any, Any], _request: Any) -> None:
        """Say that there is no such call; what ``grpclib`` says of a path that it does not know, Go does not read."""
        raise GRPCError(Status.UNIMPLEMENTED, "there are no WIT-SVIDs here")


def guarded(call: Call) -> Call:
    """Turn what remit raises into a status of gRPC, with words that are safe for the caller."""

    async def answered(stream: Stream[Any, Any]) -> None:
        try:
            await call(stream)
        except RemitError as error:
            if error.status == RemitError.status:
                _LOG.error("the Workload API: %s", error.code, exc_info=error)
            raise GRPCError(Status[_status(error)], error.detail) from error
        except (GRPCError, StreamTerminatedError, ProtocolError):  # the caller's own, or that it has gone
            raise
        except Exception as error:
            _LOG.exception("the Workload API")
            raise GRPCError(Status.INTERNAL, "the broker failed; its log says why") from error

    return answered


def _asked(call: Callable[[Any, Any], Awaitable[None]]) -> Call:
    """Have a call get its one request; InvalidRequestError without the header or a request."""

    async def asked(stream: Stream[Any, Any]) -> None:
        if not stream.metadata or stream.metadata.getall(SECURITY, []) != ["true"]:
            raise InvalidRequestError(f"the metadata `{SECURITY}: true` is missing")
        request = await received(stream)
        if request is None:
            raise InvalidRequestError("there is no request")
        await call(stream, request)

    return asked


async def received(stream: Stream[Any, Any]) -> Any:
    """Return the next request, or None; InvalidRequestError for what is none, whatever the library makes of it."""
    try:
        return await stream.recv_message()
    except (GRPCError, StreamTerminatedError):
        raise
    except Exception as error:
        raise InvalidRequestError("the request is not a message of this call") from error


def patience(due: datetime | None, now: datetime) -> float:
    """Return for how many seconds a stream waits before it looks again by itself."""
    return LOOK if due is None else min(LOOK, (due - now).total_seconds())


def _status(error: RemitError) -> str:
    match error:
        case InvalidRequestError():
            return "INVALID_ARGUMENT"
        case DeniedError() | NotFoundError() | UnauthenticatedError():
            return "PERMISSION_DENIED"
        case LimitError() | UnavailableError() | EngineError():
            return "UNAVAILABLE"
    return "INTERNAL"
