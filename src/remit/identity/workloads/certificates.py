"""X.509-SVIDs that somebody presents (X509-SVID §4, §5): whom one names, and whether a trust domain has signed it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import Criticality, ExtensionPolicy, Policy, PolicyBuilder, Store

from remit.core import spiffe
from remit.core.spiffe import SpiffeId
from remit.errors import InvalidRequestError, UnauthenticatedError

try:  # here, and not when it is needed: loading it takes longer than a turn of the authority's loop may
    from OpenSSL import crypto
except ImportError:  # it comes with the extra `spiffe`
    crypto = None  # type: ignore[assignment]  # as above

MAX_CHAIN = 8  # certificates that a client may present
MIN_RSA = 2_048  # bits

_USAGES = frozenset({ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH})
_Kind = TypeVar("_Kind", bound=x509.ExtensionType)


def workload_id(text: str, what: str) -> SpiffeId:
    """Return the SPIFFE ID that ``what`` names, or raise UnauthenticatedError."""
    try:
        found = spiffe.parse(text)
    except InvalidRequestError as error:
        raise UnauthenticatedError(f"{what} is not a SPIFFE ID") from error
    if not found.path:
        raise UnauthenticatedError(f"{what} names a trust domain, not a workload")
    return found


@lru_cache(maxsize=1_024)
def loaded(der: bytes) -> x509.Certificate:
    try:
        found = x509.load_der_x509_certificate(der)
        extensions = list(found.extensions)
    except (ValueError, x509.DuplicateExtension) as error:
        raise UnauthenticatedError("the client certificate is not well formed") from error
    if any(one.critical and isinstance(one.value, x509.UnrecognizedExtension) for one in extensions):
        raise UnauthenticatedError("the client certificate has a critical extension that is unknown here")
    return found


def identity_of(leaf: x509.Certificate) -> SpiffeId:
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


def check_chain(
    leaf: x509.Certificate, others: Sequence[x509.Certificate], authorities: Sequence[x509.Certificate], now: datetime
) -> None:
    if not authorities:
        raise UnauthenticatedError("the workload's trust domain has no authority for certificates")
    if any(map(_limits_uris, (*others, *authorities))):
        _check_by_openssl(leaf, others, authorities, now)
        return
    policy = PolicyBuilder().store(Store(list(authorities))).time(now).max_chain_depth(MAX_CHAIN)
    signing = ExtensionPolicy.permit_all()  # what a signing certificate must have (§4.1, §4.3); SPIRE's have no more
    signing = signing.require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _is_authority)
    signing = signing.require_present(x509.KeyUsage, Criticality.AGNOSTIC, _may_sign)
    named = ExtensionPolicy.permit_all().require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)
    policy = policy.extension_policies(ca_policy=signing, ee_policy=named)  # `identity_of` has asked for the rest
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


# -- name constraints on URIs ---------------------------------------------------------------------------------------


def _limits_uris(certificate: x509.Certificate) -> bool:
    """Whether its name constraints are about URIs (RFC 5280 §4.2.1.10), for which the verifier above has no code."""
    found = _extension(certificate, x509.NameConstraints)
    trees = () if found is None else (*(found.permitted_subtrees or ()), *(found.excluded_subtrees or ()))
    return any(isinstance(each, x509.UniformResourceIdentifier) for each in trees)


def _check_by_openssl(
    leaf: x509.Certificate, others: Sequence[x509.Certificate], authorities: Sequence[x509.Certificate], now: datetime
) -> None:
    """Check the same where an authority limits the URIs that it may name: the host of a SPIFFE ID is its trust domain.

    OpenSSL asks less of a chain than the verifier above, so what it has found is looked at once more.
    """
    if crypto is None:
        raise UnauthenticatedError(
            "an authority has name constraints on URIs, which takes pyOpenSSL", help="install remit with extra `spiffe`"
        )
    store = crypto.X509Store()
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)  # each authority of the bundle is believed by itself
    store.set_time(now)
    for authority in authorities:
        store.add_cert(crypto.X509.from_cryptography(authority))
    chained = [crypto.X509.from_cryptography(each) for each in others]
    try:
        found = crypto.X509StoreContext(store, crypto.X509.from_cryptography(leaf), chained).get_verified_chain()
    except crypto.X509StoreContextError as error:
        raise UnauthenticatedError("the client certificate is not valid under its trust domain's bundle") from error
    signing = [each.to_cryptography() for each in found[1:]]
    for each in signing:
        constraints, usage = _extension(each, x509.BasicConstraints), _extension(each, x509.KeyUsage)
        if constraints is None or not constraints.ca or usage is None or not usage.key_cert_sign:
            raise UnauthenticatedError("what has signed the client certificate is no authority")
    keys = [each.public_key() for each in (leaf, *signing)]
    signed = [each.signature_hash_algorithm for each in (leaf, *signing[:-1])]
    if len(found) > MAX_CHAIN or not all(map(_strong, keys)) or any(_weak(each) for each in signed):
        raise UnauthenticatedError("the chain of the client certificate is too long or too weak")


def _strong(key: object) -> bool:
    return isinstance(key, ec.EllipticCurvePublicKey) or (isinstance(key, rsa.RSAPublicKey) and key.key_size >= MIN_RSA)


def _weak(algorithm: hashes.HashAlgorithm | None) -> bool:
    return not isinstance(algorithm, hashes.SHA256 | hashes.SHA384 | hashes.SHA512)
