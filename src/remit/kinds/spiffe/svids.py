"""What a run may have: its SVIDs, leases of its grant that are kept until half their life is over; and bundles."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from remit.core.principal import Holder
from remit.core.scope import Detail, parse_detail
from remit.core.secret import Secret
from remit.core.spiffe import TrustBundle
from remit.core.task import Grant, LeaseState
from remit.errors import DeniedError, NotFoundError
from remit.ports import Clock
from remit.ports.broker import BrokerPort
from remit.ports.identity import PublishedAuthority
from remit.ports.trust import Trust

KIND = "spiffe"
LEAST = timedelta(seconds=1)  # between two SVIDs
AUDIENCES = 16  # sets of audiences whose tokens are kept at a time
Audiences = tuple[str, ...]

_ARMOUR = re.compile(r"-----BEGIN [A-Z ]+-----\n([A-Za-z0-9+/=\n]+)-----END [A-Z ]+-----")


class Pulse:
    """Wakes all streams that wait: the authority changed, or some grant ended."""

    def __init__(self) -> None:
        self.next = asyncio.Event()  # whoever takes it before looking at what there is misses nothing

    def beat(self) -> None:
        """Wake whoever waits."""
        self.next.set()
        self.next = asyncio.Event()


class Known:
    """The bundles that a run may have: the broker's own, and those of the trust domains that it knows, each apart."""

    def __init__(self, trust: Trust) -> None:
        self._trust, self.name = trust, f"spiffe://{trust.now.own.trust_domain}"

    @property
    def own(self) -> PublishedAuthority:
        """What is published of the broker's own trust domain."""
        return self._trust.now.own

    def authorities(self) -> dict[str, Sequence[bytes]]:
        """Return certificates of authorities by the SPIFFE ID of their trust domain, DER."""
        found = {name: each.authorities for name, each in self._others().items() if each.authorities}
        return {**found, self.name: self.own.certificates}

    def roots(self) -> dict[str, bytes]:
        """Return the same, one after the other."""
        return {name: b"".join(each) for name, each in self.authorities().items()}

    def jwks(self) -> dict[str, bytes]:
        """Return JWK Sets by the SPIFFE ID of their trust domain."""
        found = {name: each.jwks for name, each in self._others().items() if each.jwks}
        own = [{**jwk, "use": "jwt-svid"} for jwk in self.own.jwks]
        return {name: json.dumps({"keys": list(keys)}).encode() for name, keys in {**found, self.name: own}.items()}

    def _others(self) -> Mapping[str, TrustBundle]:
        return {f"spiffe://{name}": each for name, each in self._trust.now.others.items()}


@dataclass(frozen=True, slots=True)
class IssuedSvid:
    """An SVID as the broker issued it, and until when it is handed out again."""

    credential: Mapping[str, str | Secret]
    lease: str
    half: datetime  # when the next one is due
    sequence: int  # of the authority, when it was made

    def der(self, name: str) -> bytes:
        """Return what a field of the credential holds in PEM: DER, one after the other."""
        text = self.credential[name]
        bodies = _ARMOUR.findall(text.reveal() if isinstance(text, Secret) else text)
        return b"".join(base64.b64decode(body) for body in bodies)


class Svids:
    """Asks the broker for SVIDs in the name of one holder. Each that is still fresh serves all who ask."""

    def __init__(self, broker: BrokerPort, holder: Holder, known: Known, clock: Clock) -> None:
        self._broker, self._holder, self._known, self._clock = broker, holder, known, clock
        self._certified: dict[Audiences, IssuedSvid] = {}  # for none
        self._tokens: dict[Audiences, IssuedSvid] = {}
        self._asking = asyncio.Lock()

    async def entitled(self) -> Grant:
        """Return the grant if it is live and may have SVIDs at all, else raise a DeniedError that says why not."""
        grant = (await self._broker.grant(self._holder.grant)).grant
        if not _details(grant):
            raise DeniedError("the grant has no detail of type `spiffe`")
        return grant

    async def certified(self) -> IssuedSvid:
        """Return an X.509-SVID of which more than half its life is left."""
        async with self._asking:
            detail = (await self._details("x509"))[0]
            return await self._current(self._certified, (), detail, {"actions": ["x509"]})

    async def token(self, audiences: Sequence[str]) -> tuple[str, Secret]:
        """Return the SPIFFE ID and a JWT-SVID for these audiences; ScopeError when they exceed the grant's."""
        wanted = tuple(sorted(set(audiences)))
        async with self._asking:
            details = await self._details("jwt")
            wide = [detail for detail in details if set(wanted) <= set(detail.texts("audiences"))]
            detail = (wide or details)[0]  # one that is too narrow is refused, on record
            narrower = {"actions": ["jwt"], "audiences": list(wanted)}
            text = (await self._current(self._tokens, wanted, detail, narrower)).credential["jwt"]
            return (await self.entitled()).agent, text if isinstance(text, Secret) else Secret(text)

    async def _current(
        self, kept: dict[Audiences, IssuedSvid], key: Audiences, detail: Detail, narrower: Mapping[str, object]
    ) -> IssuedSvid:
        """Return the SVID that is ``kept`` under a key while it is fresh, else a new one."""
        issued = kept.get(key)
        if issued is None or not await self._fresh(issued):
            issued = await self._issue(detail, narrower)
            kept.pop(key, None)
            while len(kept) >= AUDIENCES:
                kept.pop(next(iter(kept)))
            kept[key] = issued
        return issued

    async def _details(self, action: str) -> list[Detail]:
        """Return the details with this action; a live grant may be allowed SVIDs of the other kind alone."""
        found = [detail for detail in _details(await self.entitled()) if action in detail.texts("actions")]
        if not found:
            raise DeniedError(f"the grant has no detail of type `spiffe` with the action `{action}`")
        return found

    async def _fresh(self, issued: IssuedSvid) -> bool:
        """Whether to hand out again: nobody has revoked the lease, though what was issued lives on."""
        if self._clock() >= issued.half or issued.sequence != self._known.own.sequence:
            return False
        try:
            return (await self._broker.lease(issued.lease)).state is LeaseState.ACTIVE
        except NotFoundError:
            return False

    async def _issue(self, detail: Detail, narrower: Mapping[str, object]) -> IssuedSvid:
        limits = {"type": KIND, "resource": detail.resource, "ttl": detail.number("ttl")}
        now, sequence = self._clock(), self._known.own.sequence
        issued = await self._broker.issue(self._holder, self._holder.grant, parse_detail({**limits, **narrower}))
        end = issued.lease.expires_at
        last = end >= (await self.entitled()).expires_at  # none is due after one that ends with its grant
        half = end if last else max(now + (end - now) / 2, now + LEAST)
        return IssuedSvid(issued.credential, issued.lease.id, half, sequence)


def _details(grant: Grant) -> list[Detail]:
    return [detail for detail in grant.scope if detail.type == KIND]
