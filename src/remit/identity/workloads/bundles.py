"""Trust bundles: the keys of other trust domains, each from where the configuration says, never merged.

A bundle is looked at again as often as it asks for (``spiffe_refresh_hint``) or its source calls for. When its source
is out, the last good bundle serves for ``LIFE``; then nobody of that trust domain is believed until it is back.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import ssl
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.jwk import ECKey, RSAKey

from remit.core.spiffe import TrustBundle
from remit.errors import RemitError, UnauthenticatedError, UnavailableError
from remit.identity.fetch import BoundedTransport, get
from remit.identity.workloads.certificates import identity_of, loaded
from remit.jose.keys import KeySet, key_set
from remit.jose.strict import read_json
from remit.ports import Clock

LIFE = timedelta(hours=1)  # of a bundle whose source is out
RETRY = timedelta(seconds=10)  # after a look that failed, and between two looks for a key that is not there
MAX_BUNDLE = 1_048_576  # bytes
MAX_KEYS = 256
NO_KEYS = KeySet(())
TIMEOUT = 5.0  # seconds, for a whole answer
STEP = 0.5  # of it, for each step: a step that times out by itself leaves nothing open
SHORTEST, LONGEST = timedelta(seconds=5), timedelta(hours=1)  # between two looks, whatever a bundle hints

_LOG = logging.getLogger("remit.identity")

Jwk = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class SpiffeBundle:
    """The keys of one trust domain, by what they sign (SPIFFE Trust Domain and Bundle §4)."""

    domain: str
    authorities: tuple[bytes, ...] = ()  # x509-svid: certificates in DER
    jwt: KeySet = NO_KEYS  # jwt-svid
    wit: KeySet = NO_KEYS  # wit-svid
    jwks: tuple[Jwk, ...] = ()  # those of ``jwt`` as they came, for whoever verifies elsewhere
    hint: timedelta | None = None
    sequence: int | None = None


class BundleSource(Protocol):
    """Where the bundle of one trust domain comes from; looked at ``every`` so often, unless it hints otherwise."""

    every: timedelta

    async def fetch(self, domain: str) -> SpiffeBundle:
        """Return the bundle as it is now, or raise UnavailableError."""


def parse(domain: str, raw: bytes) -> SpiffeBundle:
    """Return the bundle of a JWK Set, or raise UnavailableError. What is unknown in it is passed over (§4.1.3)."""
    try:
        document = read_json(raw, limit=MAX_BUNDLE)
    except RemitError as error:
        raise UnavailableError(f"the bundle of `{domain}` is not strict JSON") from error
    keys = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(document, Mapping) or not isinstance(keys, list) or len(keys) > MAX_KEYS:
        raise UnavailableError(f"the bundle of `{domain}` is not a JWK Set of at most {MAX_KEYS} keys")
    known = [jwk for jwk in keys if isinstance(jwk, Mapping)]
    named = [jwk for jwk in known if isinstance(jwk.get("kid"), str)]  # JWT-SVID §6.2
    told = (document.get(name) for name in ("spiffe_refresh_hint", "spiffe_sequence"))
    hint, sequence = (value if isinstance(value, int) and not isinstance(value, bool) else None for value in told)
    certificates = (_certificate(jwk) for jwk in known if jwk.get("use") == "x509-svid")
    return SpiffeBundle(
        domain,
        tuple(dict.fromkeys(der for der in certificates if der is not None)),
        key_set(named, "jwt-svid"),
        key_set(named, "wit-svid"),
        _usable(named),
        None if hint is None or hint < 1 else min(max(timedelta(seconds=hint), SHORTEST), LONGEST),
        sequence,
    )


def _usable(jwks: Iterable[Jwk]) -> tuple[Jwk, ...]:
    """Return the keys of JWT-SVIDs among JWKs that can verify signatures, none of them private."""
    return tuple(jwk for jwk in jwks if key_set([jwk], "jwt-svid").keys)


def _certificate(jwk: Jwk) -> bytes | None:
    """Return the first certificate of ``x5c`` (X509-SVID §6.2)."""
    listed = jwk.get("x5c")
    if not isinstance(listed, list) or not listed or not isinstance(listed[0], str):
        return None
    try:
        der = base64.b64decode(listed[0], validate=True)
        x509.load_der_x509_certificate(der)
    except ValueError:
        return None
    return der


@dataclass(slots=True)
class _TrustDomain:
    """What is known of one trust domain. ``at`` is the last good look, ``due`` the next one."""

    name: str
    source: BundleSource
    due: datetime
    at: datetime | None = None
    tried: datetime | None = None
    bundle: SpiffeBundle | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class TrustBundles:
    """The bundles of the trust domains that are configured, kept fresh."""

    def __init__(self, sources: Mapping[str, BundleSource], clock: Clock) -> None:
        self._clock = clock
        self._domains = {name: _TrustDomain(name, source, clock()) for name, source in sources.items()}
        self._watching: list[Callable[[], None]] = []
        self._told: Mapping[str, TrustBundle] = {}

    async def of(self, domain: str) -> SpiffeBundle:
        """Return the bundle of a trust domain; UnauthenticatedError if that is not configured, or UnavailableError."""
        known = self._configured(domain)
        if not (known.lock.locked() and self._fresh(known)):  # what is good serves while somebody looks
            await self._look(known, known.due)
        return self._good(known)

    async def again(self, domain: str) -> SpiffeBundle:
        """Return the bundle after a fresh look, for a key that is not in it yet; but not more often than RETRY."""
        known = self._configured(domain)
        await self._look(known, known.due if known.tried is None else min(known.due, known.tried + RETRY))
        return self._good(known)

    async def refresh(self) -> None:
        """Look again wherever it is time to; what fails is told to the log."""
        await asyncio.gather(*(self._look(known, known.due) for known in self._domains.values()))
        self._tell()  # of what is good no longer

    def current(self) -> Mapping[str, TrustBundle]:
        good = {name: self._fresh(known) for name, known in self._domains.items()}
        return {name: TrustBundle(each.authorities, each.jwks) for name, each in good.items() if each}

    def on_change(self, callback: Callable[[], None]) -> None:
        self._watching.append(callback)

    def _tell(self) -> None:
        current = self.current()
        if current != self._told:
            self._told = current
            for callback in self._watching:
                callback()

    def _configured(self, domain: str) -> _TrustDomain:
        known = self._domains.get(domain)
        if known is None:
            raise UnauthenticatedError("the workload is of a trust domain that is not configured here")
        return known

    def _fresh(self, known: _TrustDomain) -> SpiffeBundle | None:
        return None if known.at is None or self._clock() >= known.at + LIFE else known.bundle

    def _good(self, known: _TrustDomain) -> SpiffeBundle:
        found = self._fresh(known)
        if found is None:
            raise UnavailableError(
                f"the trust bundle of `{known.name}` is out of reach",
                help="the broker's log says why: `log` in its state directory",
            )
        return found

    async def _look(self, known: _TrustDomain, due: datetime) -> None:
        if self._clock() < due:
            return
        async with known.lock:
            if known.tried is not None and known.tried >= due:  # somebody else has looked meanwhile
                return
            known.tried = self._clock()
            try:
                known.bundle = await _newer(known)
            except UnavailableError as error:
                known.due = self._clock() + RETRY
                why = "" if error.__cause__ is None else f" ({error.__cause__})"
                _LOG.warning("trust bundle of %s: %s%s", known.name, error.detail, why)
            except BaseException:  # cancelled, or not foreseen: somebody has to look again all the same
                known.due = self._clock() + RETRY
                raise
            else:
                known.at = self._clock()
                known.due = known.at + (known.bundle.hint or known.source.every)
                self._tell()


async def _newer(known: _TrustDomain) -> SpiffeBundle:
    """Return what the source has now; UnavailableError for an edition that was replaced: its keys may be withdrawn."""
    found = await known.source.fetch(known.name)
    check_newer(found, known.bundle)
    return found


def check_newer(found: SpiffeBundle, before: SpiffeBundle | None) -> None:
    """Refuse an edition that is earlier than one of before (§4.1.1) with an UnavailableError."""
    last = None if before is None else before.sequence
    if last is not None and (found.sequence is None or found.sequence < last):
        raise UnavailableError("its source has gone back to an earlier edition")


@dataclass
class FileSource:
    """A bundle in a file that others may replace at any time."""

    path: Path
    every = timedelta(seconds=1)
    _last: tuple[bytes, SpiffeBundle] | None = None

    async def fetch(self, domain: str) -> SpiffeBundle:
        raw = await asyncio.to_thread(self._read)
        if self._last is None or self._last[0] != raw:
            self._last = raw, replace(parse(domain, raw), hint=None)  # it is for others: looking costs nothing here
        return self._last[1]

    def _read(self) -> bytes:
        try:
            with self.path.open("rb") as file:
                return file.read(MAX_BUNDLE + 1)
        except OSError as error:
            raise UnavailableError(f"the bundle file `{self.path.name}` cannot be read") from error


class DocumentSource(ABC):
    """A bundle that is published as a document."""

    @abstractmethod
    async def document(self, domain: str) -> bytes:
        """Return the bundle as a JWK Set, or raise UnavailableError."""

    async def fetch(self, domain: str) -> SpiffeBundle:
        """Return the bundle as it is now, or raise UnavailableError."""
        return parse(domain, await self.document(domain))


@dataclass
class ReachedSource(DocumentSource):
    """A bundle that another process fetches."""

    ask: Callable[[str], Awaitable[bytes]]
    every: timedelta

    async def document(self, domain: str) -> bytes:
        return await self.ask(domain)


@dataclass
class WebSource(DocumentSource):
    """A bundle endpoint that the web's authorities vouch for, or those of a file (§5.2.1). Its URL is configuration."""

    url: str
    ca_file: Path | None
    every = timedelta(minutes=5)

    async def document(self, domain: str) -> bytes:
        try:
            trusted = ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise UnavailableError("the authorities of `ca_file` cannot be read") from error
        return await _got(BoundedTransport(trusted, MAX_BUNDLE), self.url, domain)


