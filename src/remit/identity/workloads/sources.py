"""Where trust bundles come from: a file, a bundle endpoint (``https_web``), a Workload API."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, replace
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.jwk import ECKey, RSAKey

from remit.errors import UnavailableError
from remit.identity.fetch import BoundedTransport, get
from remit.identity.workloads.bundles import MAX_BUNDLE, Jwk, SpiffeBundle, parse, usable
from remit.jose.keys import key_set

TIMEOUT = 5.0  # seconds, for a whole answer
STEP = 0.5  # of it, for each step: a step that times out by itself leaves nothing open


@dataclass
class FileSource:
    """A bundle in a file that others may replace at any time."""

    path: Path
    every = timedelta(seconds=1)
    _last: tuple[bytes, SpiffeBundle] | None = None

    async def fetch(self, domain: str) -> SpiffeBundle:
        """Return what the file holds now; a hint in it is for others, as looking costs nothing here."""
        raw = await asyncio.to_thread(self._read)
        if self._last is None or self._last[0] != raw:
            self._last = raw, replace(parse(domain, raw), hint=None)
        return self._last[1]

    def _read(self) -> bytes:
        try:
            with self.path.open("rb") as file:
                return file.read(MAX_BUNDLE + 1)
        except OSError as error:
            raise UnavailableError(f"the bundle file `{self.path.name}` cannot be read") from error


@dataclass
class WebSource:
    """A bundle endpoint that the web's authorities vouch for, or those of a file (§5.2.1). Its URL is configuration."""

    url: str
    ca_file: Path | None
    every = timedelta(minutes=5)

    async def fetch(self, domain: str) -> SpiffeBundle:
        """Return what the endpoint says now. It is not followed elsewhere."""
        try:
            trusted = ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise UnavailableError("the authorities of `ca_file` cannot be read") from error
        over, what = BoundedTransport(trusted, MAX_BUNDLE), f"the bundle endpoint of `{domain}`"
        return parse(domain, await get(over, self.url, what, patience=TIMEOUT, step=TIMEOUT * STEP))


@dataclass
class ApiSource:
    """A Workload API: the bundles that the local SPIFFE agent gives to this process."""

    socket: str  # ``unix:///path`` or ``tcp://ip:port``
    every = timedelta(seconds=30)

    async def fetch(self, domain: str) -> SpiffeBundle:
        """Return what the agent has for the trust domain now."""
        if find_spec("spiffe") is None:
            raise UnavailableError("the Workload API client is not installed", help="pip install '.[spiffe]'")
        return await asyncio.to_thread(self._fetch, domain)

    def _fetch(self, domain: str) -> SpiffeBundle:
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
        jwks = [_jwk(kid, key) for kid, key in jwt.jwt_authorities.items()] if jwt else []
        return SpiffeBundle(
            domain,
            tuple(sorted(found.public_bytes(Encoding.DER) for found in x509.x509_authorities)) if x509 else (),
            key_set(jwks, "jwt-svid"),
            jwks=usable(jwks),
        )


def _jwk(kid: str, key: PublicKeyTypes) -> Jwk:
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    kind = ECKey if isinstance(key, EllipticCurvePublicKey) else RSAKey
    return {**kind.import_key(pem).as_dict(private=False), "kid": kid, "use": "jwt-svid"}
