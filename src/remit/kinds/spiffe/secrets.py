"""Envoy's secret discovery service (SDS v3) for one run: an SVID and bundles by the names that SPIRE gives them.

``default``, or the SPIFFE ID, is the X.509-SVID with its key. ``ROOTCA``, or the SPIFFE ID of a trust domain, is what
verifies that domain's SVIDs, and ``ALL`` what verifies those of each. Envoy sends no metadata unless it is told to, and
SPIRE asks for none here, so nothing is asked for.

The messages are the few fields of Envoy's that are used, by their numbers: docs/decisions/0036-sds-messages.md.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from remit.core.secret import Secret
from remit.errors import DeniedError, InvalidRequestError
from remit.kinds.spiffe.calls import guarded, patience, received
from remit.kinds.spiffe.svids import IssuedSvid, Known, Pulse, Svids
from remit.ports import Clock

SERVICE = "/envoy.service.secret.v3.SecretDiscoveryService"
TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
SECRET, VALIDATOR = f"{TLS}.Secret", f"{TLS}.SPIFFECertValidatorConfig"
SVID, OWN, ALL = "default", "ROOTCA", "ALL"

_FIELDS: Mapping[str, Mapping[str, tuple[int, str]]] = {  # name -> number, type; `*` for any number of them
    "Any": {"type_url": (1, "string"), "value": (2, "bytes")},
    "DataSource": {"inline_bytes": (2, "bytes")},
    "DiscoveryRequest": {"resource_names": (3, "string*"), "type_url": (4, "string"), "response_nonce": (5, "string")},
    "DiscoveryResponse": {
        "version_info": (1, "string"),
        "resources": (2, "Any*"),
        "type_url": (4, "string"),
        "nonce": (5, "string"),
    },
    "Secret": {"name": (1, "string"), "tls_certificate": (2, "Certificate"), "validation_context": (4, "Context")},
    "Certificate": {"certificate_chain": (1, "DataSource"), "private_key": (2, "DataSource")},
    "Context": {"custom_validator_config": (12, "Extension")},
    "Extension": {"name": (1, "string"), "typed_config": (2, "Any")},
    "Validator": {"trust_domains": (1, "TrustDomain*")},
    "TrustDomain": {"name": (1, "string"), "trust_bundle": (2, "DataSource")},
}


def _messages() -> Mapping[str, Any]:
    """Return the classes of the messages, in a pool of their own: a process may have all of Envoy's beside them."""
    file = descriptor_pb2.FileDescriptorProto(name="sds.proto", package="sds", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            label = kinds.LABEL_REPEATED if kind.endswith("*") else kinds.LABEL_OPTIONAL
            told = message.field.add(name=field, number=number, label=label)
            match kind.rstrip("*"):
                case "string":
                    told.type = kinds.TYPE_STRING
                case "bytes":
                    told.type = kinds.TYPE_BYTES
                case other:
                    told.type, told.type_name = kinds.TYPE_MESSAGE, f".sds.{other}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"sds.{name}")) for name in _FIELDS}


MESSAGES = _messages()
_REQUEST, _RESPONSE = MESSAGES["DiscoveryRequest"], MESSAGES["DiscoveryResponse"]


class SecretService:
    """Answers for one run."""

    def __init__(self, svids: Svids, known: Known, pulse: Pulse, clock: Clock) -> None:
        """Hand out ``svids`` and what is ``known``; push again when ``pulse`` beats and what there is has changed."""
        self._svids, self._known, self._pulse, self._clock = svids, known, pulse, clock

    def __mapping__(self) -> dict[str, Handler]:
        """Return the calls by path, as ``grpclib`` wants them."""
        streamed = Cardinality.STREAM_STREAM
        return {
            f"{SERVICE}/StreamSecrets": Handler(guarded(self.stream), streamed, _REQUEST, _RESPONSE),
            f"{SERVICE}/FetchSecrets": Handler(guarded(self.fetch), Cardinality.UNARY_UNARY, _REQUEST, _RESPONSE),
            f"{SERVICE}/DeltaSecrets": Handler(self.delta, streamed, _REQUEST, _RESPONSE),
        }

    async def stream(self, stream: Stream[Any, Any]) -> None:
        """Send what was asked for last, and again when that is another; an answer that was not taken is not repeated.

        An Envoy acknowledges each answer by asking again with its nonce: nothing is sent for that.
        """
        names: Collection[str] | None = None
        sent: Sequence[bytes] | None = None
        count, asking = 0, _asking(stream)
        try:
            while True:
                beat = self._pulse.next
                due = None
                if names is not None:
                    secrets, due = await self._secrets(names)
                    if secrets != sent:
                        count, sent = count + 1, secrets
                        await stream.send_message(_response(secrets, str(count)))
                waking = asyncio.ensure_future(beat.wait())
                try:
                    left = patience(due, self._clock())
                    await asyncio.wait((asking, waking), timeout=left, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    waking.cancel()
                if asking.done():
                    request = asking.result()
                    if request is None:
                        return
                    asking = _asking(stream)
                    if request.response_nonce in {"", str(count)} and set(request.resource_names) != names:
                        names, sent = set(request.resource_names), None
        finally:
            asking.cancel()

    async def fetch(self, stream: Stream[Any, Any]) -> None:
        """Send what is asked for once."""
        request = await _request(stream)
        if request is None:
            raise InvalidRequestError("there is no request")
        secrets, _ = await self._secrets(request.resource_names)
        await stream.send_message(_response(secrets, "1"))

    async def delta(self, _stream: Stream[Any, Any]) -> None:
        """Say that there is no such call: a secret is small, and is sent whole."""
        raise GRPCError(Status.UNIMPLEMENTED, "use StreamSecrets")

    async def _secrets(self, names: Collection[str]) -> tuple[Sequence[bytes], datetime | None]:
        """Return the secrets of these names, all where there are none, and when they are due to change."""
        agent, authorities = (await self._svids.entitled()).agent, self._known.authorities()
        known = {SVID, agent, OWN, ALL, *authorities}
        unknown = set(names) - known
        if unknown:
            raise DeniedError(f"there is no secret `{min(unknown)[:100]}` here")
        wanted = sorted(set(names)) or [agent, *sorted(authorities)]
        svid = await self._svids.certified() if {SVID, agent} & set(wanted) else None
        secrets = []
        for name in wanted:
            if name in {SVID, agent} and svid is not None:
                secrets.append(_certificate(name, svid))
            else:
                only = {OWN: self._known.name}.get(name, name)
                chosen = {each: ders for each, ders in authorities.items() if name == ALL or each == only}
                secrets.append(_validation(name, chosen))
        return secrets, None if svid is None else svid.half


def _asking(stream: Stream[Any, Any]) -> asyncio.Task[Any]:
    """Begin to wait for the next request. How that ended need not interest anybody any more."""
    task = asyncio.ensure_future(_request(stream))
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task


async def _request(stream: Stream[Any, Any]) -> Any:
    """Return the next request, or None."""
    request = await received(stream)
    if request is not None and request.type_url not in {"", SECRET}:
        raise InvalidRequestError("there are secrets here alone")
    # What a stream may have sent bounds one request (``listen.MAX_REQUEST``); this one goes on for as long as its run.
    stream._stream.data_received = 0  # noqa: SLF001 - grpclib has no bound of its own
    return request


def _response(secrets: Sequence[bytes], count: str) -> Any:
    return _RESPONSE(
        version_info=count, nonce=count, type_url=SECRET, resources=[_any(SECRET, each) for each in secrets]
    )


def _any(type_url: str, value: bytes) -> Any:
    return MESSAGES["Any"](type_url=type_url, value=value)


def _data(value: bytes) -> Any:
    return MESSAGES["DataSource"](inline_bytes=value)


def _certificate(name: str, svid: IssuedSvid) -> bytes:
    chain, key = (svid.credential[each] for each in ("certificate", "key"))
    pems = (each.reveal() if isinstance(each, Secret) else each for each in (chain, key))
    chained, private = (_data(pem.encode()) for pem in pems)
    certificate = MESSAGES["Certificate"](certificate_chain=chained, private_key=private)
    made: bytes = MESSAGES["Secret"](name=name, tls_certificate=certificate).SerializeToString()
    return made


def _validation(name: str, authorities: Mapping[str, Sequence[bytes]]) -> bytes:
    """Return what has Envoy verify a peer by the bundle of the trust domain that the peer is of, and by no other."""
    pems = {each: "".join(map(ssl.DER_cert_to_PEM_cert, ders)).encode() for each, ders in sorted(authorities.items())}
    domains = [
        MESSAGES["TrustDomain"](name=each.removeprefix("spiffe://"), trust_bundle=_data(pem))
        for each, pem in pems.items()
    ]
    config = _any(VALIDATOR, MESSAGES["Validator"](trust_domains=domains).SerializeToString())
    extension = MESSAGES["Extension"](name="envoy.tls.cert_validator.spiffe", typed_config=config)
    context = MESSAGES["Context"](custom_validator_config=extension)
    made: bytes = MESSAGES["Secret"](name=name, validation_context=context).SerializeToString()
    return made
