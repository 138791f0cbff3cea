"""What the authority publishes of trust domains: its own, and those that the configuration names."""

from __future__ import annotations

from remit.broker import Broker
from remit.identity.workloads.bundles import TrustBundles
from remit.keys.authority import FileAuthority
from remit.ports.identity import PublishedTrust
from remit.ports.trust import Trust, TrustPort


class TrustPublisher(TrustPort):
    """Tells workers of every change."""

    def __init__(self, broker: Broker, own: FileAuthority, others: TrustBundles | None) -> None:
        self._broker, self._own, self._others = broker, own, others
        self.trust = Trust(self._found())
        own.on_change(self._changed)
        if others is not None:
            others.on_change(self._changed)

    async def published_trust(self) -> PublishedTrust:
        return self.trust.now

    async def refresh(self) -> None:
        """Look for the bundles that are due."""
        if self._others is not None:
            await self._others.refresh()

    def _changed(self) -> None:
        self.trust.now = self._found()
        self._broker.feeds.publish(trust=self.trust.now)

    def _found(self) -> PublishedTrust:
        return PublishedTrust(self._own.public, {} if self._others is None else self._others.current())
