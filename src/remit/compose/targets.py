"""What reaches databases, clouds and issuers: engines, and documents that are published elsewhere. No state, no key."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import closing

from remit.compose import identities, kinds, logs
from remit.config.settings import Settings
from remit.identity.documents import PublishedDocuments
from remit.identity.providers import ReachedProviders
from remit.kinds.engines import HeldEngines
from remit.link.frames import LinkSockets
from remit.link.targets import answer
from remit.ports import Clock
from remit.ports.kind import EngineContext, Kind
from remit.ports.targets import TargetsPort


class ReachedTargets(HeldEngines, PublishedDocuments, ReachedProviders, TargetsPort):
    """All of ``ports.targets`` in this process."""

    def __init__(self, settings: Settings, served: Mapping[str, Kind], clock: Clock) -> None:
        HeldEngines.__init__(self, served, EngineContext(clock, secrets.token_bytes, settings.issuer, None))
        PublishedDocuments.__init__(self, identities.published(settings))
        ReachedProviders.__init__(self)


async def serve_targets(settings: Settings, clock: Clock, sockets: LinkSockets) -> None:
    """Be the process that reaches targets, until its link ends; what it logs, the authority writes."""
    worker = await answer(sockets, ReachedTargets(settings, kinds.known(settings), clock))
    with closing(worker), logs.reported(worker.reports):
        await worker.reports.started()
        await worker.over.wait()
