"""Public keys, each bound to the algorithms that it may verify: one type, one verification (joserfc), two readers.

``public_key`` reads the key that somebody proves (DPoP, ``cnf``): nothing private, nothing unknown. ``key_set`` reads
what issuers publish (RFC 7517 §5): what cannot verify signatures here is passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from remit.errors import InvalidRequestError, RemitError, TokenError
from remit.jose.compact import Compact, decode
from remit.jose.strict import read_json

MAX_KEYS = 100  # of a set
MAX_SET = 262_144  # bytes
RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
EDDSA = frozenset({"Ed25519", "EdDSA"})  # RFC 9864 deprecates the second name
ECDSA = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
ALGORITHMS = RSA | EDDSA | frozenset(ECDSA.values())
POSSESSION = {"EC": "P-256", "OKP": "Ed25519"}  # keys that agents and workloads prove
CHALLENGE = " ".join(sorted({"ES256", *EDDSA}))  # `algs` of a challenge, RFC 9449 §7.1

_ABOUT = frozenset({"kty", "crv", "kid", "use", "alg", "key_ops"})
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"})
_OCTETS = {"P-256": 32, "P-384": 48, "P-521": 66}  # of a coordinate
_MIN_RSA, _MAX_RSA = 2_048, 8_192  # bits; RFC 7518 §3.3
_EXPONENT = 65_537
_PRIMES = (3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)
# What a modulus leaves by these primes if a broken chip made it, whose private key can be computed (CVE-2017-15361).
_ROCA = {prime: {pow(_EXPONENT, power, prime) for power in range(prime)} for prime in _PRIMES}


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that can verify by ``algorithms`` alone. ``thumbprint`` is RFC 7638 with SHA-256."""

    thumbprint: str
    algorithms: frozenset[str]
    key: ECKey | OKPKey | RSAKey = field(repr=False, compare=False)
    kid: str | None = None

    def verify(self, compact: Compact, error: type[RemitError] = TokenError) -> None:
        """Check the signature, by an algorithm of this key; raise ``error`` if it does not hold."""
        algorithm = compact.header.get("alg")
        if algorithm not in self.algorithms:
            raise error("its algorithm is not one of this key")
        if not JWSRegistry.algorithms[str(algorithm)].verify(compact.signed, compact.signature, self.key):
            raise error("its signature does not hold")


@dataclass(frozen=True, slots=True)
class PublishedKey:
    """What is told of a key of ours."""

    kid: str
    alg: str
    signing: bool = True
    until: datetime | None = None  # when it stops being published; None: not decided, or for good


@dataclass(frozen=True, slots=True)
class KeySet:
    """A key set (RFC 7517 §5) without the keys that cannot verify signatures here."""

    keys: tuple[PublicKey, ...]

    def find(self, token: Compact, error: type[RemitError] = TokenError) -> PublicKey | None:
        """Return the one key a token may be signed by; None: no such key; ``error`` if it could be several."""
        alg, kid = token.header.get("alg"), token.header.get("kid")
        found = [key for key in self.keys if alg in key.algorithms and kid in (None, key.kid)]
        if len(found) > 1:
            raise error("several keys of its issuer could have signed it")
        return found[0] if found else None

    def verify(self, token: Compact, error: type[RemitError] = TokenError) -> None:
        """Check the signature by the one key of this set that a token may be signed by, or raise ``error``."""
        key = self.find(token, error)
        if key is None:
            raise error("it is not signed by a key of its issuer")
        key.verify(token, error)


def public_key(jwk: object, error: type[RemitError] = TokenError) -> PublicKey:
    """Return the key of a public JWK: P-256 or Ed25519, nothing private, nothing unknown; or raise ``error``."""
    kty = jwk.get("kty") if isinstance(jwk, Mapping) else None
    if not isinstance(jwk, Mapping) or not isinstance(kty, str) or jwk.get("crv", "") != POSSESSION.get(kty):
        raise error("the key must be a public JWK on P-256 or Ed25519")
    if not jwk.keys() <= _ABOUT | ({"x", "y"} if kty == "EC" else {"x"}):
        raise error("the key must be a public JWK without private or unknown members")
    try:
        key = _loaded(kty, jwk["crv"], jwk.get("x"), jwk.get("y"))
    except (ValueError, TypeError, JoseError):
        raise error("the key is not a point on its curve in canonical form") from None
    named = jwk.get("alg") in [None, *key.algorithms]
    if not named or jwk.get("key_ops", ["verify"]) != ["verify"] or jwk.get("use", "sig") != "sig":
        raise error("the key is not meant for signatures")
    return key


