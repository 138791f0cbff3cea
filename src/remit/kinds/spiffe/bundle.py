"""What verifies SVIDs of the broker's own trust domain: the SPIFFE bundle, and the JWT keys for OIDC relying parties.

The keys are those of JWT-SVIDs alone. Tokens of grants are signed by others, at ``/oauth/jwks``: whoever trusts those
here takes no grant's token for an SVID.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from remit.web import wire
from remit.web.routes import AppDeps, Route

REFRESH = 300  # seconds after which a verifier should look again (``spiffe_refresh_hint``)


def routes(deps: AppDeps) -> tuple[Route, ...]:
    """Return the routes, if the broker is the authority of a trust domain."""
    if deps.trust is None:
        return ()
    trust, issuer = deps.trust, deps.verifier.issuer

    async def bundle(_: Request) -> Response:
        """Return the SPIFFE bundle (SPIFFE Trust Domain and Bundle §4)."""
        own = trust.now.own
        return wire.answer({"keys": list(own.bundle), "spiffe_sequence": own.sequence, "spiffe_refresh_hint": REFRESH})

    async def jwks(_: Request) -> Response:
        """Return the keys of JWT-SVIDs as a JWK set."""
        return wire.answer({"keys": [dict(jwk) for jwk in trust.now.own.jwks]})

    async def discovery(_: Request) -> Response:
        """Return what a relying party needs to verify JWT-SVIDs (OIDC Discovery §3); nobody logs in here with OIDC."""
        return wire.answer(
            {
                "issuer": issuer,
                "jwks_uri": f"{issuer}/oauth/federation/jwks",
                "response_types_supported": ["id_token"],  # one at least, RFC 8414 §3.2; as other issuers for machines
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": [trust.now.own.jwks[0]["alg"]],
                "claims_supported": ["iss", "sub", "aud", "exp", "iat", "jti", "attested", "task", "grant"],
            }
        )

    return (
        Route("GET", "/.well-known/spiffe-bundle", bundle),
        Route("GET", "/.well-known/openid-configuration", discovery),
        Route("GET", "/oauth/federation/jwks", jwks),
    )
