"""Workloads, by the OIDC tokens of the platform they run on: Kubernetes, CI, clouds, any issuer (RFC 7523 §3).

A rule names an issuer, the audience its tokens must be made for, and what claims must be, exactly. Who matches no rule
is nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from remit.core.principal import Workload
from remit.errors import TokenError, UnauthenticatedError
from remit.identity.issuers import Issuer
from remit.jose import jwt
from remit.jose.jwt import SKEW, JwtProfile, claim_text, find_claim
from remit.ports import Clock

MAX_AGE = timedelta(hours=24)  # of a token, whatever it says of its end

_TOKEN = JwtProfile(frozenset({"", "jwt"}))


@dataclass(frozen=True, slots=True)
class WorkloadRule:
    """Whom to let in. ``match``: claim -> the values it may have. ``claims`` are passed on to policies."""

    issuer: Issuer
    audience: str
    match: Mapping[str, tuple[str, ...]]
    claims: tuple[str, ...] = ()

    def matches(self, claims: Mapping[str, object]) -> bool:
        """Whether every claim of ``match`` has one of its values."""
        return all(claim_text(find_claim(claims, name)) in values for name, values in self.match.items())


@dataclass(frozen=True, slots=True)
class OidcWorkloads:
    """Verifies workloads' tokens by rules, of which the first that matches decides what policies are told."""

    rules: Sequence[WorkloadRule] = field(repr=False)
    clock: Clock

    async def assertion(self, token: str) -> Workload:
        """Return the workload of a ``jwt-bearer`` assertion; TokenError, or what the port ``Workloads`` raises."""
        read = jwt.read(token, _TOKEN)
        claims, issuer = read.claims, jwt.text(read.claims, "iss")
        rules = [rule for rule in self.rules if rule.issuer.url == issuer]
        if not rules:
            raise TokenError("its issuer is not one that is trusted here")
        audience = jwt.audience(claims, {rule.audience for rule in rules})
        await rules[0].issuer.verified(read)
        if "nonce" in claims or "events" in claims:
            raise TokenError("it is not a workload's token")
        _, expires = jwt.window(claims, self.clock(), MAX_AGE)
        matching = [rule for rule in rules if rule.audience == audience and rule.matches(claims)]
        if not matching:
            raise UnauthenticatedError("no rule lets this workload in", help="see `[[workloads]]` of the configuration")
        picked = ((name, claim_text(find_claim(claims, name))) for name in matching[0].claims)
        return Workload(
            id=f"{issuer}#{jwt.text(claims, 'sub')}",
            method="oidc",
            expires_at=expires + SKEW,
            claims={name: value for name, value in picked if value is not None},
        )