def read_key_set(raw: bytes) -> KeySet:
    """Return the keys of a JWK Set document that are for signatures, or raise InvalidRequestError."""
    document = read_json(raw, limit=MAX_SET)
    keys = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(keys, list) or len(keys) > MAX_KEYS:
        raise InvalidRequestError(f"a key set has a list of at most {MAX_KEYS} keys")
    return key_set(keys)


def key_set(jwks: Iterable[object], use: str | None = None) -> KeySet:
    """Return the keys among decoded JWKs of this ``use`` (None: ``sig`` or none) that are understood and can verify."""
    uses = [use] if use is not None else [None, "sig"]
    meant = (jwk for jwk in jwks if isinstance(jwk, Mapping) and jwk.get("use") in uses)
    return KeySet(tuple(key for key in map(_published, meant) if key is not None))


def by_kid(jwks: Iterable[object]) -> dict[str, PublicKey]:
    """Return the keys among decoded JWKs that are named, by their names."""
    return {key.kid: key for key in key_set(jwks).keys if key.kid is not None}


def _published(jwk: Mapping[str, object]) -> PublicKey | None:
    kid, alg, operations = jwk.get("kid"), jwk.get("alg"), jwk.get("key_ops", ["verify"])
    if jwk.keys() & _PRIVATE or not isinstance(kid, str | None):
        return None
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    try:
        values = (jwk.get("n"), jwk.get("e")) if jwk.get("kty") == "RSA" else (jwk.get("x"), jwk.get("y"))
        key = _loaded(jwk.get("kty"), jwk.get("crv"), *values)
    except (ValueError, TypeError, JoseError):
        return None
    algorithms = key.algorithms if alg is None else key.algorithms & {str(alg)}
    return replace(key, kid=kid, algorithms=algorithms) if algorithms else None


@lru_cache(maxsize=4_096)
def _loaded(kty: object, crv: object, first: object, second: object) -> PublicKey:
    """Return the key of ``x`` and ``y``, or ``n`` and ``e``; raise ValueError, TypeError or JoseError."""
    key: ECKey | OKPKey | RSAKey
    match kty, crv:
        case "RSA", None:
            _check_rsa(_number(first), _number(second))
            key, algorithms = RSAKey.import_key({"kty": "RSA", "n": str(first), "e": str(second)}), RSA
        case "EC", str() if crv in ECDSA:
            x, y = _number(first, _OCTETS[crv]), _number(second, _OCTETS[crv])
            key, algorithms = ECKey.import_key({"kty": "EC", "crv": crv, "x": x, "y": y}), frozenset({ECDSA[crv]})
        case "OKP", "Ed25519":
            key, algorithms = OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": _number(first, 32)}), EDDSA
        case _:
            raise ValueError("not a kind of key that is known here")
    key.get_op_key("verify")  # loads, and refuses a point off the curve
    return PublicKey(key.thumbprint(), algorithms, key)


def _number(value: object, octets: int | None = None) -> str:
    if not isinstance(value, str) or len(decode(value)) != (octets or len(decode(value))):
        raise ValueError("not a number of the right length")
    return value


def _check_rsa(modulus: str, exponent: str) -> None:
    raw, n, e = decode(modulus), int.from_bytes(decode(modulus)), int.from_bytes(decode(exponent))
    if raw[0] == 0 or decode(exponent)[0] == 0 or e != _EXPONENT or not _MIN_RSA <= n.bit_length() <= _MAX_RSA:
        raise ValueError("not an RSA key that is strong enough")
    if all(n % prime in left for prime, left in _ROCA.items()):
        raise ValueError("an RSA key of a kind whose private half is no secret")
