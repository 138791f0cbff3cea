"""What the authority asks of the process that reaches targets: engines by values, and documents that issuers publish.

It is ``ports.broker`` the other way round: the authority calls, and opens no connection itself. A process that dies
takes its engines with it: what waits there fails, and an engine is configured anew when it is next used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from remit.core.secret import Secret
from remit.core.task import Plan, Revocation
from remit.ports import Finding, Issued, Resource
from remit.ports.connections import ProviderPort


class EngineKey(Struct, frozen=True):
    """One engine of a resource, as it was configured when the authority gave it this number, and never another."""

    resource: str
    number: int


class EngineTraits(Struct, frozen=True):
    """How an engine ends what it makes, and which of the optional protocols of ``ports`` it satisfies."""

    revocation: Revocation
    renewable: bool = False
    bulk: bool = False
    cleanable: bool = False
    inspectable: bool = False


class EnginePort(Protocol):
    """Engines by their keys. UnknownEngineError where one is not configured there (any more): nothing has been done.

    What each call does stands in ``ports.Engine`` and its companions; the secret goes with the configuration alone.
    """

    async def configure(self, engine: EngineKey, resource: Resource, secret: Secret | None) -> EngineTraits:
        """Have this engine, made of a resource and its secret; what was configured before stays as it is.

        InvalidRequestError where it could never work. It opens no connection.
        """

    async def issue_credential(self, engine: EngineKey, plan: Plan, expires_at: datetime) -> Issued: ...

    async def renew_credential(
        self, engine: EngineKey, plan: Plan, receipt: Mapping[str, str] | None, expires_at: datetime
    ) -> None: ...

    async def revoke_credential(self, engine: EngineKey, plan: Plan, receipt: Mapping[str, str] | None) -> None: ...
    async def revoke_credentials(self, engine: EngineKey, plans: Sequence[Plan]) -> frozenset[str]: ...
    async def clean_credentials(self, engine: EngineKey, plans: Sequence[Plan]) -> frozenset[str]: ...
    async def inspect_target(self, engine: EngineKey) -> Sequence[Finding]: ...

    async def close_engine(self, engine: EngineKey) -> None:
        """Forget an engine, and let go of its connections."""


class DocumentPort(Protocol):
    """Documents that others publish. All raise UnavailableError; what comes is bounded, and not looked into."""

    async def fetch(self, url: str) -> bytes:
        """Return the body of a successful answer to a GET: 256 KiB at most, no redirects."""

    async def bundle(self, domain: str) -> bytes:
        """Return the bundle of a trust domain that is configured, as a JWK Set of 1 MiB at most."""


class TargetsPort(EnginePort, DocumentPort, ProviderPort, Protocol):
    """All that the process does which reaches targets."""
