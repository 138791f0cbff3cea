"""What others publish, fetched in the process that reaches them: its end of ``ports.targets.DocumentPort``."""

from __future__ import annotations

from collections.abc import Mapping

from remit.errors import UnavailableError
from remit.identity.fetch import Fetch, HttpFetch
from remit.identity.workloads.bundles import DocumentSource
from remit.ports.targets import DocumentPort


class PublishedDocuments(DocumentPort):
    """Fetches documents over the web, and the bundles of trust domains from where each is published."""

    def __init__(self, sources: Mapping[str, DocumentSource], web: Fetch | None = None) -> None:
        self._sources, self._web = sources, web or HttpFetch()

    async def fetch(self, url: str) -> bytes:
        return await self._web(url)

    async def bundle(self, domain: str) -> bytes:
        source = self._sources.get(domain)
        if source is None:
            raise UnavailableError(f"`{domain}` is not a trust domain whose bundle is fetched here")
        return await source.document(domain)
