"""The rings of signing keys, and what has to know when one turns: verification, the published keys, the second place.

What is about to happen is in the audit before it does, and what came of it after.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Protocol

from remit.broker import Broker
from remit.core.principal import Operator
from remit.errors import NotFoundError, RemitError
from remit.jose import token
from remit.jose.keys import PublishedKey
from remit.keys.authority import FileAuthority
from remit.keys.signers import FileKeyring
from remit.web.verifier import Keys

OVERLAP = token.LIFE + timedelta(seconds=token.SKEW)  # after it, a key has signed no token that is good

AUDIT, EVENTS, SPIFFE, TOKEN = "audit", "events", "spiffe", "token"


class Ring(Protocol):
    """One ring: the keys of one purpose."""

    def shown(self) -> Sequence[PublishedKey]:
        """Describe the keys, the signing one first."""
        ...

    async def rotate(self) -> None:
        """Make a new key sign."""
        ...

    async def revoke(self, kid: str) -> None:
        """End what a key has signed."""
        ...

    def tend(self) -> None:
        """Let go of what nothing needs any more."""
        ...


class Tokens:
    """The keys of grants' tokens and of status lists."""

    def __init__(self, ring: FileKeyring, known: Keys) -> None:
        """Tell ``known``, what verifies tokens, of every change."""
        self._ring, self._known = ring, known
        self.shown = ring.shown

    async def rotate(self) -> None:
        """Make a new key sign; the one before verifies as long as its tokens live."""
        self._ring.rotate()
        self._tell()

    async def revoke(self, kid: str) -> None:
        """End the tokens that a key has signed."""
        self._ring.revoke(kid)
        self._tell()

    def tend(self) -> None:
        """Publish no longer what has signed no token that still lives."""
        self._ring.tend()
        if self._ring.public_jwks() != self._known.jwks:
            self._tell()

    def _tell(self) -> None:
        self._known.replace(self._ring.signer, self._ring.public_jwks())


class Notes:
    """The keys of checkpoints. Retired ones are published for good: old checkpoints are evidence as well."""

    def __init__(self, ring: FileKeyring, publish: Callable[[], None], keep: Callable[[], Awaitable[None]]) -> None:
        """``publish`` tells the keys to all who verify checkpoints; ``keep`` puts a new one in the second place."""
        self._ring, self._publish, self._keep = ring, publish, keep
        self.shown = ring.shown

    async def rotate(self) -> None:
        """Make a new key sign."""
        self._ring.rotate()
        self._publish()

    async def revoke(self, kid: str) -> None:
        """End the worth of what a key has signed; before it does, the second place gets what another one signed."""
        if kid == self._ring.signer.kid:
            await self.rotate()
        await self._keep()
        self._ring.revoke(kid)
        self._publish()

    def tend(self) -> None:
        """Keep all."""


class Events:
    """The keys of what receivers are told. Events do not expire: retired keys are published until they are revoked."""

    def __init__(self, ring: FileKeyring) -> None:
        """Turn ``ring``; whoever signs and publishes asks it each time."""
        self._ring = ring
        self.shown = ring.shown

    async def rotate(self) -> None:
        """Make a new key sign, also what was not taken yet."""
        self._ring.rotate()

    async def revoke(self, kid: str) -> None:
        """End the worth of what a key has signed; what was not taken yet is signed by another."""
        self._ring.revoke(kid)

    def tend(self) -> None:
        """Keep all."""


class Domain:
    """The keys of the broker's own trust domain: a CA and a JWT key at a time."""

    def __init__(self, authority: FileAuthority) -> None:
        """Turn the keys of ``authority``."""
        self._authority = authority
        self.shown = authority.shown

    async def rotate(self) -> None:
        """Let the next generation sign."""
        self._authority.rotate()

    async def revoke(self, kid: str) -> None:
        """End what the domain has signed: whoever had one of its keys had all, as they are in one file."""
        if kid not in {key.kid for key in self._authority.shown()}:
            raise NotFoundError("there is no such key in this ring")
        self._authority.revoke()

    def tend(self) -> None:
        """Rotate when it is time, and publish no longer what no SVID needs."""
        self._authority.tend()


class Rings:
    """All rings by name, with every change of one in the audit."""

    def __init__(self, broker: Broker, rings: Mapping[str, Ring]) -> None:
        """Turn ``rings``; ``broker`` has the audit."""
        self._broker, self._rings = broker, dict(rings)

    def shown(self) -> Mapping[str, Sequence[PublishedKey]]:
        """Return the keys of every ring, the signing one first."""
        return {name: ring.shown() for name, ring in sorted(self._rings.items())}

    async def rotate(self, operator: Operator, ring: str) -> str:
        """Make a new key of a ring sign; return its id."""
        held = self._of(ring)
        return await self._noted(operator, "key.rotate", ring, held, held.shown()[0].kid, held.rotate)

    async def revoke(self, operator: Operator, ring: str, kid: str) -> str:
        """End what a key has signed; return the id of the key that signs now."""
        held = self._of(ring)
        if kid not in {key.kid for key in held.shown()}:
            raise NotFoundError("there is no such key in this ring")
        return await self._noted(operator, "key.revoke", ring, held, kid, lambda: held.revoke(kid))

    async def tend(self) -> None:
        """Let go of what nothing needs any more, in the rounds of a broker."""
        failed = [error for ring in self._rings.values() if (error := _tended(ring)) is not None]
        for error in failed:
            raise error

    async def _noted(
        self, operator: Operator, name: str, ring: str, held: Ring, kid: str, turn: Callable[[], Awaitable[None]]
    ) -> str:
        await self._broker.note(operator, name, "allow", action=ring, key=kid)
        try:
            await turn()
        except RemitError as error:
            await self._broker.note(operator, name, "failed", action=ring, key=kid, code=error.code)
            raise
        await self._broker.note(operator, name, "done", action=ring, key=held.shown()[0].kid)
        return held.shown()[0].kid

    def _of(self, name: str) -> Ring:
        found = self._rings.get(name)
        if found is None:
            raise NotFoundError("there is no such ring", help=f"the rings are {', '.join(sorted(self._rings))}")
        return found


def _tended(ring: Ring) -> Exception | None:
    """Tend a ring; return what went wrong, so that no ring has to wait for another."""
    try:
        ring.tend()
    except Exception as error:  # noqa: BLE001 - raised when all have been tended
        return error
    return None