async def _got(over: BoundedTransport, url: str, domain: str) -> bytes:
    what = f"the bundle endpoint of `{domain}`"
    return await get(over, url, what, patience=TIMEOUT, step=TIMEOUT * STEP)


@dataclass
class SpiffeSource(DocumentSource):
    """A bundle endpoint that shows an SVID of the trust domain, under the last bundle that came from it (§5.2.2).

    The first one is in a file, and counts until another has come: keys that were withdrawn since then are not believed.
    """

    url: str
    endpoint: str  # its SPIFFE ID
    first: FileSource
    every = timedelta(minutes=5)
    _last: SpiffeBundle | None = None

    async def document(self, domain: str) -> bytes:
        last = self._last or await self.first.fetch(domain)
        raw = await _got(BoundedTransport(_trusting(last), MAX_BUNDLE, self._is_meant), self.url, domain)
        found = parse(domain, raw)
        check_newer(found, last)
        if not found.authorities:
            raise UnavailableError(f"the bundle of `{domain}` has no authority: its next edition could not be believed")
        self._last = found
        return raw

    def _is_meant(self, certificate: bytes) -> bool:
        with suppress(UnauthenticatedError):
            return str(identity_of(loaded(certificate))) == self.endpoint
        return False


def _trusting(bundle: SpiffeBundle) -> ssl.SSLContext:
    """Return TLS in which the authorities of a bundle vouch for the other side, whatever its host is called."""
    trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusted.check_hostname = False  # a SPIFFE ID is no host name; it is compared with the one that is meant
    trusted.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # an authority need not be a root (X509-SVID §5)
    if bundle.authorities:  # else nobody is believed
        trusted.load_verify_locations(cadata=b"".join(bundle.authorities))
    return trusted


