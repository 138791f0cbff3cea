"""The engines of this process, by the keys that the authority gave them: its end of ``ports.targets.EnginePort``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import cast

from remit.core.secret import Secret
from remit.core.task import Plan
from remit.errors import InvalidRequestError, UnknownEngineError
from remit.ports import Bulk, Cleanable, Closable, Engine, Finding, Inspectable, Issued, Renewable, Resource
from remit.ports.kind import EngineContext, Kind
from remit.ports.targets import EngineKey, EnginePort, EngineTraits


class HeldEngines(EnginePort):
    """Makes engines of these kinds when it is told to. A call that an engine cannot do raises AttributeError."""

    def __init__(self, kinds: Mapping[str, Kind], context: EngineContext) -> None:
        self._kinds, self._context = kinds, context
        self._engines: dict[EngineKey, Engine] = {}

    async def configure(self, engine: EngineKey, resource: Resource, secret: Secret | None) -> EngineTraits:
        if engine not in self._engines:
            kind = self._kinds.get(resource.kind)
            if kind is None or kind.engine is None:
                raise InvalidRequestError(f"no credentials of kind `{resource.kind}` are made here")
            self._engines[engine] = kind.engine(resource, secret, self._context)
        made = self._engines[engine]
        able = (isinstance(made, capability) for capability in (Renewable, Bulk, Cleanable, Inspectable))
        return EngineTraits(made.revocation, *able)

    async def issue_credential(self, engine: EngineKey, plan: Plan, expires_at: datetime) -> Issued:
        return await self._of(engine).issue(plan, expires_at)

    async def renew_credential(
        self, engine: EngineKey, plan: Plan, receipt: Mapping[str, str] | None, expires_at: datetime
    ) -> None:
        await cast("Renewable", self._of(engine)).renew(plan, receipt, expires_at)

    async def revoke_credential(self, engine: EngineKey, plan: Plan, receipt: Mapping[str, str] | None) -> None:
        await self._of(engine).revoke(plan, receipt)

    async def revoke_credentials(self, engine: EngineKey, plans: Sequence[Plan]) -> frozenset[str]:
        return await cast("Bulk", self._of(engine)).revoke_many(plans)

    async def clean_credentials(self, engine: EngineKey, plans: Sequence[Plan]) -> frozenset[str]:
        return await cast("Cleanable", self._of(engine)).clean(plans)

    async def inspect_target(self, engine: EngineKey) -> Sequence[Finding]:
        return await cast("Inspectable", self._of(engine)).inspect()

    async def close_engine(self, engine: EngineKey) -> None:
        made: object = self._engines.pop(engine, None)
        if isinstance(made, Closable):
            await made.close()

    def _of(self, engine: EngineKey) -> Engine:
        if (made := self._engines.get(engine)) is None:
            raise UnknownEngineError
        return made
