"""Refresh tokens: each works once, by the key its grant is bound to; a second use ends the grant and all below it."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from remit.broker.revocation import LeaseRevoker
from remit.broker.tasks import TaskCache
from remit.core import refresh
from remit.core.refresh import RefreshFamily
from remit.core.task import Grant
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
from remit.ports.broker import Presented

KIND = "refresh"
KEPT = timedelta(days=1)  # after the grant is over


class RefreshTokens:
    """The refresh tokens that were handed out."""

    def __init__(self, tasks: TaskCache, revoker: LeaseRevoker, new_id: NewId) -> None:
        self._tasks, self._revoker, self._new_id = tasks, revoker, new_id
        self._kept: dict[str, RefreshFamily] = {}  # by the digest of every token that is known
        self._until: dict[str, datetime] = {}  # family -> when it is forgotten

    async def load(self) -> None:
        """Read what is kept."""
        for record in await self._tasks.store.records(KIND):
            self._keep(_read(record), record.until)

    def find(self, digest: str) -> RefreshFamily | None:
        """Return the family of a token, spent or not, by its SHA-256."""
        return self._kept.get(digest)

    async def begin(self, grant: Grant, client: str, digest: str, audience: str | None = None) -> RefreshFamily:
        """Start the family of a grant with its first token."""
        self._forget()
        family = RefreshFamily(self._new_id("rfc"), grant.id, client, audience, digest)
        await self._put(family, grant.expires_at + KEPT)
        return family

    async def rotate(self, presented: Presented, fresh: str) -> RefreshFamily:
        """Spend a token for the next one, ``fresh``; return the family, whose grant is live.

        GrantTokenError for a token that is not known or was given to another client, UnauthenticatedError for one of an
        attested workload that did not prove its name again, WrongKeyError for another key, UsedError for one that was
        spent: then the grant has ended, as nobody can say which of two has stolen it.
        """
        family = self._kept.get(presented.digest)
        if family is None:
            raise GrantTokenError("the refresh token is not known, or was forgotten")
        try:
            self._tasks.serving()
            self._check_usable(family, presented)
            if presented.digest != family.current:
                await self._end(family)
                raise UsedError("the refresh token was used before, so its grant has ended")
        except RemitError as error:
            await self._tasks.denied("token.refresh", family.grant, error, key=presented.jkt or presented.x5t)
            raise
        rotated = refresh.rotate(family, fresh)
        await self._put(rotated, self._until[family.id], family)
        self._tasks.check(family.grant)  # it may have ended while this was committed
        return rotated

    def _check_usable(self, family: RefreshFamily, presented: Presented) -> None:
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

    async def _end(self, family: RefreshFamily) -> None:
        task = self._tasks.task_of(family.grant)
        await self._revoker.end(task, family.grant, "grant.revoke", cause="a refresh token was used twice")

    async def _put(self, family: RefreshFamily, until: datetime, before: RefreshFamily | None = None) -> None:
        """Make a family count at once, so that of two at the same time one is the second; then make it durable."""
        self._keep(family, until)
        event = self._tasks.event("token.refresh" if before else "token.begin", "allow", family.grant)
        record = Record(KIND, family.id, family.rev, msgspec.json.encode(family), until)
        try:
            await self._tasks.record((PutRecord(record),), (event,))
        except BaseException:
            self._drop(family)
            if before is not None:
                self._keep(before, until)
            raise

    def _keep(self, family: RefreshFamily, until: datetime) -> None:
        self._until[family.id] = until
        for digest in family.known:
            self._kept[digest] = family

    def _drop(self, family: RefreshFamily) -> None:
        self._until.pop(family.id, None)
        for digest in family.known:
            self._kept.pop(digest, None)

    def _forget(self) -> None:
        now = self._tasks.now()
        for family in [family for digest, family in self._kept.items() if digest == family.current]:
            if self._until[family.id] < now:
                self._drop(family)


def _read(record: Record) -> RefreshFamily:
    try:
        return msgspec.json.decode(record.body, type=RefreshFamily)
    except msgspec.MsgspecError as error:
        raise IntegrityError("a family of refresh tokens that was kept cannot be read") from error
