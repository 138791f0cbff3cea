"""Workload identity tokens with a proof of their key (draft-ietf-wimse-workload-creds, WIT-SVID)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from remit import jose
from remit.core import spiffe
from remit.core.principal import Workload
from remit.core.spiffe import SpiffeId
from remit.errors import InvalidRequestError, LimitError, ReplayError, UnauthenticatedError
from remit.identity import wpt
from remit.identity.bundles import Bundles
from remit.identity.svid import by_bundle, ends
from remit.jose import jwt
from remit.jose.jwt import Jwt, JwtProfile
from remit.jose.proof import SKEW
from remit.ports import Clock

MAX_LIFE = timedelta(hours=24)  # that the end may be away: it is worth nothing without its key
MAX_SEEN = 100_000  # proofs remembered, each until it ends

_RULES = JwtProfile(types=frozenset({"wit+jwt"}), error=UnauthenticatedError)
_SPIFFE = "spiffe://"


class Wits:
    """Verifies WITs, each with the proof that comes with it."""

    def __init__(self, bundles: Bundles, allow: Iterable[str], clock: Clock, most: int = MAX_SEEN) -> None:
        """Believe the trust domains of ``bundles`` in names that match a pattern of ``allow``."""
        self._bundles, self._allow, self._clock, self._most = bundles, tuple(allow), clock, most
        self._seen: dict[tuple[str, str], int] = {}  # key and jti -> when the proof could not pass any more

    async def proven(self, wit: str, proof: str, target: str, token: str | None) -> Workload:
        """Return the workload of a WIT whose key made ``proof`` for ``target``, once, and over ``token`` if any.

        UnauthenticatedError (ReplayError for a proof seen before), AudienceError or UnavailableError.
        """
        found, name, expires = await self._read(wit)
        now = int(self._clock().timestamp())
        proven = wpt.read(proof, _key(found), wpt.Expected(target, now, wit, token))
        over = proven.exp + SKEW  # when it could not pass again anyway
        self._once((proven.jkt, proven.jti), over, now)
        once = jose.digest(f"{proven.jkt} {proven.jti}")
        return Workload(name, "wit", expires, jkt=proven.jkt, digest=once, until=datetime.fromtimestamp(over, UTC))

    async def named(self, wit: str) -> Workload:
        """Return the workload of a WIT for whoever has its key (``jkt``): the caller has to see that proven.

        UnauthenticatedError or UnavailableError.
        """
        found, name, expires = await self._read(wit)
        return Workload(name, "wit", expires, jkt=jose.public_key(_key(found), UnauthenticatedError).thumbprint)

    async def _read(self, wit: str) -> tuple[Jwt, str, datetime]:
        """Return a WIT that its trust domain has signed, whom it names, and until when."""
        found = jwt.read(wit, _RULES)
        name = jwt.text(found.claims, "sub", UnauthenticatedError)
        await by_bundle(self._bundles, _identity(name).domain, found, lambda bundle: bundle.wit)
        expires = ends(found, self._clock(), MAX_LIFE)
        _check_alone(found)
        if not spiffe.matches(name, self._allow):
            raise UnauthenticatedError("the workload's name matches no pattern that is allowed here")
        return found, name, expires

    def _once(self, key: tuple[str, str], over: int, now: int) -> None:
        if self._seen.get(key, 0) > now:
            raise ReplayError(help="make a new proof for every request")
        if len(self._seen) >= self._most:
            self._seen = {seen: end for seen, end in self._seen.items() if end > now}
        if len(self._seen) >= self._most:
            raise LimitError("too many requests with proofs", retry_after=wpt.MAX_LIFE)
        self._seen[key] = over


def _identity(name: str) -> SpiffeId:
    """Return the parts of a workload's name; ``wimse`` names have the form of SPIFFE IDs."""
    try:
        return spiffe.parse(_SPIFFE + name.removeprefix(spiffe.WIMSE) if name.startswith(spiffe.WIMSE) else name)
    except InvalidRequestError as error:
        raise UnauthenticatedError("its `sub` is not a workload's identifier") from error


def _check_alone(wit: Jwt) -> None:
    """Refuse an audience (WIT-SVID §3), and a second name: a WIT stands for one workload."""
    if "aud" in wit.claims:
        raise UnauthenticatedError("a workload identity token has no audience")
    others = (value for name, value in wit.claims.items() if name not in {"sub", "iss"})
    if any(isinstance(value, str) and value.startswith(spiffe.SCHEMES) for value in others):
        raise UnauthenticatedError("a workload identity token has one identifier alone")


def _key(wit: Jwt) -> Mapping[str, object]:
    cnf = wit.claims.get("cnf")
    jwk = cnf.get("jwk") if isinstance(cnf, Mapping) and cnf.keys() == {"jwk"} else None
    if not isinstance(jwk, Mapping) or not isinstance(jwk.get("alg"), str):
        raise UnauthenticatedError("its `cnf` must hold one public key with its algorithm")
    return jwk
