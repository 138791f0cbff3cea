"""What is asked of the broker about resources: their definitions, secrets, and how their servers are described."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from remit.broker.checkpoints import Checkpoints
from remit.broker.policy import PolicyEnforcement
from remit.broker.resources import ResourceRegistry
from remit.broker.tasks import TaskCache
from remit.core.description import Described, DescriptionChoice, DescriptionPin, KeptDescription
from remit.core.principal import Principal
from remit.core.secret import Secret
from remit.errors import InvalidRequestError, ScopeError
from remit.ports import Finding, Resource
from remit.ports.broker import DESCRIBED, Target
from remit.ports.kind import Kind


class ResourceVerbs:
    """The part of the broker that knows what is configured."""

    kinds: Mapping[str, Kind]
    policy: PolicyEnforcement
    checkpoints: Checkpoints
    _tasks: TaskCache
    _registry: ResourceRegistry

    async def resources(self) -> list[Resource]:
        return self._registry.resources()

    async def resource(self, name: str) -> Resource:
        return self._registry.resource(name)

    async def put_resource(self, operator: Principal, resource: Resource, value: Secret | None = None) -> None:
        await self._registry.put(operator, resource, value)
        await self._narrowed(resource.name)

    async def put_secret(self, operator: Principal, name: str, value: Secret) -> None:
        await self.put_resource(operator, self._registry.resource(name), value)

    async def check_resource(self, name: str) -> Sequence[Finding]:
        return await self._registry.findings(name)

    async def delete_resource(self, operator: Principal, name: str) -> None:
        await self._registry.delete(operator, name)
        await self._narrowed(name)

    async def _narrowed(self, name: str) -> None:
        ended = await self.policy.redecide("the resource was changed", name)
        await self._tasks.notices.acted_on()
        if ended:
            await self.checkpoints.covered()

    async def target(self, name: str) -> Target:
        return Target(self._registry.resource(name), self._registry.version(name))

    async def credential(self, name: str, version: int) -> Secret | None:
        return await self._registry.handed(name, version)

    async def described(self, grant_id: str, resource: str, items: Sequence[Described]) -> list[DescriptionPin]:
        if len(items) > DESCRIBED:
            raise InvalidRequestError(f"a server is described by at most {DESCRIBED} items at once")
        return await self._registry.descriptions.seen(grant_id, self._speaking(grant_id, resource), items)

    async def description(self, grant_id: str, resource: str, what: str, named: str) -> DescriptionPin:
        return await self._registry.descriptions.asked(self._speaking(grant_id, resource), (what, named))

    def _speaking(self, grant_id: str, name: str) -> Resource:
        """Return the resource of a live grant whose server says how it is described."""
        if all(detail.resource != name for detail in self._tasks.check(grant_id).grant.scope):
            raise ScopeError
        found = self._registry.resource(name)
        if not self.kinds[found.kind].messages:
            raise InvalidRequestError(f"nothing of `{name}` is described")
        return found

    async def descriptions(self, name: str) -> list[KeptDescription]:
        return self._registry.descriptions.kept(self._registry.resource(name).name)

    async def accept_descriptions(self, operator: Principal, name: str, chosen: Sequence[DescriptionChoice]) -> None:
        await self._registry.descriptions.accept(operator, self._registry.resource(name).name, chosen)
        await self._tasks.notices.acted_on()
