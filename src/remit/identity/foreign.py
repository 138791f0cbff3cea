"""JWTs that others sign, and the key sets they are verified with. Pure.

The same strict reading as of our own tokens (`core.jose`), with what issuers out there need beside it: RSA keys, larger
curves, key sets. Whoever calls says which types, algorithms and audiences count; the token never does. What of its
header points at keys (``jku``, ``jwk``, ``x5c``, ``x5u``) or is private is never looked at (RFC 7515 §4); what changes
how it is to be read (``crit``, ``b64``, ``zip``) refuses it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from remit import jose
from remit.errors import AudienceError, InvalidRequestError, RemitError, TokenError
from remit.jose import Compact
from remit.jose.strict import read_json

SKEW = timedelta(seconds=60)  # that the clock of whoever signs for others may be off by, and no more
MAX_KEYS = 100  # of a set
MAX_SET = 262_144  # bytes
MAX_TEXT = 2_048  # characters of a claim that names something

RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
EDWARDS = frozenset({"EdDSA", "Ed25519"})
ALGORITHMS = RSA | EDWARDS | {"ES256", "ES384", "ES512"}
MEMBERS = frozenset({"alg", "kid", "typ"})

_HASHES: Mapping[str, hashes.HashAlgorithm] = {
    "256": hashes.SHA256(),
    "384": hashes.SHA384(),
    "512": hashes.SHA512(),
}
_CURVES: Mapping[str, tuple[str, ec.EllipticCurve, int]] = {  # curve -> its algorithm, and octets of a coordinate
    "P-256": ("ES256", ec.SECP256R1(), 32),
    "P-384": ("ES384", ec.SECP384R1(), 48),
    "P-521": ("ES512", ec.SECP521R1(), 66),
}
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"})
_MIN_RSA, _MAX_RSA = 2_048, 8_192  # bits; RFC 7518 §3.3
_EXPONENT = 65_537
_PRIMES = (3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)
# What a modulus leaves by these primes if a broken chip made it, whose private key can be computed (CVE-2017-15361).
_ROCA = {prime: {pow(_EXPONENT, power, prime) for power in range(prime)} for prime in _PRIMES}
_LAST = 253_402_300_799  # the last second of the year 9999

Public = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class Rules:
    """What a caller takes. ``types`` are values of ``typ`` in lower case, without ``application/``; "" if absent."""

    types: frozenset[str]
    algorithms: frozenset[str] = ALGORITHMS
    error: type[RemitError] = TokenError


@dataclass(frozen=True, slots=True)
class Foreign:
    """A JWT of somebody else, well formed, and not verified before `Keys.verify` has returned it."""

    compact: Compact
    claims: Mapping[str, object]
    alg: str
    kid: str | None

    @property
    def digest(self) -> str:
        """What names this token once and for all: SHA-256 of what is signed, base64url.

        Not of the whole text: whoever holds an ECDSA signature can write another one that is as good.
        """
        return jose.digest(self.compact.signed.decode("ascii"))


@dataclass(frozen=True, slots=True)
class Key:
    """A public key of a set, and the algorithms that it may verify."""

    kid: str | None
    algorithms: frozenset[str]
    public: Public = field(repr=False)


@dataclass(frozen=True, slots=True)
class Keys:
    """A key set (RFC 7517 §5) without the keys that cannot verify signatures here."""

    keys: tuple[Key, ...]

    def find(self, token: Foreign, error: type[RemitError] = TokenError) -> Key | None:
        """Return the one key a token may be signed by; None: no such key; ``error`` if it could be several."""
        found = [
            key for key in self.keys if token.alg in key.algorithms and (token.kid is None or key.kid == token.kid)
        ]
        if len(found) > 1:
            raise error("several keys of its issuer could have signed it")
        return found[0] if found else None

    def verify(self, token: Foreign, error: type[RemitError] = TokenError) -> Foreign:
        """Return a token whose signature holds by a key of this set, or raise ``error``."""
        key = self.find(token, error)
        if key is None:
            raise error("it is not signed by a key of its issuer")
        if not _holds(token, key):
            raise error("its signature does not hold")
        return token


def read(text: str, rules: Rules) -> Foreign:
    """Return a JWT that is well formed by ``rules``, not verified; or raise their error."""
    compact = jose.read(text, MEMBERS, rules.error, others=True)
    claims = jose.document(compact.payload, rules.error)
    alg, kid, typ = (compact.header.get(name) for name in ("alg", "kid", "typ"))
    if not isinstance(alg, str) or alg not in rules.algorithms:
        raise rules.error("its algorithm is not one that is accepted here")
    if str(typ or "").lower().removeprefix("application/") not in rules.types:
        raise rules.error("its type is not one that is accepted here")
    return Foreign(compact, claims, alg, kid if isinstance(kid, str) else None)


# -- keys -------------------------------------------------------------------------------------------------------------


def read_keys(raw: bytes, use: str | None = None) -> Keys:
    """Return the keys of a JWK Set document, or raise InvalidRequestError.

    Keys that are not understood are passed over (RFC 7517 §5), and so are those whose ``use`` is another than ``use``.
    Without ``use``, it is ``sig`` or left out.
    """
    document = read_json(raw, limit=MAX_SET)
    keys = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(keys, list) or len(keys) > MAX_KEYS:
        raise InvalidRequestError(f"a key set has a list of at most {MAX_KEYS} keys")
    return keys_of(keys, use)


def keys_of(jwks: Iterable[object], use: str | None = None) -> Keys:
    """Return the keys among decoded JWKs that can verify signatures; see `read_keys`."""
    uses = {use} if use is not None else {None, "sig"}
    meant = (jwk for jwk in jwks if isinstance(jwk, Mapping) and _named(jwk.get("use")) in uses)
    return Keys(tuple(key for key in map(_key, meant) if key is not None))


def _named(value: object) -> str | None:
    return value if isinstance(value, str) else None if value is None else ""


def _key(jwk: Mapping[str, object]) -> Key | None:
    """Return a key, or None for one that is malformed, weak, private or of an unknown kind."""
    kid, alg, operations = jwk.get("kid"), jwk.get("alg"), jwk.get("key_ops", ["verify"])
    if jwk.keys() & _PRIVATE or not isinstance(kid, str | None):
        return None
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    try:
        public, algorithms = _public(jwk)
    except ValueError:
        return None
    if alg is not None:
        algorithms = algorithms & {str(alg)}
    return Key(kid, algorithms, public) if algorithms else None


def _public(jwk: Mapping[str, object]) -> tuple[Public, frozenset[str]]:
    """Return what a JWK holds, or raise ValueError."""
    match jwk.get("kty"), jwk.get("crv"):
        case "RSA", None:
            return _rsa(jwk), RSA
        case "EC", str(crv) if crv in _CURVES:
            alg, curve, octets = _CURVES[crv]
            x, y = (int.from_bytes(_octets(jwk.get(name), octets)) for name in ("x", "y"))
            return ec.EllipticCurvePublicNumbers(x, y, curve).public_key(), frozenset({alg})
        case "OKP", "Ed25519":
            return ed25519.Ed25519PublicKey.from_public_bytes(_octets(jwk.get("x"), 32)), EDWARDS
    raise ValueError("not a kind of key that is known here")


def _rsa(jwk: Mapping[str, object]) -> rsa.RSAPublicKey:
    modulus, exponent = (_octets(jwk.get(name)) for name in ("n", "e"))
    n, e = int.from_bytes(modulus), int.from_bytes(exponent)
    if modulus[0] == 0 or exponent[0] == 0 or e != _EXPONENT or not _MIN_RSA <= n.bit_length() <= _MAX_RSA:
        raise ValueError("not an RSA key that is strong enough")
    if all(n % prime in left for prime, left in _ROCA.items()):
        raise ValueError("an RSA key of a kind whose private half is no secret")
    return rsa.RSAPublicNumbers(e, n).public_key()


def _octets(value: object, length: int | None = None) -> bytes:
    data = jose.decode(value) if isinstance(value, str) else b""
    if not data or length not in {None, len(data)}:
        raise ValueError("not a number of the right length")
    return data


def _holds(token: Foreign, key: Key) -> bool:
    signature, signed = token.compact.signature, token.compact.signed
    try:
        match key.public:
            case rsa.RSAPublicKey():
                algorithm = _HASHES[token.alg[2:]]
                padded = padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)
                used = padded if token.alg.startswith("PS") else padding.PKCS1v15()
                key.public.verify(signature, signed, used, algorithm)
            case ec.EllipticCurvePublicKey():
                key.public.verify(_der(signature, key.public), signed, ec.ECDSA(_HASHES[token.alg[2:]]))
            case ed25519.Ed25519PublicKey():
                key.public.verify(signature, signed)
    except (InvalidSignature, ValueError):
        return False
    return True


def _der(signature: bytes, key: ec.EllipticCurvePublicKey) -> bytes:
    """Return the two numbers of an ECDSA signature as the library wants them, or raise ValueError (RFC 7518 §3.4)."""
    octets = (key.curve.key_size + 7) // 8
    if len(signature) != 2 * octets:
        raise ValueError("not a signature of this curve's length")
    return encode_dss_signature(int.from_bytes(signature[:octets]), int.from_bytes(signature[octets:]))


# -- claims -----------------------------------------------------------------------------------------------------------


def text(claims: Mapping[str, object], name: str, error: type[RemitError] = TokenError) -> str:
    """Return a claim that names something: printable, bounded text that is not empty."""
    value = claims.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT or not value.isprintable():
        raise error(f"its `{name}` is missing, or not a name")
    return value


def text_or_none(claims: Mapping[str, object], name: str, error: type[RemitError] = TokenError) -> str | None:
    """Return a claim that names something, or None where it is absent."""
    return text(claims, name, error) if name in claims else None


def texts(claims: Mapping[str, object], name: str, error: type[RemitError] = TokenError) -> tuple[str, ...]:
    """Return a claim that is a list of names, or empty where it is absent; one name alone is a list of one."""
    value = claims.get(name, [])
    listed = value if isinstance(value, list) else [value]
    return tuple(text({name: item}, name, error) for item in listed)


def moment(claims: Mapping[str, object], name: str, error: type[RemitError] = TokenError) -> datetime:
    """Return a NumericDate (RFC 7519 §2; fractions are allowed), or raise ``error``."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LAST:
        raise error(f"its `{name}` is missing, or not a time")
    return datetime.fromtimestamp(math.floor(value), UTC)


