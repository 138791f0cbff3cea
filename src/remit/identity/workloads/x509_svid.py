"""X.509-SVIDs: whose certificate a TLS client presented, by the bundle of that one trust domain (X509-SVID §5)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from typing import TypeVar

from cryptography import x509
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import Criticality, ExtensionPolicy, Policy, PolicyBuilder, Store

from remit import jose
from remit.core.principal import Workload
from remit.core.spiffe import SpiffeId
from remit.errors import UnauthenticatedError
from remit.identity.workloads.bundles import TrustBundles
from remit.identity.workloads.jwt_svid import check_allowed, workload_id
from remit.ports import Clock

_Kind = TypeVar("_Kind", bound=x509.ExtensionType)

MAX_CHAIN = 8  # certificates that a client may present
_USAGES = frozenset({ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH})


@dataclass(frozen=True, slots=True)
class X509SvidVerifier:
    """Verifies X.509-SVIDs with names that match a pattern of ``allow``."""

    bundles: TrustBundles
    allow: Sequence[str]
    clock: Clock

    async def certified(self, chain: Sequence[bytes]) -> Workload:
        """Return the workload of a chain (DER, the leaf first) whose key the TLS client has proven.

        UnauthenticatedError unless the chain ends at an authority of the leaf's own trust domain; UnavailableError
        when that trust domain's bundle is not to be had.
        """
        if not 1 <= len(chain) <= MAX_CHAIN:
            raise UnauthenticatedError("there is no client certificate, or its chain is too long")
        leaf, *others = (_loaded(der) for der in chain)
        identity = _leaf(leaf)
        bundle = await self.bundles.of(identity.domain)
        _check_chain(leaf, others, _usable(bundle.authorities), self.clock())
        check_allowed(str(identity), self.allow)
        thumbprint = jose.encode(sha256(chain[0]).digest())
        return Workload(str(identity), "x509-svid", leaf.not_valid_after_utc, x5t=thumbprint)


@lru_cache(maxsize=1_024)
def _loaded(der: bytes) -> x509.Certificate:
    try:
        found = x509.load_der_x509_certificate(der)
        extensions = list(found.extensions)
    except (ValueError, x509.DuplicateExtension) as error:
        raise UnauthenticatedError("the client certificate is not well formed") from error
    if any(one.critical and isinstance(one.value, x509.UnrecognizedExtension) for one in extensions):
        raise UnauthenticatedError("the client certificate has a critical extension that is unknown here")
    return found


def _usable(authorities: Iterable[bytes]) -> list[x509.Certificate]:
    """Return the authorities that are understood here: another is no reason to refuse what these have signed."""
    found = []
    for der in authorities:
        with suppress(UnauthenticatedError):
            found.append(_loaded(der))
    return found


def _leaf(leaf: x509.Certificate) -> SpiffeId:
    constraints, usage = _extension(leaf, x509.BasicConstraints), _extension(leaf, x509.KeyUsage)
    if constraints is not None and constraints.ca:
        raise UnauthenticatedError("the client certificate is an authority's")
    if usage is None or not usage.digital_signature or usage.key_cert_sign or usage.crl_sign:
        raise UnauthenticatedError("the key of the client certificate is for something else than signatures")
    extended = _extension(leaf, x509.ExtendedKeyUsage)
    if extended is not None and not set(extended) >= _USAGES:
        raise UnauthenticatedError("the client certificate is not for both sides of a connection")
    names = _extension(leaf, x509.SubjectAlternativeName)
    uris = names.get_values_for_type(x509.UniformResourceIdentifier) if names else []
    if len(uris) != 1:
        raise UnauthenticatedError("the client certificate must have exactly one URI, its SPIFFE ID")
    return workload_id(uris[0], "the URI of the client certificate")


def _extension(certificate: x509.Certificate, kind: type[_Kind]) -> _Kind | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _check_chain(
    leaf: x509.Certificate, others: Sequence[x509.Certificate], authorities: Sequence[x509.Certificate], now: datetime
) -> None:
    if not authorities:
        raise UnauthenticatedError("the workload's trust domain has no authority for certificates")
    policy = PolicyBuilder().store(Store(list(authorities))).time(now).max_chain_depth(MAX_CHAIN)
    signing = ExtensionPolicy.permit_all()  # what a signing certificate must have (§4.1, §4.3); SPIRE's have no more
    signing = signing.require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _is_authority)
    signing = signing.require_present(x509.KeyUsage, Criticality.AGNOSTIC, _may_sign)
    named = ExtensionPolicy.permit_all().require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)
    policy = policy.extension_policies(ca_policy=signing, ee_policy=named)  # `_leaf` has asked for the rest
    try:
        policy.build_client_verifier().verify(leaf, list(others))
    except verification.VerificationError as error:
        raise UnauthenticatedError("the client certificate is not valid under its trust domain's bundle") from error


def _is_authority(_: Policy, __: x509.Certificate, found: x509.BasicConstraints) -> None:
    if not found.ca:
        raise ValueError("not an authority")


def _may_sign(_: Policy, __: x509.Certificate, found: x509.KeyUsage) -> None:
    if not found.key_cert_sign:
        raise ValueError("not for signing certificates")
