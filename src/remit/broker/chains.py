"""Refresh tokens: each works once, by the key its grant is bound to; a second use ends the grant and all below it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from remit.broker.heads import Heads
from remit.broker.targets import Targets
from remit.core import chain as chains
from remit.core.chain import Chain
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

KIND = "refresh"
KEPT = timedelta(days=1)  # after the grant is over


@dataclass(frozen=True, slots=True)
class Presented:
    """A refresh token as it was presented: its SHA-256, by whom, and what they proved.

    ``attested``: whether ``client`` is a workload's name that was proven.
    """

    digest: str
    client: str
    jkt: str | None = None
    x5t: str | None = None
    attested: bool = False


class Chains:
    """The refresh tokens that were handed out."""

    def __init__(self, heads: Heads, targets: Targets, new_id: NewId) -> None:
        """Start empty; ``load`` fills."""
        self._heads, self._targets, self._new_id = heads, targets, new_id
        self._kept: dict[str, Chain] = {}  # by the digest of every token that is known
        self._until: dict[str, datetime] = {}  # chain -> when it is forgotten

    async def load(self) -> None:
        """Read what is kept."""
        for record in await self._heads.store.records(KIND):
            self._keep(_read(record), record.until)

    def find(self, digest: str) -> Chain | None:
        """Return the chain of a token, spent or not, by its SHA-256."""
        return self._kept.get(digest)

    async def begin(self, grant: Grant, client: str, digest: str, audience: str | None = None) -> Chain:
        """Start the chain of a grant with its first token."""
        self._forget()
        chain = Chain(self._new_id("rfc"), grant.id, client, audience, digest)
        await self._put(chain, grant.expires_at + KEPT)
        return chain

    async def turn(self, presented: Presented, fresh: str) -> tuple[Grant, Chain]:
        """Spend a token for the next one, ``fresh``; return its grant, which is live, and the chain.

        GrantTokenError for a token that is not known or was given to another client, UnauthenticatedError for one of an
        attested workload that did not prove its name again, WrongKeyError for another key, UsedError for one that was
        spent: then the grant has ended, as nobody can say which of two has stolen it.
        """
        chain = self._kept.get(presented.digest)
        if chain is None:
            raise GrantTokenError("the refresh token is not known, or was forgotten")
        try:
            self._heads.serving()
            grant = self._usable(chain, presented)
            if presented.digest != chain.current:
                await self._end(chain)
                raise UsedError("the refresh token was used before, so its grant has ended")
        except RemitError as error:
            await self._heads.denied("token.refresh", chain.grant, error, key=presented.jkt or presented.x5t)
            raise
        turned = chains.turn(chain, fresh)
        await self._put(turned, self._until[chain.id], chain)
        self._heads.check(chain.grant)  # it may have ended while this was committed
        return grant, turned

    def _usable(self, chain: Chain, presented: Presented) -> Grant:
        if presented.client != chain.client:
            raise GrantTokenError("the refresh token was given to another client")
        try:
            grant = self._heads.check(chain.grant).grant
        except NotFoundError:
            raise GrantTokenError("the grant of the refresh token is over") from None
        if grant.attested and not presented.attested:
            raise UnauthenticatedError(
                "the refresh token was given to an attested workload, which has to prove its name"
            )
        if (presented.jkt, presented.x5t) != (grant.jkt, grant.x5t):
            raise WrongKeyError("the proof is by another key than the refresh token is bound to")
        return grant

    async def _end(self, chain: Chain) -> None:
        task = self._heads.task_of(chain.grant)
        await self._targets.end(task, chain.grant, "grant.revoke", cause="a refresh token was used twice")

    async def _put(self, chain: Chain, until: datetime, before: Chain | None = None) -> None:
        """Make a chain count at once, so that of two at the same time one is the second; then make it durable."""
        self._keep(chain, until)
        event = self._heads.event("token.refresh" if before else "token.begin", "allow", chain.grant)
        record = Record(KIND, chain.id, chain.rev, msgspec.json.encode(chain), until)
        try:
            await self._heads.record((PutRecord(record),), (event,))
        except BaseException:
            self._drop(chain)
            if before is not None:
                self._keep(before, until)
            raise

    def _keep(self, chain: Chain, until: datetime) -> None:
        self._until[chain.id] = until
        for digest in chain.known:
            self._kept[digest] = chain

    def _drop(self, chain: Chain) -> None:
        self._until.pop(chain.id, None)
        for digest in chain.known:
            self._kept.pop(digest, None)

    def _forget(self) -> None:
        now = self._heads.now()
        for chain in [chain for digest, chain in self._kept.items() if digest == chain.current]:
            if self._until[chain.id] < now:
                self._drop(chain)


def _read(record: Record) -> Chain:
    try:
        return msgspec.json.decode(record.body, type=Chain)
    except msgspec.MsgspecError as error:
        raise IntegrityError("a chain of refresh tokens that was kept cannot be read") from error