def audience(claims: Mapping[str, object], expected: Iterable[str]) -> str:
    """Return the one audience of a token, if it is one of ``expected``; else raise AudienceError.

    A token with several audiences can be shown to us by any of them, so it is taken from nobody.
    """
    value = claims.get("aud")
    only = value[0] if isinstance(value, list) and len(value) == 1 else value
    if not isinstance(only, str) or only not in set(expected):
        raise AudienceError
    return only


@dataclass(frozen=True, slots=True)
class Window:
    """When a token counts, by its issuer's clock."""

    issued_at: datetime
    expires_at: datetime


def window(
    claims: Mapping[str, object], now: datetime, max_age: timedelta, error: type[RemitError] = TokenError
) -> Window:
    """Return when a token counts, if that is now; ``iat`` and ``exp`` are required, ``nbf`` is not.

    A token does not count longer than ``max_age`` after it was issued, whatever its ``exp`` says. Clocks may differ by
    `SKEW`.
    """
    issued = moment(claims, "iat", error)
    expires = min(moment(claims, "exp", error), issued + max_age)
    if now >= expires + SKEW:
        raise error("it has expired")
    if now + SKEW < max(issued, moment(claims, "nbf", error) if "nbf" in claims else issued):
        raise error("it does not count yet", help="compare the clocks of the issuer and of this host")
    return Window(issued, expires)
