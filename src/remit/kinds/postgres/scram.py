"""Passwords of leases, and what the server stores of each: a SCRAM-SHA-256 verifier (RFC 5802, RFC 5803).

A verifier of 4,096 iterations, the fewest that some drivers take (RFC 7677 section 4), is 3.7 ms of work. So some are
made ahead, each with a password of its own that is handed out once. The work is in ``hashlib``, which lets go of the
interpreter's lock, and in threads, so that the loop waits for none of it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from remit.core.secret import Secret
from remit.errors import InvalidRequestError
from remit.ports import Resource

ITERATIONS = 4_096
MOST_ITERATIONS = 100_000  # 90 ms, for the client at each login as well
PASSWORD_BYTES = 32
SALT_BYTES = 16
READY = 64  # passwords of one engine that wait, made ahead
AT_ONCE = 100  # iterations that take no longer than asking a thread for them


@dataclass(frozen=True, slots=True)
class ReadyPassword:
    """A password that was never handed out, and what the server is to store of it."""

    password: Secret
    verifier: str


class PasswordPool:
    """Passwords made ahead, ``READY`` at most, from when the first was taken."""

    def __init__(self, iterations: int, random: Callable[[int], bytes]) -> None:
        self._iterations, self._random = iterations, random
        self._ready: deque[ReadyPassword] = deque()
        self._filling: asyncio.Task[None] | None = None

    async def take(self) -> ReadyPassword:
        """Return one that nobody else gets; where none is ready, one that is made now."""
        if self._iterations <= AT_ONCE:
            return self._derived(*self._drawn())
        taken = self._ready.popleft() if self._ready else await self._made()
        if self._filling is None or self._filling.done():
            self._filling = asyncio.create_task(self._fill())
        return taken

    async def close(self) -> None:
        """Make no more, and forget those that are ready."""
        if self._filling is not None:
            self._filling.cancel()
            await asyncio.wait([self._filling])
        self._ready.clear()

    async def _fill(self) -> None:
        while len(self._ready) < READY:
            self._ready.append(await self._made())

    async def _made(self) -> ReadyPassword:
        return await asyncio.to_thread(self._derived, *self._drawn())

    def _drawn(self) -> tuple[Secret, bytes]:
        return new_password(self._random), self._random(SALT_BYTES)

    def _derived(self, password: Secret, salt: bytes) -> ReadyPassword:
        return ReadyPassword(password, scram_verifier(password, salt, self._iterations))


def iterations(resource: Resource) -> int:
    """Return how many iterations a resource asks for, or raise InvalidRequestError."""
    count = resource.settings.get("scram_iterations", ITERATIONS)
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MOST_ITERATIONS:
        raise InvalidRequestError(f"`scram_iterations` must be a whole number from 1 to {MOST_ITERATIONS:,}")
    return count


def new_password(random: Callable[[int], bytes]) -> Secret:
    """Return a password of 256 random bits, in letters that SASLprep leaves alone."""
    return Secret(base64.urlsafe_b64encode(random(PASSWORD_BYTES)).rstrip(b"=").decode())


def scram_verifier(password: Secret, salt: bytes, count: int) -> str:
    """Return the text that PostgreSQL stores instead of the password, of ``count`` iterations."""
    salted = hashlib.pbkdf2_hmac("sha256", password.reveal().encode(), salt, count)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    return f"SCRAM-SHA-256${count}:{_base64(salt)}${_base64(stored_key)}:{_base64(server_key)}"


def _base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode()