@dataclass
class ApiSource(DocumentSource):
    """A Workload API: the bundles that the local SPIFFE agent gives to this process."""

    socket: str  # ``unix:///path`` or ``tcp://ip:port``
    every = timedelta(seconds=30)

    async def document(self, domain: str) -> bytes:
        if find_spec("spiffe") is None:
            raise UnavailableError("the Workload API client is not installed", help="pip install '.[spiffe]'")
        return await asyncio.to_thread(self._fetch, domain)

    def _fetch(self, domain: str) -> bytes:
        from spiffe import TrustDomain, WorkloadApiClient
        from spiffe.errors import PySpiffeError

        try:
            name = TrustDomain(domain)
            with WorkloadApiClient(self.socket, default_timeout=TIMEOUT) as client:
                x509 = client.fetch_x509_bundles().get_bundle_for_trust_domain(name)
                jwt = client.fetch_jwt_bundles().get_bundle_for_trust_domain(name)
        except PySpiffeError as error:
            raise UnavailableError("the Workload API does not give its bundles") from error
        if x509 is None and jwt is None:
            raise UnavailableError(f"the Workload API has no bundle of `{domain}`")
        ders = sorted(found.public_bytes(Encoding.DER) for found in x509.x509_authorities) if x509 else []
        certified = [{"use": "x509-svid", "x5c": [base64.b64encode(der).decode()]} for der in ders]
        signing = [_jwk(kid, key) for kid, key in jwt.jwt_authorities.items()] if jwt else []
        return json.dumps({"keys": [*certified, *signing]}).encode()


def _jwk(kid: str, key: PublicKeyTypes) -> Jwk:
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    kind = ECKey if isinstance(key, EllipticCurvePublicKey) else RSAKey
    return {**kind.import_key(pem).as_dict(private=False), "kid": kid, "use": "jwt-svid"}
