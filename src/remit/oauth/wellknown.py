"""What clients discover: server metadata (RFC 8414), the API as a resource (RFC 9728), keys, pages of problems."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from starlette.requests import Request
from starlette.responses import Response

from remit import jose
from remit.core.scope import TYPES
from remit.oauth.federation import JWT_BEARER
from remit.oauth.oauth import GrantType
from remit.oauth.status import AGGREGATION
from remit.web import problems, wire
from remit.web.routes import AppDeps

_NOTHING: Mapping[str, object] = MappingProxyType({})

ALGORITHMS = jose.CHALLENGE.split()
ID_JAG = "urn:ietf:params:oauth:grant-profile:id-jag"


class WellKnown:
    """The public documents of one issuer."""

    def __init__(self, surface: AppDeps, ways: Mapping[str, GrantType], more: Mapping[str, object] = _NOTHING) -> None:
        """Describe the issuer of ``surface`` with the grant types that work, and what other parts say of themselves."""
        self._verifier, self._identity = surface.verifier, surface.identity
        self._ways, self._more = ways, more

    async def server(self, request: Request) -> Response:
        """Return the authorization server metadata: what works here, and nothing else."""
        del request
        issuer, methods = self._verifier.issuer, ["none", *self._identity.methods]
        return wire.answer(
            {
                "issuer": issuer,
                "token_endpoint": f"{issuer}/oauth/token",
                "token_endpoint_auth_methods_supported": methods,
                "revocation_endpoint": f"{issuer}/oauth/revoke",
                "revocation_endpoint_auth_methods_supported": methods,
                "introspection_endpoint": f"{issuer}/oauth/introspect",
                "introspection_endpoint_auth_methods_supported": self._schemes(),
                "jwks_uri": f"{issuer}/oauth/jwks",
                "status_list_aggregation_endpoint": issuer + AGGREGATION,
                "grant_types_supported": list(self._ways),
                **self._profiles(),
                "dpop_signing_alg_values_supported": ALGORITHMS,
                "tls_client_certificate_bound_access_tokens": self._certified(),
                "authorization_details_types_supported": sorted(TYPES),
                **self._more,
            }
        )

    def _profiles(self) -> Mapping[str, object]:
        """Return the profiles of grants that are taken: what no list names is left out (RFC 8414 §3.2)."""
        return {"authorization_grant_profiles_supported": [ID_JAG]} if JWT_BEARER in self._ways else {}

    def _certified(self) -> bool:
        """Whether clients can have a certificate here: on the TLS listener, of a trust domain (RFC 8705 §3.3)."""
        return "spiffe_x509" in self._identity.methods

    def _schemes(self) -> list[str]:
        """Return the types of token that prove a caller: a token that is bound to a certificate is a Bearer's."""
        return ["DPoP", "Bearer"] if self._certified() else ["DPoP"]

    async def resource(self, request: Request) -> Response:
        """Return the metadata of the API as a protected resource."""
        del request
        issuer = self._verifier.issuer
        return wire.answer(
            {
                "resource": issuer,
                "authorization_servers": [issuer],
                "jwks_uri": f"{issuer}/oauth/jwks",
                "bearer_methods_supported": ["header"],
                "dpop_bound_access_tokens_required": not self._certified(),
                "tls_client_certificate_bound_access_tokens": self._certified(),
                "dpop_signing_alg_values_supported": ALGORITHMS,
                "authorization_details_types_supported": sorted(TYPES),
            }
        )

    async def jwks(self, request: Request) -> Response:
        """Return the keys that tokens are signed with."""
        del request
        return wire.answer({"keys": self._verifier.keys.jwks})

    async def problem(self, request: Request) -> Response:
        """Explain a problem type."""
        return problems.page(request.path_params["code"])
