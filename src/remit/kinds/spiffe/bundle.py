"""What verifies SVIDs of the broker's own trust domain: the SPIFFE bundle, and the JWT keys for OIDC relying parties.

The keys are those of JWT-SVIDs alone. Tokens of grants are signed by others, at ``/oauth/jwks``: whoever trusts those
here takes no grant's token for an SVID.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from remit.ports.identity import Authority
from remit.web import wire
from remit.web.routes import AppDeps, Route

REFRESH = 300  # seconds after which a verifier should look again (``spiffe_refresh_hint``)


class BundleEndpoints:
    """The public documents of one trust domain. ``issuer`` is what JWT-SVIDs name as theirs."""

    def __init__(self, authority: Authority, issuer: str) -> None:
        self._authority, self._issuer = authority, issuer

    async def bundle(self, _: Request) -> Response:
        """Return the SPIFFE bundle (SPIFFE Trust Domain and Bundle §4)."""
        return wire.answer(
            {
                "keys": list(self._authority.bundle()),
                "spiffe_sequence": self._authority.sequence,
                "spiffe_refresh_hint": REFRESH,
            }
        )

    async def jwks(self, _: Request) -> Response:
        """Return the keys of JWT-SVIDs as a JWK set."""
        return wire.answer({"keys": [dict(jwk) for jwk in self._authority.jwks()]})

    async def discovery(self, _: Request) -> Response:
        """Return what a relying party needs to verify JWT-SVIDs (OIDC Discovery §3); nobody logs in here with OIDC."""
        return wire.answer(
            {
                "issuer": self._issuer,
                "jwks_uri": f"{self._issuer}/oauth/federation/jwks",
                "response_types_supported": ["id_token"],  # one at least, RFC 8414 §3.2; as other issuers for machines
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": [self._authority.signer.alg],
                "claims_supported": ["iss", "sub", "aud", "exp", "iat", "jti", "attested", "task", "grant"],
            }
        )


def routes(deps: AppDeps) -> tuple[Route, ...]:
    """Return the routes, if the broker is the authority of a trust domain."""
    if deps.authority is None:
        return ()
    known = BundleEndpoints(deps.authority, deps.verifier.issuer)
    return (
        Route("GET", "/.well-known/spiffe-bundle", known.bundle),
        Route("GET", "/.well-known/openid-configuration", known.discovery),
        Route("GET", "/oauth/federation/jwks", known.jwks),
    )
