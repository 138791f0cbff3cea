"""Who asks at the token endpoint: an attested workload, a registered public client, or nobody in particular."""

from __future__ import annotations

from dataclasses import dataclass

from remit.core.identity import Workload


@dataclass(frozen=True, slots=True)
class Client:
    """An OAuth client. ``id`` is empty for one that names itself nothing; ``workload`` is set when it was attested."""

    id: str = ""
    workload: Workload | None = None
