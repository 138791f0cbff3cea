"""Refresh tokens: each works once, by the key its grant is bound to, and once more by it if the answer was lost.

Any later use by the same client with that key ends the grant and all below it, as one of the two is a thief's; a copy
shown without the key is refused and changes nothing (RFC 9700 §4.14.2).
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from weakref import WeakValueDictionary

import msgspec

from remit.broker.revocation import LeaseRevoker
from remit.broker.tasks import TaskCache
from remit.core.principal import check_given
from remit.core.refresh import RefreshFamily
from remit.errors import (
    GrantTokenError,
    IntegrityError,
    NotFoundError,
    RemitError,
    UsedError,
    WrongKeyError,
)
from remit.ports import NewId, PutRecord, Record
from remit.ports.broker import Presented, Rotated

KIND = "refresh"
KEPT = timedelta(days=1)  # after the grant is over


class RefreshTokenVerbs:
    """The part of the broker that hands out refresh tokens."""

    _tasks: TaskCache
    _revoker: LeaseRevoker
    _new_id: NewId
    _families: dict[str, tuple[RefreshFamily, datetime]]  # by the digest of every token that is known; kept until when
    _turning: WeakValueDictionary[str, asyncio.Lock]  # by the family that is being turned

    async def _load_families(self) -> None:
        self._turning = WeakValueDictionary()
        for record in await self._tasks.store.records(KIND):
            try:
                family = msgspec.json.decode(record.body, type=RefreshFamily)
            except msgspec.MsgspecError as error:
                raise IntegrityError("a family of refresh tokens that was kept cannot be read") from error
            self._families |= dict.fromkeys(family.known, (family, record.until))

    async def refresh_token(self, digest: str) -> RefreshFamily | None:
        return self._families[digest][0] if digest in self._families else None

    async def issue_refresh_token(
        self, grant_id: str, client: str, digest: str, audience: str | None = None, *, keyed: bool = False
    ) -> None:
        grant, now = self._tasks.live(grant_id).grant, self._tasks.now()
        for token in [token for token, (_, until) in self._families.items() if until < now]:
            del self._families[token]
        family = RefreshFamily(self._new_id("rfc"), grant_id, client, audience, digest, keyed=keyed)
        await self._put_family(family, grant.expires_at + KEPT)

    async def rotate_refresh_token(self, presented: Presented, fresh: str) -> Rotated:
        """GrantTokenError for one that is unknown, or another client's.

        UnauthenticatedError where the client that it was given to had to prove its name, and has not, WrongKeyError for
        another key: neither ends the grant, or spends anything.
        UsedError for one that was spent: then the grant has ended, as nobody can say which of two has stolen it.
        """
        if presented.digest not in self._families:
            raise GrantTokenError("the refresh token is not known, or was forgotten")
        name = self._families[presented.digest][0].id
        async with self._turning.setdefault(name, asyncio.Lock()):  # what is answered next is durable
            return await self._rotated(presented, fresh)

    async def _rotated(self, presented: Presented, fresh: str) -> Rotated:
        if presented.digest not in self._families:  # forgotten meanwhile
            raise GrantTokenError("the refresh token is not known, or was forgotten")
        family, _ = self._families[presented.digest]
        bound, now = presented.jkt is not None or presented.x5t is not None, self._tasks.now().timestamp()
        try:
            self._tasks.serving()
            self._check_presented(family, presented)
            rotated = family.turn(presented.digest, fresh, now, bound=bound)
            if rotated is None:
                task = self._tasks.task_of(family.grant)
                await self._revoker.end(task, family.grant, "grant.revoke", cause="a refresh token was used twice")
                raise UsedError("the refresh token was used before, so its grant has ended")
        except RemitError as error:
            known = {"key": presented.jkt or presented.x5t, "client": presented.client or None}
            await self._tasks.denied("token.refresh", family.grant, error, **known)
            raise
        until = self._tasks.live(family.grant).expires_at + KEPT  # later than before, if its task was renewed
        await self._put_family(rotated, until, family)
        self._tasks.check(family.grant)  # it may have ended while this was committed
        return Rotated(self._tasks.view(family.grant), rotated)

    def _check_presented(self, family: RefreshFamily, presented: Presented) -> None:
        proven = presented.attested or presented.keyed
        check_given(family.client, presented.client, keyed=family.keyed, proven=proven)
        try:
            grant = self._tasks.check(family.grant).grant
        except NotFoundError:
            raise GrantTokenError("the grant of the refresh token is over") from None
        # nobody but who attested the workload says that it is that one
        check_given(family.client, presented.client, keyed=grant.attested, proven=presented.attested)
        if (presented.jkt, presented.x5t) != (grant.binding.jkt, grant.binding.x5t) or not grant.binding.by_token:
            raise WrongKeyError("the proof is by another key than the refresh token is bound to")

    async def _put_family(self, family: RefreshFamily, until: datetime, before: RefreshFamily | None = None) -> None:
        """Make a family count at once, so that of two at the same time one is the second; then make it durable."""
        self._families |= dict.fromkeys(family.known, (family, until))
        name = "token.refresh" if before else "token.begin"
        event = self._tasks.event(name, "allow", family.grant, client=family.client or None)
        record = Record(KIND, family.id, family.rev, msgspec.json.encode(family), until)
        try:
            await self._tasks.store.commit((PutRecord(record),), (event,))
        except BaseException:
            for token in family.known:
                self._families.pop(token, None)
            if before is not None:
                self._families |= dict.fromkeys(before.known, (before, until))
            raise
        for token in () if before is None else set(before.known) - set(family.known):
            self._families.pop(token, None)
