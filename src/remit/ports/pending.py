"""What is kept for workers for a time: codes, polls, pushed requests, consent sessions, and proofs that were used.

It is held behind a protocol of values, so that a process can lie between (``remit.link``). A worker sends the SHA-256
of a name and the bytes that it wrote; they are bounded in number and size for each principal (``room``).
"""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

import msgspec

from remit import jose
from remit.jose.proof import Proof

CODE_LIFE = timedelta(seconds=60)
REMEMBERED = timedelta(hours=1)  # a used code, so that its second use ends what it opened
INTERVAL = timedelta(seconds=5)  # RFC 8628 §3.2

T = TypeVar("T")


class PendingKind(StrEnum):
    """What is kept; each kind has room of its own."""

    CODE = "code"
    POLL = "poll"  # a device code or a back-channel request
    DELEGATION = "delegation"  # a poll for an approval that a grant asked for, by the approval's id
    PUSHED = "pushed"
    DEVICE = "device"  # what a user code stands for, by its first letters
    CONSENT = "consent"


class Pending(Protocol):
    """What is kept for workers, each value for its time alone. A name is known by its SHA-256 (base64url)."""

    async def keep(
        self, kind: PendingKind, digest: str, value: bytes, life: timedelta, room: str = "", most: int | None = None
    ) -> None:
        """Keep a value, in place of any other of this name; LimitError while its room is full.

        Rooms take no place of each other. With ``most`` one is for so many, and the oldest makes way for the newest.
        """

    async def kept(self, kind: PendingKind, digest: str) -> bytes | None:
        """Return the value of this name, if its time is not up."""

    async def take(self, kind: PendingKind, digest: str) -> bytes | None:
        """Return the value of this name, once."""

    async def swap(self, kind: PendingKind, digest: str, before: bytes, after: bytes) -> bool:
        """Put ``after`` in the place of ``before``, for what is left of its time; False if it is no longer there."""

    async def burn(self, proof: Proof, *, stranger: bool = False) -> None:
        """Let a proof pass once; ReplayError if it was seen before, of whomever; LimitError if there are too many.

        Strangers, who have shown but a key that anybody can make, are counted apart and keep out none but each other.
        """


class PendingStore(Generic[T]):
    """The values of one kind as their worker knows them: by a name of 256 random bits, which stays there."""

    def __init__(self, pending: Pending, kind: PendingKind, values: type[T]) -> None:
        self._pending, self._kind = pending, kind
        self._encode, self._decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(values).decode

    async def keep(
        self, value: T, life: timedelta, name: str | None = None, *, room: str = "", most: int | None = None
    ) -> str:
        """Keep a value; return its new name, unless one is given."""
        name = name or secrets.token_urlsafe(32)
        await self._pending.keep(self._kind, jose.digest(name), self._encode(value), life, room, most)
        return name

    async def find(self, name: str) -> T | None:
        found = await self._pending.kept(self._kind, jose.digest(name))
        return None if found is None else self._decode(found)

    async def take(self, name: str) -> T | None:
        found = await self._pending.take(self._kind, jose.digest(name))
        return None if found is None else self._decode(found)

    async def swap(self, name: str, before: T, after: T) -> bool:
        return await self._pending.swap(self._kind, jose.digest(name), self._encode(before), self._encode(after))


class AuthorizationCode(msgspec.Struct, frozen=True):
    """What an authorization code stands for."""

    approval: str
    client_id: str
    redirect_uri: str
    challenge: str
    until: datetime
    audience: str | None = None  # whom the token is for, at the most
    used: int = 0
    keyed: bool = False  # whether its client has to authenticate


class Poll(msgspec.Struct, frozen=True):
    """A device code or a back-channel request whose client comes back to ask."""

    approval: str
    client_id: str
    next_at: datetime
    interval: timedelta = INTERVAL
    audience: str | None = None  # whom the token is for, at the most
    keyed: bool = False  # whether its client has to authenticate
