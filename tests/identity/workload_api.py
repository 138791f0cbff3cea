"""A SPIFFE agent of the tests: it serves the Workload API on a unix socket, to the official client and whoever else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc  # type: ignore[import-untyped]  # it has no stubs here
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from spiffe._proto import workload_pb2 as pb

from tests.identity.spire import Domain, jwk_of


class Agent:
    """Serves the SVIDs of ``workload`` in the first of ``domains``, and the bundles of all, until the block ends."""

    def __init__(
        self, path: Path, domains: Sequence[Domain], workload: str = "/ns/agents/planner", *, entitled: bool = True
    ) -> None:
        """Listen at ``path``; nobody is entitled to anything without ``entitled``."""
        self.url = f"unix://{path}"
        self._domains, self._workload, self._entitled = tuple(domains), workload, entitled
        self._server = grpc.server(ThreadPoolExecutor(4))
        calls = {
            "FetchX509SVID": self._streamed(pb.X509SVIDRequest, self._x509_svid),
            "FetchX509Bundles": self._streamed(pb.X509BundlesRequest, self._x509_bundles),
            "FetchJWTBundles": self._streamed(pb.JWTBundlesRequest, self._jwt_bundles),
            "FetchJWTSVID": grpc.unary_unary_rpc_method_handler(
                self._jwt_svid,
                request_deserializer=pb.JWTSVIDRequest.FromString,
                response_serializer=pb.JWTSVIDResponse.SerializeToString,
            ),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("SpiffeWorkloadAPI", calls),))
        self._server.add_insecure_port(self.url)

    def __enter__(self) -> Self:
        """Start."""
        self._server.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Stop."""
        self.stop()

    def stop(self) -> None:
        """End all calls, and listen no more: an outage."""
        self._server.stop(None).wait()

    def _streamed(self, request: Any, answer: Any) -> Any:
        def once(asked: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            self._check(context)
            yield answer(asked)

        return grpc.unary_stream_rpc_method_handler(
            once,
            request_deserializer=request.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )

    def _check(self, context: grpc.ServicerContext) -> None:
        if ("workload.spiffe.io", "true") not in context.invocation_metadata():
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing from request")
        if not self._entitled:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")

    def _x509_svid(self, _: Any) -> Any:
        domain = self._domains[0]
        svid = domain.svid(self._workload)
        one = pb.X509SVID(
            spiffe_id=domain.id(self._workload),
            x509_svid=b"".join(svid.ders),
            x509_svid_key=svid.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
            bundle=domain.authority.certificate.public_bytes(Encoding.DER),
        )
        return pb.X509SVIDResponse(svids=[one])

    def _x509_bundles(self, _: Any) -> Any:
        ders = {f"spiffe://{one.name}": one.authority.certificate.public_bytes(Encoding.DER) for one in self._domains}
        return pb.X509BundlesResponse(bundles=ders)

    def _jwt_bundles(self, _: Any) -> Any:
        sets = {
            f"spiffe://{one.name}": json.dumps({"keys": [jwk_of(one.jwt_key, use="jwt-svid", kid="jwt-1")]}).encode()
            for one in self._domains
        }
        return pb.JWTBundlesResponse(bundles=sets)

    def _jwt_svid(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._check(context)
        domain = self._domains[0]
        named = request.spiffe_id or domain.id(self._workload)
        svid = pb.JWTSVID(spiffe_id=named, svid=domain.jwt(list(request.audience), sub=named))
        return pb.JWTSVIDResponse(svids=[svid])
