"""Resources, their engines and their sealed static secrets."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import count

from remit.broker.descriptions import DescriptionPins
from remit.broker.engines import Bounded, ResourceEngine
from remit.broker.tasks import TaskCache
from remit.core import scope as scopes
from remit.core.audit import Event
from remit.core.connection import setting
from remit.core.principal import Principal
from remit.core.scope import Scope
from remit.core.secret import WHOLE, Secret
from remit.errors import ConflictError, DeniedError, InvalidRequestError, NotFoundError
from remit.ports import DeleteResource, Finding, NewId, PutResource, PutSecret, Resource, SealedSecret, Sealer, Write
from remit.ports.kind import ElsewhereAccess, EngineContext, GatewayAccess, Kind
from remit.ports.targets import EngineKey, EnginePort

MAX_SECRET = 16_384  # bytes, all parts together
MAX_PARTS = 16
_PARTS = b"\0"  # begins the stored form of named parts; no text begins so


class ResourceRegistry:
    """What is configured, and the one place that opens a static secret."""

    def __init__(
        self,
        tasks: TaskCache,
        sealer: Sealer,
        kinds: Mapping[str, Kind],
        context: EngineContext,
        ports: Mapping[str, EnginePort],
        bounded: Bounded,
        new_id: NewId,
    ) -> None:
        """Know resources of these kinds. ``ports`` are where the engines of a kind run, by its name."""
        self._tasks, self._store, self._sealer = tasks, tasks.store, sealer
        self._kinds, self._context, self._ports, self._bounded = kinds, context, ports, bounded
        self._resources: dict[str, Resource] = {}
        self.descriptions = DescriptionPins(tasks, new_id, self.resource)
        self._engines: dict[str, ResourceEngine] = {}
        self._numbers = count()
        self._opened: dict[str, Secret] = {}
        self._versions: dict[str, int] = {}  # of those that were changed since the start

    async def load(self) -> None:
        self._resources = {resource.name: resource for resource in await self._store.resources()}
        await self.descriptions.load()

    def resource(self, name: str) -> Resource:
        if (found := self._resources.get(name)) is None:
            raise NotFoundError(f"there is no resource `{name}`", help="`remit resource list` shows what there is")
        return found

    def unborne(self, scope: Scope) -> str | None:
        """Return a resource of a scope that is not served to whoever has a token: unless its settings say so."""
        found = {detail.resource: self._resources.get(detail.resource) for detail in scope}
        return next((name for name, it in found.items() if it is None or it.settings.get("bearer") is not True), None)

    def elsewhere(self, name: str) -> str | None:
        """Return whom tokens of a resource are for that is served elsewhere; None: it is not, or is not there."""
        found = self._resources.get(name)
        access = None if found is None else self._kinds[found.kind].access
        return access.audience(found) if found is not None and isinstance(access, ElsewhereAccess) else None

    def version(self, name: str) -> int:
        """Return a number that changes whenever a resource of this name, or its secret, does."""
        return self._versions.get(name, 0)

    def resources(self) -> list[Resource]:
        return [self._resources[name] for name in sorted(self._resources)]

    def bounds(self) -> Mapping[str, scopes.Scope]:
        return {name: resource.bound for name, resource in self._resources.items()}

    async def secret(self, name: str) -> Secret:
        """Open the static secret of a resource; it stays open in memory until it is replaced."""
        if name not in self._opened:
            resource = self.resource(name)
            if resource.secret is None:
                raise NotFoundError(f"`{name}` has no secret", help=f"`remit secret set {name}` stores one")
            sealed = await self._store.secret(resource.secret)
            if sealed.resource != name or sealed.destination != resource.destination:
                raise NotFoundError(f"the secret of `{name}` is bound to another destination", help="store it anew")
            if self.resource(name) is not resource:  # else the old secret would go to the new destination
                raise ConflictError(f"`{name}` was changed meanwhile", help="try again")
            opened = _unpacked(self._sealer.open(sealed.sealed, associated(sealed)))
            self._opened.setdefault(name, opened)  # uses that wait for it together get the same
        return self._opened[name]

    def url(self, resource: Resource) -> str:
        """Return the URL where requests to a resource go."""
        access = self._kinds[resource.kind].access
        return resource.destination.removeprefix(access.prefix if isinstance(access, GatewayAccess) else "")

    def messages(self, resource: Resource) -> bool:
        """Whether requests to a resource are messages of MCP."""
        return self._kinds[resource.kind].messages

    def needed(self, resource: Resource, scope: scopes.Scope) -> frozenset[str] | None:
        """Return the scopes that a scope takes at a resource's provider, where its settings say so; None: all."""
        asked, needs = setting(resource.settings), self._kinds[resource.kind].needs
        if asked is None or not asked.lower or needs is None:
            return None
        found = [needs(asked.lower, detail) for detail in scope if detail.resource == resource.name]
        return None if None in found else frozenset().union(*filter(None, found))

    async def handed(self, name: str, version: int) -> Secret | None:
        """Return the secret that goes into requests, if there is one.

        ConflictError for another version: a secret must not go where another is meant to.
        """
        resource = self.resource(name)
        if "oauth" in resource.settings:  # its secret is that of a client, for the provider alone
            raise DeniedError(f"`{name}` is used by connections of humans")
        secret = await self.secret(name) if resource.secret is not None else None
        if self.version(name) != version:
            raise ConflictError("the resource was changed meanwhile, so the request was not sent", help="try again")
        return secret

    async def engine(self, name: str, kind: str) -> ResourceEngine:
        """Return the engine of a resource whose kind issues leases, configured."""
        resource = self.resource(name)
        if resource.kind != kind or kind not in self._ports:
            raise InvalidRequestError(
                f"`{name}` issues no leases of type `{kind}`", help="use it through the gateway instead"
            )
        if name not in self._engines:
            secret = await self.secret(name) if resource.secret else None
            self._engines.setdefault(name, self._made(resource, secret))
        engine = self._engines[name]
        await engine.traits()
        return engine

    def _made(self, resource: Resource, secret: Secret | None) -> ResourceEngine:
        plan = self._kinds[resource.kind].plan
        if plan is None:
            raise InvalidRequestError(f"a resource of kind `{resource.kind}` issues no leases")
        key = EngineKey(resource.name, next(self._numbers))
        planned = partial(plan, resource, self._context)
        return ResourceEngine(self._ports[resource.kind], key, resource, secret, planned, self._bounded)

    async def put(self, operator: Principal, resource: Resource, value: Secret | None = None) -> None:
        """Add or replace a resource, checked at the target first; with its secret, if one is given."""
        self._tasks.serving()
        name, old = resource.name, self._resources.get(resource.name)
        moved = old is not None and _sent_to(old) != _sent_to(resource)
        if moved:
            self._check_unleased(name)
        self._check(resource, value)
        if old is not None and old.kind != resource.kind:
            raise ConflictError(f"`{name}` is of kind `{old.kind}`", help="remove it first")
        if value is not None:
            resource, secret = replace(resource, secret=name), value
        elif old is None or old.secret is None:
            resource, secret = replace(resource, secret=None), None
        elif moved:
            raise InvalidRequestError("the destination changes, so the secret must be given again with it")
        else:
            resource, secret = replace(resource, secret=old.secret), await self.secret(name)
        if refused := [finding for finding in await self._found(resource, secret) if not finding.accepted]:
            names = ", ".join(finding.name for finding in refused if finding.acceptable)
            hint = f"fix it, or accept by name: {names}" if names else "fix it at the target"
            raise ConflictError("; ".join(f"{finding.name}: {finding.text}" for finding in refused), help=hint)
        writes: list[Write] = [PutResource(resource)]
        events = [self._event("resource.put", operator, name, scopes.digest(resource.bound))]
        if value is not None:
            writes.append(PutSecret(await self._sealed(resource, value)))
            events.append(self._event("secret.put", operator, name))
        await self._commit(resource, writes, events, forget=old is not None and old.destination != resource.destination)

    async def delete(self, operator: Principal, name: str) -> None:
        self.resource(name)
        self._check_unleased(name)
        await self._commit(name, [DeleteResource(name)], [self._event("resource.delete", operator, name)], forget=True)

    async def _commit(
        self, changed: Resource | str, writes: Sequence[Write], events: Sequence[Event], *, forget: bool
    ) -> None:
        """Make a resource, or that the one of a name has gone, durable; ``forget`` how its server describes itself."""
        name = changed if isinstance(changed, str) else changed.name
        async with self.descriptions.lock(name):
            ended = self.descriptions.ended(name) if forget else ()
            await self._store.commit((*writes, *ended), events)
            if isinstance(changed, str):
                self._resources.pop(name, None)
            else:
                self._resources[name] = changed
            if forget:
                self.descriptions.forget(name)
        await self._drop(name)

    def _check_unleased(self, name: str) -> None:
        if any(i.plan.detail.resource == name for task in self._tasks for i in task.leases.values()):
            raise ConflictError(f"leases stand on `{name}`", help="revoke them first")

    def _event(self, verb: str, operator: Principal, name: str, digest: str | None = None) -> Event:
        return self._tasks.event(verb, "done", None, subject=operator.name, resource=name, detail_s256=digest)

    def _check(self, resource: Resource, value: Secret | None = None) -> None:
        scopes.check_name(resource.name)
        if resource.name == scopes.ENDPOINT:
            raise InvalidRequestError("`mcp` is the gateway's endpoint of all MCP servers: give it another name")
        if resource.kind not in self._kinds:
            raise InvalidRequestError(f"`kind` must be one of {', '.join(sorted(self._kinds))}")
        if not resource.bound:
            raise InvalidRequestError("`bound` is missing: say what no grant may exceed on this resource")
        if any(d.resource != resource.name or d.type != resource.kind for d in resource.bound):
            raise InvalidRequestError("each detail of `bound` must name this resource and its kind")
        self._kinds[resource.kind].check(resource, value, self._context)

    async def findings(self, name: str) -> Sequence[Finding]:
        resource = self.resource(name)
        secret = await self.secret(name) if resource.secret else None
        self._check(resource, secret)
        found = await self._found(resource, secret)
        return [finding for finding in found if finding.loud or not finding.accepted]

    async def _found(self, resource: Resource, value: Secret | None) -> Sequence[Finding]:
        if resource.kind not in self._ports:
            return ()
        engine = self._made(resource, value)
        try:
            findings = await engine.inspect() if (await engine.traits()).inspectable else ()
        finally:
            await engine.close()
        accepted = resource.settings.get("accept", ())
        names = accepted if isinstance(accepted, list | tuple) else ()
        return [replace(finding, accepted=finding.acceptable and finding.name in names) for finding in findings]

    async def _sealed(self, resource: Resource, value: Secret) -> SealedSecret:
        packed = _packed(value)
        try:
            version = (await self._store.secret(resource.name)).version
        except NotFoundError:
            version = 0
        blank = SealedSecret(resource.name, version + 1, resource.name, resource.destination, b"")
        return replace(blank, sealed=self._sealer.seal(packed, associated(blank)))

    async def _drop(self, name: str) -> None:
        self._versions[name] = self.version(name) + 1
        self._tasks.notices.tell(resources=frozenset({name}))
        self._opened.pop(name, None)
        engine = self._engines.pop(name, None)
        if engine is not None:
            await engine.close()

    async def close(self) -> None:
        for name in tuple(self._engines):
            await self._drop(name)


