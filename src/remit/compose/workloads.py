"""What verifies workloads, the broker's own trust domain, and the TLS listener on which workloads show certificates."""

from __future__ import annotations

from collections.abc import Mapping

from remit.config.sections import TrustDomainTable
from remit.config.settings import Settings
from remit.errors import InvalidRequestError
from remit.identity.workloads.attested import Assertion, AttestedWorkloads
from remit.identity.workloads.bundles import ApiSource, BundleSource, FileSource, TrustBundles, WebSource
from remit.ports import Clock
from remit.web.tls import ServerTLS


def source(domain: TrustDomainTable) -> BundleSource:
    if domain.bundle_file is not None:
        return FileSource(domain.bundle_file)
    if domain.bundle_url is not None:
        return WebSource(domain.bundle_url, domain.ca_file)
    return ApiSource(str(domain.workload_api))


def bundles(settings: Settings, clock: Clock) -> TrustBundles | None:
    sources = {str(one.name): source(one) for one in settings.trust_domains}
    return TrustBundles(sources, clock) if sources else None


def attested(
    settings: Settings, held: TrustBundles | None, clock: Clock, platforms: Mapping[str, Assertion]
) -> AttestedWorkloads | None:
    """Return what verifies workloads: of trust domains, and of ``platforms`` by their kind of client assertion."""
    if held is None and not platforms:
        return None
    allow = tuple(pattern for one in settings.trust_domains for pattern in one.allow)
    return AttestedWorkloads(platforms, settings.issuer, clock, held, allow)


def methods(settings: Settings) -> tuple[str, ...]:
    """Return how workloads may authenticate (draft-ietf-oauth-spiffe-client-auth §4).

    WIMSE's headers and the tokens of platforms work too; server metadata has no name for them.
    """
    if not settings.trust_domains:
        return ()
    return ("spiffe_jwt",) if settings.tls is None else ("spiffe_jwt", "spiffe_x509")


def server_tls(settings: Settings, held: TrustBundles | None) -> ServerTLS | None:
    """Return what TLS handshakes use; None without ``[tls]``. Clients are asked for certificates if any could count."""
    if settings.tls is None:
        return None
    key = settings.tls.key
    try:
        mode = key.stat().st_mode
    except OSError as error:
        raise InvalidRequestError("`tls.key` cannot be read") from error
    if mode & 0o077:
        raise InvalidRequestError("`tls.key` can be read or written by others", help=f"chmod 600 {key.name}")
    return ServerTLS(settings.tls.certificate, key, lambda: None if held is None else held.authorities())
