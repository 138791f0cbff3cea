"""Refresh tokens: each works once, by the key its grant is bound to; a second use ends the grant and all below it."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from remit.broker.revocation import LeaseRevoker
from remit.broker.tasks import TaskCache
from remit.core.refresh import RefreshFamily
from remit.errors import (
    GrantTokenError,
    IntegrityError,
    NotFoundError,
    RemitError,
    UnauthenticatedError,
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
    _families: dict[str, RefreshFamily]  # by the digest of every token that is known
    _kept_until: dict[str, datetime]  # by the id of the family

    async def _load_families(self) -> None:
        for record in await self._tasks.store.records(KIND):
            try:
                family = msgspec.json.decode(record.body, type=RefreshFamily)
            except msgspec.MsgspecError as error:
                raise IntegrityError("a family of refresh tokens that was kept cannot be read") from error
            self._keep_family(family, record.until)

    async def refresh_token(self, digest: str) -> RefreshFamily | None:
        return self._families.get(digest)

    async def issue_refresh_token(self, grant_id: str, client: str, digest: str, audience: str | None = None) -> None:
        grant, now = self._tasks.live(grant_id).grant, self._tasks.now()
        current = [family for token, family in self._families.items() if token == family.current]
        for over in [family for family in current if self._kept_until[family.id] < now]:
            self._forget_family(over)
        family = RefreshFamily(self._new_id("rfc"), grant_id, client, audience, digest)
        await self._put_family(family, grant.expires_at + KEPT)

    async def rotate_refresh_token(self, presented: Presented, fresh: str) -> Rotated:
        """GrantTokenError for a token that is not known or was given to another client.

        UnauthenticatedError for one of an attested workload that did not prove its name again, WrongKeyError for
        another key. UsedError for one that was spent: then the grant has ended, as nobody can say which of two has
        stolen it.
        """
        family = self._families.get(presented.digest)
        if family is None:
            raise GrantTokenError("the refresh token is not known, or was forgotten")
        try:
            self._tasks.serving()
            self._check_presented(family, presented)
            if presented.digest != family.current:
                task = self._tasks.task_of(family.grant)
                await self._revoker.end(task, family.grant, "grant.revoke", cause="a refresh token was used twice")
                raise UsedError("the refresh token was used before, so its grant has ended")
        except RemitError as error:
            await self._tasks.denied("token.refresh", family.grant, error, key=presented.jkt or presented.x5t)
            raise
        rotated = family.rotate(fresh)
        await self._put_family(rotated, self._kept_until[family.id], family)
        self._tasks.check(family.grant)  # it may have ended while this was committed
        return Rotated(self._tasks.view(family.grant), rotated)

    def _check_presented(self, family: RefreshFamily, presented: Presented) -> None:
        if presented.client != family.client:
            raise GrantTokenError("the refresh token was given to another client")
        try:
            grant = self._tasks.check(family.grant).grant
        except NotFoundError:
            raise GrantTokenError("the grant of the refresh token is over") from None
        if grant.attested and not presented.attested:
            raise UnauthenticatedError(
                "the refresh token was given to an attested workload, which has to prove its name"
            )
        if (presented.jkt, presented.x5t) != (grant.binding.jkt, grant.binding.x5t):
            raise WrongKeyError("the proof is by another key than the refresh token is bound to")

    async def _put_family(self, family: RefreshFamily, until: datetime, before: RefreshFamily | None = None) -> None:
        """Make a family count at once, so that of two at the same time one is the second; then make it durable."""
        self._keep_family(family, until)
        event = self._tasks.event("token.refresh" if before else "token.begin", "allow", family.grant)
        record = Record(KIND, family.id, family.rev, msgspec.json.encode(family), until)
        try:
            await self._tasks.store.commit((PutRecord(record),), (event,))
        except BaseException:
            self._forget_family(family)
            if before is not None:
                self._keep_family(before, until)
            raise

    def _keep_family(self, family: RefreshFamily, until: datetime) -> None:
        self._kept_until[family.id] = until
        for digest in family.known:
            self._families[digest] = family

    def _forget_family(self, family: RefreshFamily) -> None:
        self._kept_until.pop(family.id, None)
        for digest in family.known:
            self._families.pop(digest, None)
