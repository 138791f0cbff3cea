"""What reaches databases, clouds and issuers: engines, and documents that are published elsewhere. No state, no key."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from remit.compose import identities
from remit.config.settings import Settings
from remit.identity.documents import PublishedDocuments
from remit.kinds.engines import HeldEngines
from remit.ports import Clock
from remit.ports.kind import EngineContext, Kind
from remit.ports.targets import TargetsPort


class ReachedTargets(HeldEngines, PublishedDocuments, TargetsPort):
    """All of ``ports.targets`` in this process."""

    def __init__(self, settings: Settings, kinds: Mapping[str, Kind], clock: Clock) -> None:
        HeldEngines.__init__(self, kinds, EngineContext(clock, secrets.token_bytes, settings.issuer, None))
        PublishedDocuments.__init__(self, identities.published(settings))
