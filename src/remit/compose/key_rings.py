"""The key rings: one for each purpose, and what has to know when one rotates: verification, checkpoints, the audit.

What is about to happen is in the audit before it does, and what came of it after.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial

from remit.broker import Broker
from remit.core.principal import Principal
from remit.errors import NotFoundError, RemitError
from remit.jose import token
from remit.jose.keys import PublishedKey
from remit.keys.authority import FileAuthority
from remit.keys.signers import FileKeyring

OVERLAP = token.LIFE + timedelta(seconds=token.SKEW)  # after it, a key has signed no token that is good
PRUNE = 60.0  # seconds between looks at what is to be rotated, or is published no longer
AUDIT, EVENTS, SERVICES, SPIFFE, TOKEN = "audit", "events", "services", "spiffe", "token"


class KeyRing:
    """The keys of one purpose. ``changed`` is told of every change of what they publish.

    ``keep`` is called before one that signs no more is revoked: it has another sign what was its evidence.
    """

    def __init__(
        self,
        keys: FileKeyring | FileAuthority,
        changed: Callable[[], None] = lambda: None,
        keep: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._keys, self._changed, self._keep, self.published = keys, changed, keep, keys.published
        self._told = keys.published()

    async def rotate(self) -> None:
        await asyncio.to_thread(self._keys.make_ahead)
        self._keys.rotate()
        self._tell()

    async def revoke(self, kid: str) -> None:
        if self._keep is not None:
            if kid == self.published()[0].kid:
                await self.rotate()
            await self._keep()
        await asyncio.to_thread(self._keys.make_ahead)
        self._keys.revoke(kid)
        self._tell()

    async def prune(self) -> None:
        """Publish no longer what nothing needs any more, and rotate if it is time."""
        if self._keys.due:
            await asyncio.to_thread(self._keys.make_ahead)
        self._keys.prune()
        self._tell()

    def _tell(self) -> None:
        published = self.published()
        if published != self._told:
            self._changed()
            self._told = published


class KeyRings:
    """All key rings by name, with every change of one in the audit."""

    def __init__(self, broker: Broker, rings: Mapping[str, KeyRing]) -> None:
        self._broker, self._rings = broker, dict(rings)

    def published(self) -> Mapping[str, Sequence[PublishedKey]]:
        """Return the keys of every ring, the signing one first."""
        return {name: ring.published() for name, ring in sorted(self._rings.items())}

    async def rotate(self, operator: Principal, ring: str) -> str:
        """Make a new key of a ring sign; return its id."""
        found = self._named(ring)
        return await self._recorded(operator, "key.rotate", ring, found.published()[0].kid, found.rotate)

    async def revoke(self, operator: Principal, ring: str, kid: str) -> str:
        """End what a key has signed; return the id of the key that signs now."""
        found = self._named(ring)
        if kid not in {key.kid for key in found.published()}:
            raise NotFoundError("there is no such key in this ring")
        return await self._recorded(operator, "key.revoke", ring, kid, partial(found.revoke, kid))

    async def prune(self) -> None:
        """Prune every ring, in the rounds of a broker; no ring has to wait for another that fails."""
        failed: Exception | None = None
        for ring in self._rings.values():
            try:
                await ring.prune()
            except Exception as error:  # noqa: BLE001 - the first is raised when all have been pruned
                failed = failed or error
        if failed is not None:
            raise failed

    async def _recorded(
        self, operator: Principal, name: str, ring: str, kid: str, change: Callable[[], Awaitable[None]]
    ) -> str:
        await self._broker.note(operator, name, "allow", action=ring, key=kid)
        try:
            await change()
        except RemitError as error:
            await self._broker.note(operator, name, "failed", action=ring, key=kid, code=error.code)
            raise
        await self._broker.feeds.acted_on()  # by now nobody takes a key that is revoked
        signing = self._rings[ring].published()[0].kid
        await self._broker.note(operator, name, "done", action=ring, key=signing)
        return signing

    def _named(self, name: str) -> KeyRing:
        found = self._rings.get(name)
        if found is None:
            raise NotFoundError("there is no such ring", help=f"the rings are {', '.join(sorted(self._rings))}")
        return found
