"""OAuth clients of the configuration that prove who they are by a key: RFC 7523 §2.2 (``private_key_jwt``)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

from remit.core.principal import PRIVATE_KEY_JWT, Workload
from remit.errors import UnauthenticatedError
from remit.identity.issuers import KeptFetch
from remit.jose import client_assertion
from remit.jose.jwt import SKEW
from remit.jose.keys import KeySet, read_key_set
from remit.ports import Clock


class ClientKeys:
    """The keys of one client, wherever ``read`` has the document (RFC 7517 §5) from."""

    def __init__(self, client: str, read: Callable[[], Awaitable[bytes]], clock: Clock) -> None:
        async def keys() -> KeySet:
            return read_key_set(await read())

        self._kept = KeptFetch(keys, f"the client `{client}`", clock)

    async def verify(self, assertion: client_assertion.ClientAssertion) -> None:
        """Check the signature of an assertion, or raise UnauthenticatedError or UnavailableError."""
        compact = assertion.jwt.compact
        known = await self._kept.current()
        if known.find(compact, UnauthenticatedError) is None:
            known = await self._kept.current(anew=True)
        known.verify(compact, UnauthenticatedError)


@dataclass(frozen=True, slots=True)
class KeyedClients:
    """Verifies assertions: those of clients by the keys of each; ``others``, the word of a platform, elsewhere."""

    keys: Mapping[str, ClientKeys]  # by ``client_id``
    audiences: Collection[str]
    clock: Clock
    others: Callable[[str], Awaitable[Workload]] | None = None

    async def assertion(self, token: str) -> Workload:
        """Return who signed a ``jwt-bearer`` assertion, or whom its issuer says that it is; it counts once."""
        client = client_assertion.issuer(token)
        if client is None and self.others is not None:
            return await self.others(token)
        keys = self.keys.get(client or "")
        if keys is None:
            raise UnauthenticatedError("it is by no client and no platform that is configured here")
        read = client_assertion.read(token, self.audiences, self.clock())
        await keys.verify(read)
        over = read.expires_at + SKEW
        return Workload(read.client, PRIVATE_KEY_JWT, read.expires_at, digest=read.digest, until=over)
