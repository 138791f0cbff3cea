"""The ways to a token on which a human decides in between, with what they share: one desk, one place that waits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from remit.console.consent import ConsentPage
from remit.oauth.authorize import Authorize
from remit.oauth.backchannel import Backchannel
from remit.oauth.codes import AuthorizationCodes
from remit.oauth.device import Devices
from remit.oauth.minting import Minter
from remit.oauth.oauth import GrantType
from remit.oauth.registry import Registry
from remit.web.pending import PendingCodes
from remit.web.routes import AppDeps, Route


class Flows:
    """Code, device and back-channel flow. Without an issuer of humans there is nobody to decide, so there are none."""

    def __init__(self, deps: AppDeps, minter: Minter) -> None:
        """Serve ``deps``'s broker."""
        self._surface, self._open = deps, deps.identity.logins is not None
        pending = PendingCodes(deps.verifier.clock)
        self._desk = ConsentPage(deps, pending)
        self._redeeming = AuthorizationCodes(deps, minter, pending)
        self._asking = (
            Authorize(deps, self._desk),
            Devices(deps, self._desk, pending),
            Backchannel(deps, pending),
        )

    def ways(self) -> Mapping[str, GrantType]:
        """Return the grant types for the token endpoint."""
        return self._redeeming.ways() if self._open else {}

    def routes(self) -> tuple[Route, ...]:
        """Return the routes."""
        asking = tuple(replace(row, tcp=True) for part in self._asking for row in part.routes())
        return (*self._desk.routes(), *asking) if self._open else self._desk.pages()

    def metadata(self) -> Mapping[str, object]:
        """Return what server metadata says of them (RFC 8414, 8628 §4, 9126 §5, 9207 §3, CIBA §4)."""
        if not self._open:
            return {}
        issuer = self._surface.verifier.issuer
        return {
            "authorization_endpoint": f"{issuer}/oauth/authorize",
            "pushed_authorization_request_endpoint": f"{issuer}/oauth/par",
            "device_authorization_endpoint": f"{issuer}/oauth/device_authorization",
            "backchannel_authentication_endpoint": f"{issuer}/oauth/bc-authorize",
            "backchannel_token_delivery_modes_supported": ["poll"],
            "backchannel_user_code_parameter_supported": False,
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
            "request_parameter_supported": False,
            "request_uri_parameter_supported": False,
            "client_id_metadata_document_supported": (self._surface.identity.clients or Registry()).documents,
        }
