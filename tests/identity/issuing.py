"""An issuer out there, as its verifier sees it: documents that can be fetched, keys that sign, a clock that is told."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from joserfc import jws
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from remit.errors import UnavailableError
from remit.identity.issuers import Issuer
from remit.jose import encode as b64

URL = "https://login.test/tenant"
START = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
ALL = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"]

Changes = Mapping[str, object]


def rsa(kid: str = "r-1") -> Key:
    """Return an RSA key, the same for the same name."""
    return _made(RSAKey, 2_048, kid)


def ec(kid: str = "e-1", curve: str = "P-256") -> Key:
    """Return a key on a curve, the same for the same name."""
    return _made(ECKey, curve, kid)


def okp(kid: str = "o-1") -> Key:
    """Return an Ed25519 key, the same for the same name."""
    return _made(OKPKey, "Ed25519", kid)


@cache
def _made(kind: type[RSAKey | ECKey | OKPKey], size: Any, kid: str) -> Key:
    return kind.generate_key(size, {"kid": kid})


def public(key: Key, **about: object) -> dict[str, object]:
    """Return a key as an issuer publishes it."""
    return {**key.as_dict(private=False), **about}


def signed(claims: object, key: Key | None = None, alg: str = "ES256", **header: object) -> str:
    """Return a compact JWS of claims; a header member that is None is left out."""
    key = ec() if key is None else key
    told = {"alg": alg, "kid": key.kid, "typ": "JWT", **header}
    raw = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    kept = {name: value for name, value in told.items() if value is not None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)  # of names that were replaced, and are still used out there
        return jws.serialize_compact(kept, raw, key, algorithms=ALL)


def unsigned(claims: Changes, header: Changes, signature: str = "") -> str:
    """Return three segments that no key has signed."""
    return f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}.{signature}"


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def on(self, **by: float) -> None:
        """Move on."""
        self.now += timedelta(**by)

    def at(self, **by: float) -> int:
        """Return the number of a moment from now, as tokens write it."""
        return int((self.now + timedelta(**by)).timestamp())


@dataclass
class Site:
    """What can be fetched of an issuer: ``Fetch``. ``asked`` is what was fetched; while ``down``, nothing is."""

    keys: list[Mapping[str, object]] = field(default_factory=lambda: [public(ec()), public(rsa())])
    said: dict[str, object] = field(default_factory=dict)
    url: str = URL
    down: bool = False
    asked: list[str] = field(default_factory=list)

    async def __call__(self, url: str) -> bytes:
        self.asked.append(url)
        await asyncio.sleep(0)  # as over a network, others go on meanwhile
        documents = {f"{self.url}/.well-known/openid-configuration": self.document(), f"{self.url}/keys": self.set()}
        if self.down or url not in documents:
            raise UnavailableError(f"`{url}` cannot be fetched")
        return documents[url]

    def document(self) -> bytes:
        """Return the discovery document; what is said as None is left out."""
        ends = {"authorization_endpoint": f"{self.url}/auth", "token_endpoint": f"{self.url}/token"}
        told = {"issuer": self.url, "jwks_uri": f"{self.url}/keys", **ends, **self.said}
        return json.dumps({name: value for name, value in told.items() if value is not None}).encode()

    def set(self) -> bytes:
        """Return the key set."""
        return json.dumps({"keys": self.keys}).encode()


def issuer(site: Site | None = None, clock: Clock | None = None, url: str = URL) -> Issuer:
    """Return an issuer as the configuration trusts it."""
    return Issuer(url, site or Site(url=url), clock or Clock())
