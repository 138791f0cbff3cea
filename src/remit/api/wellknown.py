"""What clients discover: server metadata (RFC 8414), the API as a resource (RFC 9728), keys, pages of problems."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from remit.api import problems, wire
from remit.api.oauth import EXCHANGE
from remit.api.proven import Verifier
from remit.core import jose
from remit.core.scope import TYPES

ALGORITHMS = jose.CHALLENGE.split()


class WellKnown:
    """The public documents of one issuer."""

    def __init__(self, verifier: Verifier) -> None:
        """Describe the issuer of ``verifier``."""
        self._verifier = verifier

    async def server(self, request: Request) -> Response:
        """Return the authorization server metadata."""
        del request
        issuer = self._verifier.issuer
        return wire.answer(
            {
                "issuer": issuer,
                "token_endpoint": f"{issuer}/oauth/token",
                "token_endpoint_auth_methods_supported": ["none"],
                "revocation_endpoint": f"{issuer}/oauth/revoke",
                "revocation_endpoint_auth_methods_supported": ["none"],
                "introspection_endpoint": f"{issuer}/oauth/introspect",
                "introspection_endpoint_auth_methods_supported": ["DPoP"],
                "jwks_uri": f"{issuer}/oauth/jwks",
                "response_types_supported": [],
                "grant_types_supported": [EXCHANGE],
                "dpop_signing_alg_values_supported": ALGORITHMS,
                "authorization_details_types_supported": sorted(TYPES),
            }
        )

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
                "dpop_bound_access_tokens_required": True,
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
