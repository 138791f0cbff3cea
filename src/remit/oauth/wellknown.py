"""What clients discover: server metadata (RFC 8414), the API as a resource (RFC 9728), keys, problems, who is live.

Who is live the token status list says (draft-ietf-oauth-status-list), in one bit each; signed, public, never outdated.
A place is VALID while the grant that has it is live, and INVALID otherwise: whatever is not known is not valid.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Mapping
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from remit import jose
from remit.errors import NotFoundError
from remit.jose import token
from remit.oauth.token_endpoint import JWT_BEARER
from remit.ports.broker import PLACES
from remit.web import wire
from remit.web.middleware import error_classes
from remit.web.routes import AppDeps, Route

ALGORITHMS = jose.CHALLENGE.split()
ID_JAG = "urn:ietf:params:oauth:grant-profile:id-jag"

LIST = token.STATUS
AGGREGATION = "/oauth/status"  # the list of lists, §9.3
VALID, INVALID = 0, 1
TYPE = "statuslist+jwt"
MEDIA = "application/statuslist+jwt"
TTL = 30  # seconds that a list may be believed
QUICK = 4  # level of zlib: with 10,000 live grants a list of 18 kB in 1 ms, at the best 14 kB in 60 ms of everybody's


class WellKnown:
    """The public documents of one issuer: the grant types that work, and what other parts say of themselves."""

    def __init__(self, deps: AppDeps, grant_types: Collection[str], more: Mapping[str, object]) -> None:
        self._verifier, self._identity = deps.verifier, deps.identity
        self._grant_types, self._more, self._types = grant_types, more, sorted(deps.kinds)
        self._certified = "spiffe_x509" in deps.identity.methods  # RFC 8705 §3.3: then a token may be a Bearer's

    async def server(self, _request: Request) -> Response:
        issuer, methods = self._verifier.issuer, ["none", *self._identity.methods]
        return wire.answer(
            {
                "issuer": issuer,
                "token_endpoint": f"{issuer}/oauth/token",
                "token_endpoint_auth_methods_supported": methods,
                "revocation_endpoint": f"{issuer}/oauth/revoke",
                "revocation_endpoint_auth_methods_supported": methods,
                "introspection_endpoint": f"{issuer}/oauth/introspect",
                "introspection_endpoint_auth_methods_supported": ["DPoP", *(["Bearer"] if self._certified else [])],
                "jwks_uri": f"{issuer}/oauth/jwks",
                "status_list_aggregation_endpoint": issuer + AGGREGATION,
                "grant_types_supported": list(self._grant_types),
                **({"authorization_grant_profiles_supported": [ID_JAG]} if JWT_BEARER in self._grant_types else {}),
                "dpop_signing_alg_values_supported": ALGORITHMS,
                "tls_client_certificate_bound_access_tokens": self._certified,
                "authorization_details_types_supported": self._types,
                **self._more,
            }
        )

    async def resource(self, _request: Request) -> Response:
        issuer = self._verifier.issuer
        return wire.answer(
            {
                "resource": issuer,
                "authorization_servers": [issuer],
                "jwks_uri": f"{issuer}/oauth/jwks",
                "bearer_methods_supported": ["header"],
                "dpop_bound_access_tokens_required": not self._certified,
                "tls_client_certificate_bound_access_tokens": self._certified,
                "dpop_signing_alg_values_supported": ALGORITHMS,
                "authorization_details_types_supported": self._types,
            }
        )

    async def jwks(self, _request: Request) -> Response:
        return wire.answer({"keys": self._verifier.keys.jwks})

    async def identity(self, _request: Request) -> Response:
        """Return the issuers of humans with remit's public client there, and those whose humans can decide here."""
        humans, deciding = [dict(one) for one in self._identity.native], list(self._identity.issuers)
        return wire.answer({"issuer": self._verifier.issuer, "humans": humans, "deciding": deciding})

    async def problem(self, request: Request) -> Response:
        """Explain a problem type to people: what its ``type`` URL leads to."""
        kind = error_classes().get(request.path_params["code"])
        if kind is None:
            raise NotFoundError
        told = f"{kind.code}\n\n{(kind.__doc__ or '').strip()}\n\nstatus {kind.status}, OAuth error {kind.oauth}\n"
        return PlainTextResponse(told, headers=wire.HEADERS)


class StatusList:
    """Who is live, for those who ask no broker. A list is made at most once a second, and anew when a grant ends."""

    def __init__(self, deps: AppDeps) -> None:
        self._broker, self._verifier = deps.broker, deps.verifier
        self._text, self._ends = "", 0  # the newest token, and how many ends it knows of
        self._made_for: tuple[int, str] | None = None  # in which second, and by which key

    def routes(self) -> tuple[Route, ...]:
        return (Route("GET", LIST, self.token), Route("GET", AGGREGATION, self.lists))

    async def token(self, request: Request) -> Response:
        """Return the status list token, as of now: of another ``time`` nothing is known (§8.4)."""
        if "time" in wire.pairs(request.scope["query_string"], frozenset({"time"})):
            error = {"error": "invalid_request", "error_description": "there is no list of another time"}
            return wire.answer(error, HTTPStatus.NOT_IMPLEMENTED)
        return Response(await self.current(), headers=wire.HEADERS, media_type=MEDIA)

    async def lists(self, _request: Request) -> Response:
        return wire.answer({"status_lists": [self._verifier.issuer + LIST]})

    async def current(self) -> str:
        signer = self._verifier.keys.signer
        made_for = (self._verifier.now(), signer.kid)
        found = await self._broker.status_places(self._ends if self._made_for == made_for else None)
        if found is not None:  # else nothing has ended since
            content = claims(self._verifier.issuer + LIST, live(found.places, PLACES), self._verifier.now())
            self._text = token.mint(content, signer.kid, signer.alg, signer.sign, typ=TYPE)
            self._made_for, self._ends = made_for, found.ends
        return self._text


def live(places: Iterable[int], size: int) -> bytes:
    """Return the statuses of ``size`` places (a multiple of eight), of which ``places`` are VALID, one bit each."""
    packed = bytearray(b"\xff" * (size // 8))
    for place in places:
        packed[place >> 3] &= ~(1 << (place & 7)) & 0xFF
    return bytes(packed)


def claims(uri: str, packed: bytes, now: int) -> Mapping[str, object]:
    """Return the claims of a status list token (§5.1); ``now`` is in seconds since the epoch."""
    listed = {"bits": 1, "lst": jose.encode(zlib.compress(packed, QUICK))}
    return {"sub": uri, "iat": now, "exp": now + TTL, "ttl": TTL, "status_list": listed}
