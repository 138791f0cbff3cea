"""What clients discover: server metadata (RFC 8414), the API as a resource (RFC 9728), keys, problems, who is live."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from remit import jose
from remit.core.principal import PRIVATE_KEY_JWT
from remit.errors import NotFoundError
from remit.jose import client_assertion
from remit.jose.token import STATUS
from remit.oauth.token_endpoint import JWT_BEARER
from remit.web import wire
from remit.web.middleware import error_classes
from remit.web.routes import AppDeps

ALGORITHMS = jose.CHALLENGE.split()
ID_JAG = "urn:ietf:params:oauth:grant-profile:id-jag"

# where no client authenticates
_NO_CLIENT = frozenset({"authorization_endpoint", "registration_endpoint", "status_list_aggregation_endpoint"})

AGGREGATION = "/oauth/status"  # the list of status lists
MEDIA = "application/statuslist+jwt"


class WellKnown:
    """The public documents of one issuer: the grant types that work, and what other parts say of themselves."""

    def __init__(self, deps: AppDeps, grant_types: Collection[str], more: Mapping[str, object]) -> None:
        self._verifier, self._identity = deps.verifier, deps.identity
        self._grant_types, self._more, self._types = grant_types, more, sorted(deps.kinds)
        scopes = list(deps.identity.scopes)
        self._scopes = {"scopes_supported": scopes} if scopes else {}
        self._certified = "spiffe_x509" in deps.identity.methods  # RFC 8705 §3.3: then a token may be a Bearer's

    async def server(self, _request: Request) -> Response:
        issuer, methods = self._verifier.issuer, ["none", *self._identity.methods]
        signed = sorted(client_assertion.ALGORITHMS) if PRIVATE_KEY_JWT in methods else []
        serving = signed if self._verifier.services else []
        return wire.answer(
            self._aliased(
                {
                    "issuer": issuer,
                    "token_endpoint": f"{issuer}/oauth/token",
                    "token_endpoint_auth_methods_supported": methods,
                    **({"token_endpoint_auth_signing_alg_values_supported": signed} if signed else {}),
                    "revocation_endpoint": f"{issuer}/oauth/revoke",
                    "revocation_endpoint_auth_methods_supported": methods,
                    **({"revocation_endpoint_auth_signing_alg_values_supported": signed} if signed else {}),
                    "introspection_endpoint": f"{issuer}/oauth/introspect",
                    "introspection_endpoint_auth_methods_supported": [
                        *(["DPoP", "Bearer"] if self._certified else ["DPoP"]),
                        *(self._identity.methods if self._verifier.services else ()),
                    ],
                    **({"introspection_endpoint_auth_signing_alg_values_supported": serving} if serving else {}),
                    "jwks_uri": f"{issuer}/oauth/jwks",
                    "status_list_aggregation_endpoint": issuer + AGGREGATION,
                    "grant_types_supported": list(self._grant_types),
                    **({"authorization_grant_profiles_supported": [ID_JAG]} if JWT_BEARER in self._grant_types else {}),
                    "dpop_signing_alg_values_supported": ALGORITHMS,
                    "tls_client_certificate_bound_access_tokens": self._certified,
                    "authorization_details_types_supported": self._types,
                    **self._scopes,
                    **self._more,
                }
            )
        )

    def _aliased(self, document: Mapping[str, object]) -> Mapping[str, object]:
        """Return metadata with the endpoints that see a client's certificate (RFC 8705 §5): those that there are."""
        if not self._certified:
            return document
        seen = {name: url for name, url in document.items() if name.endswith("_endpoint") and name not in _NO_CLIENT}
        return {**document, "mtls_endpoint_aliases": seen}

    async def resource(self, request: Request) -> Response:
        """Describe the API, as the resource that was asked for: the one that its path comes after (RFC 9728 §3.3)."""
        issuer, path = self._verifier.issuer, request.path_params.get("path")
        return wire.answer(
            {
                "resource": issuer if path is None else f"{issuer}/{path}",
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

    async def status_list(self, request: Request) -> Response:
        """Return the status list token, as of now: of another ``time`` nothing is known (§8.4)."""
        if "time" in wire.pairs(request.scope["query_string"], frozenset({"time"})):
            error = {"error": "invalid_request", "error_description": "there is no list of another time"}
            return wire.answer(error, HTTPStatus.NOT_IMPLEMENTED)
        return Response(await self._verifier.tokens.status_list(), headers=wire.HEADERS, media_type=MEDIA)

    async def status_lists(self, _request: Request) -> Response:
        """Return the list of lists (§9.3)."""
        return wire.answer({"status_lists": [self._verifier.issuer + STATUS]})
