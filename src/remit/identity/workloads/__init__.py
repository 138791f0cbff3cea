"""Every way in which a workload shows who it is, behind one port."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from remit.core.principal import Workload
from remit.errors import UnauthenticatedError
from remit.identity.workloads.svids import WitVerifier, X509SvidVerifier

Assertion = Callable[[str], Awaitable[Workload]]


@dataclass(frozen=True, slots=True)
class AttestedWorkloads:
    """Verifies workloads by what is configured: assertions by their ``client_assertion_type``, certificates, WITs."""

    assertions: Mapping[str, Assertion]
    certificates: X509SvidVerifier | None = None
    wits: WitVerifier | None = None

    async def assertion(self, token: str, kind: str) -> Workload:
        """Return the workload of a client assertion."""
        if kind not in self.assertions:
            raise UnauthenticatedError("this kind of client assertion is not configured here")
        return await self.assertions[kind](token)

    async def named(self, wit: str) -> Workload:
        """Return the workload of a WIT, for whoever proves its key."""
        return await self._wit_verifier().named(wit)

    async def certified(self, chain: Sequence[bytes]) -> Workload:
        """Return the workload of a TLS client's X.509-SVID."""
        if self.certificates is None:
            raise UnauthenticatedError("client certificates are not believed here: no trust domain is configured")
        return await self.certificates.certified(chain)

    async def proven(self, wit: str, wpt: str, target: str, token: str | None) -> Workload:
        """Return the workload of a WIT with a WPT."""
        return await self._wit_verifier().proven(wit, wpt, target, token)

    def _wit_verifier(self) -> WitVerifier:
        if self.wits is None:
            raise UnauthenticatedError("workload identity tokens are not believed here: no trust domain is configured")
        return self.wits
