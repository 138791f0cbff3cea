"""What clients discover: server metadata (RFC 8414), the API as a resource (RFC 9728), keys, pages of problems."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from starlette.requests import Request
from starlette.responses import Response

from remit.api import problems, wire
from remit.api.oauth import GrantType
from remit.api.routes import Surface
from remit.core import jose
from remit.core.scope import TYPES

_NOTHING: Mapping[str, object] = MappingProxyType({})

ALGORITHMS = jose.CHALLENGE.split()


class WellKnown:
    """The public documents of one issuer."""

    def __init__(self, surface: Surface, ways: Mapping[str, GrantType], more: Mapping[str, object] = _NOTHING) -> None:
        """Describe the issuer of ``surface`` with the grant types that work, and what other parts say of themselves."""
        self._verifier, self._identity = surface.verifier, surface.identity
        self._ways, self._more = ways, more

    async def server(self, request: Request) -> Response:
        """Return the authorization server metadata."""
        del request
        issuer = self._verifier.issuer
        return wire.answer(
            {
                "issuer": issuer,
                "token_endpoint": f"{issuer}/oauth/token",
                "token_endpoint_auth_methods_supported": self._methods(),
                "revocation_endpoint": f"{issuer}/oauth/revoke",
                "revocation_endpoint_auth_methods_supported": ["none"],
                "introspection_endpoint": f"{issuer}/oauth/introspect",
                "introspection_endpoint_auth_methods_supported": ["DPoP"],
                "jwks_uri": f"{issuer}/oauth/jwks",
                "response_types_supported": [],
                "grant_types_supported": list(self._ways),
                "dpop_signing_alg_values_supported": ALGORITHMS,
                "authorization_details_types_supported": sorted(TYPES),
                **self._more,
            }
        )

    def _methods(self) -> list[str]:
        """Return how a client may authenticate: names of RFC 8414, and of the drafts where they have none."""
        return ["none"]

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