def _sent_to(resource: Resource) -> tuple[str, dict[str, object]]:
    """Return what says where the secret of a resource goes: of one that humans connect, its client's, to an issuer."""
    oauth = resource.settings.get("oauth")
    given = oauth if isinstance(oauth, Mapping) else {}
    return resource.destination, {name: given[name] for name in given.keys() - {"scopes", "lower", "revoke_with_task"}}


def associated(secret: SealedSecret) -> bytes:
    """Return the associated data of a sealed secret: name, version, resource, destination."""
    return json.dumps([secret.name, secret.version, secret.resource, secret.destination]).encode()


def _packed(value: Secret) -> bytes:
    """Return the stored form of a secret: its bytes as they are, or named parts as JSON in base64 behind a NUL."""
    parts = value.parts()
    if not 1 <= sum(map(len, parts.values())) <= MAX_SECRET or len(parts) > MAX_PARTS:
        raise InvalidRequestError(f"a secret is 1 to {MAX_SECRET} bytes, in {MAX_PARTS} parts at most")
    if parts.keys() != {WHOLE}:
        for name in parts:
            scopes.check_name(name)
    elif not parts[WHOLE].startswith(_PARTS):
        return parts[WHOLE]
    return _PARTS + json.dumps({name: b64encode(part).decode() for name, part in parts.items()}).encode()


def _unpacked(stored: bytes) -> Secret:
    if not stored.startswith(_PARTS):
        return Secret(stored)
    return Secret({name: b64decode(part) for name, part in json.loads(stored[1:]).items()})
