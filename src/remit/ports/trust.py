"""What is published of trust domains (SPIFFE), as workers know it: values, pushed anew when they change."""

from __future__ import annotations

from typing import Protocol

from remit.ports.broker import Notice
from remit.ports.identity import PublishedTrust


class TrustPort(Protocol):
    """Whoever holds the keys of the broker's own trust domain, and the bundles of others."""

    async def published_trust(self) -> PublishedTrust:
        """Return what is published now; when it changes, a notice has the new one."""


Pair = tuple[bytes, bytes]  # a server's certificate with its chain, and its key: both PEM


class CertificatePort(Protocol):
    """Whoever sees the files of the TLS listener, also those that took the place of others."""

    async def server_certificate(self) -> Pair:
        """Return what is in the files now. UnavailableError, or InvalidRequestError where others may open the key."""


class Trust:
    """What one process knows to be published; always ``now``."""

    def __init__(self, published: PublishedTrust) -> None:
        self.now = published

    def noticed(self, notice: Notice) -> None:
        """Take over what is published anew."""
        self.now = notice.trust or self.now
