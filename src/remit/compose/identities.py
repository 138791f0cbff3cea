"""What verifies humans and workloads, the OAuth clients that are known, and what TLS shows, by the configuration."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path

from remit.compose.kinds import known
from remit.config.sections import ClientTable, HumanTable, TlsSection, TrustDomainTable
from remit.config.settings import Settings
from remit.config.values import Text, decode
from remit.core.audience import Audiences, Service
from remit.core.principal import JWT_BEARER
from remit.core.request import check_ttl
from remit.core.scope import check_name, parse
from remit.core.secret import Secret
from remit.errors import InvalidRequestError, UnavailableError
from remit.identity.fetch import ClientDocuments, Fetch, HttpFetch
from remit.identity.humans import IssuedHumans, IssuerLogins, Registration
from remit.identity.issuers import Issuer
from remit.identity.keyed_clients import ClientKeys, KeyedClients
from remit.identity.workloads.attested import Assertion, AttestedWorkloads, OidcWorkloads, WorkloadRule
from remit.identity.workloads.bundles import (
    ApiSource,
    BundleSource,
    DocumentSource,
    FileSource,
    ReachedSource,
    SpiffeSource,
    TrustBundles,
    WebSource,
)
from remit.jose.keys import MAX_SET, read_key_set
from remit.keys.file import read_regular
from remit.oauth.clients import Registry, audiences, check_redirect
from remit.oauth.clients import check_name as check_client_name
from remit.oauth.registration import Mac, RegistrationRules, SelfRegistration
from remit.oauth.token_requests import known_audience
from remit.ports import Clock
from remit.ports.identity import Registered
from remit.ports.targets import DocumentPort
from remit.ports.trust import CertificatePort, Pair, Trust
from remit.sessions.events import EventIssuer
from remit.web.scope_templates import ScopeTemplate
from remit.web.tls import ServerTLS

RS256 = "RS256"
MAX_PEM = 1 << 18  # bytes of a certificate with its chain, or of a key


@dataclass(frozen=True, slots=True)
class TrustedIssuers:
    """What the configured issuers can prove; None where none is configured for it."""

    humans: IssuedHumans | None
    logins: IssuerLogins | None  # where a client has a secret: by no other does a human decide on approvals
    platforms: OidcWorkloads | None
    # a human (issuer-qualified) -> `acr` values that decide on their requests
    step_up: Callable[[str], tuple[str, ...]]
    sources: Mapping[str, EventIssuer] = field(default_factory=dict)  # the issuers of humans as issuers of signals
    issuers: Mapping[str, Issuer] = field(default_factory=dict)  # all, by URL, so that each has one cache of keys


def trusted(settings: Settings, clock: Clock, fetch: Fetch) -> TrustedIssuers:
    """Build what verifies humans and workloads of issuers, or raise InvalidRequestError where a secret is no good.

    ``fetch`` is how their documents are come by; a login's code is redeemed in this process.
    """
    urls = [one.issuer for one in settings.humans] + [one.issuer for one in settings.workloads]
    issuers: dict[str, Issuer] = {url: Issuer(url, fetch, clock) for url in urls}
    registrations = tuple(
        Registration(
            issuer=issuers[one.issuer],
            client_id=one.client_id,
            secret=None if one.client_secret_file is None else _secret(one.client_secret_file),
            scopes=one.scopes,
            groups=one.groups_claim,
            acr=one.acr,
            id_jag=one.id_jag,
            name=one.name,
        )
        for one in settings.humans
    )
    rules = tuple(
        WorkloadRule(issuers[one.issuer], one.audience or settings.issuer, one.match, one.claims)
        for one in settings.workloads
    )
    humans = IssuedHumans(registrations, settings.issuer, clock) if registrations else None
    acr: Mapping[str, tuple[str, ...]] = {one.issuer: one.acr for one in settings.humans}
    return TrustedIssuers(
        humans=humans,
        logins=IssuerLogins(humans, HttpFetch().transport) if humans and humans.deciding else None,
        platforms=OidcWorkloads(rules, clock) if rules else None,
        step_up=lambda sub: acr.get(sub.partition("#")[0], ()),  # any is enough where none are configured
        sources=_sources(registrations, settings.issuer),
        issuers=issuers,
    )


def _secret(path: Path) -> Secret:
    try:
        mode, text = path.stat().st_mode, path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError("`humans.client_secret_file` cannot be read") from error
    if mode & 0o077:
        raise InvalidRequestError(
            "`humans.client_secret_file` can be read or written by others", help=f"chmod 600 {path.name}"
        )
    try:
        return Secret(decode(Text, text.removesuffix("\n")))
    except ValueError as error:
        raise InvalidRequestError("`humans.client_secret_file` must hold one line of text") from error


def _sources(registrations: Sequence[Registration], broker: str) -> Mapping[str, EventIssuer]:
    """Return the issuers of humans as issuers of signals: to a client of theirs, or to the broker by its own name."""
    clients: dict[str, set[str]] = {}
    for one in registrations:
        clients.setdefault(one.issuer.url, set()).add(one.client_id)
    issuers = {one.issuer.url: one.issuer for one in registrations}
    return {url: EventIssuer(issuers[url], frozenset(ids | {broker}), about=url) for url, ids in clients.items()}


def native_clients(settings: Settings) -> Sequence[Mapping[str, object]]:
    """Return what `remit login` has to know of every issuer with a public client; nothing of it is secret.

    A client with a secret is not one that a terminal can be.
    """
    found = []
    for table in (table for table in settings.humans if table.client_secret_file is None):
        unsaid = HumanTable(table.issuer, table.client_id)
        optional = {name: getattr(table, name) for name in ("scopes", "groups_claim", "name")}
        said = {name: value for name, value in optional.items() if value != getattr(unsaid, name)}
        found.append({"issuer": table.issuer, "client_id": table.client_id, **said})
    return tuple(found)


def set_up(settings: Settings) -> Sequence[Registered]:
    """Return the OAuth clients of the configuration, or raise InvalidRequestError naming what is wrong."""
    known = []
    for one in settings.clients:
        name = check_client_name(one.id[:100] if one.name is None else one.name)
        uris = tuple(check_redirect(uri) for uri in one.redirect_uris)
        known.append(Registered(one.id, name, uris, keyed=one.keyed))
    return known


def registration(settings: Settings, clock: Clock, mac: Mac | None) -> SelfRegistration | None:
    """Return what registers clients; None where none may register itself, or no human could decide on it."""
    section, deciding = settings.client_registration, any(one.client_secret_file for one in settings.humans)
    if section is None or mac is None or not deciding:
        return None
    life = timedelta(days=section.days)
    rules = RegistrationRules(frozenset(section.redirect_hosts), section.loopback, life, section.per_minute)
    return SelfRegistration(rules, mac, clock, set_up(settings))


def clients(settings: Settings, clock: Clock, themselves: SelfRegistration | None = None) -> Registry:
    """Return the OAuth clients that are known, and those that can be got to know."""
    section = settings.client_documents
    documents = None if section is None else ClientDocuments(frozenset(section.hosts), private=section.private)
    return Registry(set_up(settings), documents, clock, None if themselves is None else themselves.known)


def scopes(settings: Settings) -> Mapping[str, ScopeTemplate]:
    """Return what names in ``scope`` stand for, or raise InvalidRequestError naming what is wrong."""
    known(settings)  # of whose details they are
    found = {}
    for name, one in settings.scopes.items():
        try:
            details, ttl = (
                parse(list(one.authorization_details)),
                None if one.ttl is None else timedelta(seconds=one.ttl),
            )
            check_ttl(ttl)
        except InvalidRequestError as error:
            raise InvalidRequestError(f"`scopes.{name}`: {error.detail}", help=error.help) from error
        found[name] = ScopeTemplate(name, details, one.purpose, one.title, one.ttl, one.clients)
    return found


def services(settings: Settings) -> Mapping[str, Service]:
    """Return the resource servers elsewhere, or raise InvalidRequestError where one cannot be told from another."""
    gateway = None if settings.gateway is None else settings.gateway.url
    own, keyed = Audiences(settings.issuer, gateway), {one.id: one.keyed for one in settings.clients}
    found: dict[str, Service] = {}
    for name, one in settings.services.items():
        check_name(name)
        if known_audience(one.resource, replace(own, services=found)):
            raise InvalidRequestError(
                "`services.resource` must be of that service alone, and not the broker's own or another's"
            )
        if one.client is not None and not keyed.get(one.client, "://" in one.client):
            raise InvalidRequestError(
                "`services.client` must be able to prove who it is",
                help="name a client with keys of `[[clients]]`, or a workload",
            )
        found[name] = Service(name, one.resource, one.client or "", one.signing_alg == RS256)
    return found


def client_keys(settings: Settings, clock: Clock, fetch: Fetch) -> Mapping[str, ClientKeys]:
    """Return the keys of the clients that have some, or raise InvalidRequestError where they are no good."""
    found = {}
    for one in settings.clients:
        if one.jwks_uri is not None:
            found[one.id] = ClientKeys(one.id, partial(fetch, one.jwks_uri), clock)
        elif one.keyed:
            read = partial(_read_keys, one)
            if not read_key_set(read()).keys:
                raise InvalidRequestError(f"`clients` has no key for `{one.id}` that can verify a signature")
            found[one.id] = ClientKeys(one.id, partial(asyncio.to_thread, read), clock)
    return found


def _read_keys(client: ClientTable) -> bytes:
    if client.jwks_file is None:
        return json.dumps(client.jwks).encode()
    try:
        return read_regular(client.jwks_file, MAX_SET)
    except OSError as error:
        raise InvalidRequestError("`clients.jwks_file` cannot be read") from error


def assertions(settings: Settings, known: TrustedIssuers, clock: Clock, fetch: Fetch) -> Mapping[str, Assertion]:
    """Return what verifies client assertions that are no JWT-SVIDs, by their type."""
    others, keys = None if known.platforms is None else known.platforms.assertion, client_keys(settings, clock, fetch)
    if not keys:
        return {} if others is None else {JWT_BEARER: others}
    return {JWT_BEARER: KeyedClients(keys, audiences(settings.issuer), clock, others).assertion}


def source(domain: TrustDomainTable) -> FileSource | WebSource | SpiffeSource | ApiSource:
    if domain.bundle_file is not None:
        return FileSource(domain.bundle_file)
    if domain.endpoint_id is not None and domain.bootstrap_file is not None:
        return SpiffeSource(str(domain.bundle_url), domain.endpoint_id, FileSource(domain.bootstrap_file))
    if domain.bundle_url is not None:
        return WebSource(domain.bundle_url, domain.ca_file)
    return ApiSource(str(domain.workload_api))


def near(domain: TrustDomainTable, reached: DocumentPort) -> BundleSource:
    """Return where this process has a bundle from: a file it reads itself, all else is ``reached`` for it."""
    direct = source(domain)
    return direct if isinstance(direct, FileSource) else ReachedSource(reached.bundle, direct.every)


def published(settings: Settings) -> Mapping[str, DocumentSource]:
    """Return where the bundles of trust domains are published that are not in a file."""
    sources = {str(one.name): source(one) for one in settings.trust_domains}
    return {name: one for name, one in sources.items() if isinstance(one, DocumentSource)}


def bundles(settings: Settings, clock: Clock, reached: DocumentPort) -> TrustBundles | None:
    """Return the bundles of the trust domains that are configured; None: there are none."""
    sources = {str(one.name): near(one, reached) for one in settings.trust_domains}
    return TrustBundles(sources, clock) if sources else None


def attested(
    settings: Settings, held: TrustBundles | None, clock: Clock, platforms: Mapping[str, Assertion]
) -> AttestedWorkloads | None:
    """Return what verifies workloads: of trust domains, and of ``platforms`` by their kind of client assertion."""
    if held is None and not platforms:
        return None
    allow = tuple(pattern for one in settings.trust_domains for pattern in one.allow)
    once = frozenset(str(one.name) for one in settings.trust_domains if one.jwt_svids_once)
    return AttestedWorkloads(platforms, settings.issuer, clock, held, allow, once)


def methods(settings: Settings) -> tuple[str, ...]:
    """Return how clients may authenticate: workloads by draft-ietf-oauth-spiffe-client-auth §4, others by their keys.

    WIMSE's headers and the tokens of platforms work too; server metadata has no name for them.
    """
    keyed = any(one.keyed for one in settings.clients) or settings.client_documents is not None
    own = ("private_key_jwt",) if keyed else ()
    if not settings.trust_domains:
        return own
    return (*own, "spiffe_jwt") if settings.tls is None else (*own, "spiffe_jwt", "spiffe_x509")


class CertificateFiles(CertificatePort):
    """The files of ``[tls]``. Whoever renews them may put others in their place, or lead a symbolic link elsewhere."""

    def __init__(self, section: TlsSection) -> None:
        self._certificate, self._key = section.certificate, section.key

    def read(self) -> Pair:
        try:
            mode = self._key.stat().st_mode
        except OSError as error:
            raise InvalidRequestError("`tls.key` cannot be read") from error
        if mode & 0o077:
            raise InvalidRequestError("`tls.key` can be read or written by others", help=f"chmod 600 {self._key.name}")
        try:
            certificate, key = (read_regular(path.resolve(), MAX_PEM) for path in (self._certificate, self._key))
        except OSError as error:
            raise UnavailableError("the certificate or the key of the TLS listener cannot be read") from error
        return certificate, key

    async def server_certificate(self) -> Pair:
        return await asyncio.to_thread(self.read)  # a disk that hangs delays no end


def server_tls(settings: Settings, read: Callable[[], Pair], trust: Trust | None) -> ServerTLS | None:
    """Return what TLS handshakes use; None without ``[tls]``. Clients are asked for certificates if any could count."""
    if settings.tls is None:
        return None

    def anchors() -> tuple[bytes, ...] | None:
        """Return the certificates of all authorities there are: for the filter of a handshake, never for a decision."""
        if trust is None or not settings.trust_domains:
            return None
        return tuple(der for bundle in trust.now.others.values() for der in bundle.authorities)

    return ServerTLS(read, anchors)
