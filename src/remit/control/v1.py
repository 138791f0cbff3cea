"""``/v1``: parse, call the broker, render. Each handler gets the request and the caller its listener vouches for."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from remit.broker import Broker
from remit.control import render
from remit.core import scope as scopes
from remit.core.principal import Human, Operator, Principal
from remit.core.secret import Secret
from remit.core.task import Grant
from remit.errors import InvalidRequestError, NotFoundError
from remit.ports import Clock, Resource
from remit.ports.kind import PortAccess
from remit.web import wire
from remit.web.authentication import authority_of, operator

PAGED = frozenset({"after", "limit"})


class V1:
    """The handlers over one broker."""

    def __init__(self, broker: Broker, clock: Clock) -> None:
        """Serve ``broker``."""
        self._broker, self._clock = broker, clock

    # -- tasks --------------------------------------------------------------------------------------------------

    async def self_(self, request: Request, caller: Principal) -> Response:
        """Say who the caller is and where it finds the data plane."""
        authority = authority_of(request)
        places = {"gateway": authority.gateway, "ports": dict(authority.ports)}
        if isinstance(caller, Operator | Human):
            return wire.answer({"subject": caller.subject.sub, "acr": caller.subject.acr, **places})
        grant = self._broker.check(caller.name)
        left = int((grant.expires_at - self._clock()).total_seconds())
        held = {
            "task": self._broker.task_of(grant.id).id,
            "grant": grant.id,
            "authorization_details": scopes.dump(grant.scope),
        }
        return wire.answer({**held, "expires_in": left, **places})

    async def tasks(self, request: Request, caller: Principal) -> Response:
        """List the tasks that the caller may see."""
        del request
        return await wire.listing("tasks", map(render.summary, self._broker.tasks(caller)))

    async def task(self, request: Request, caller: Principal) -> Response:
        """Show one task with its tree; with ``after`` (a grant) and ``limit``, a page of it."""
        asked = wire.pairs(request.scope["query_string"], PAGED)
        found = self._broker.task(caller, request.path_params["task"])
        limit = max(1, wire.whole("limit", asked.get("limit", str(render.PAGE)), render.PAGE))
        after = asked.get("after")
        if after is not None and after not in {item.id for item in render.visible(caller, found)}:
            raise NotFoundError
        return wire.answer(render.task(caller, found, self._broker, after, limit))

    async def close(self, request: Request, caller: Principal) -> Response:
        """End a task."""
        await wire.nothing(request)
        return wire.answer(render.report(await self._broker.close(caller, request.path_params["task"])))

    async def revoke(self, request: Request, caller: Principal) -> Response:
        """End a grant and all below it."""
        await wire.nothing(request)
        await self._broker.back(request.path_params["task"])
        grant = self._grant(request, caller, request.path_params["grant"])
        return wire.answer(render.report(await self._broker.revoke(caller, grant.id)))

    def _grant(self, request: Request, caller: Principal, grant_id: str) -> Grant:
        """Return a grant of the task that the path names."""
        return self._broker.task(caller, request.path_params["task"]).grant(grant_id)

    # -- leases -------------------------------------------------------------------------------------------------

    async def issue(self, request: Request, caller: Principal) -> Response:
        """Make a credential for a detail of a grant; in a run it names the run's own port, where there is one."""
        key = wire.idempotency_key(request)
        asked = await wire.document(request, frozenset({"grant", "detail"}))
        grant = self._grant(request, caller, wire.text(asked, "grant"))
        [detail] = scopes.parse([asked.get("detail")])
        issued = await self._broker.issue(caller, grant.id, detail, key)
        lease, credential = issued.lease, render.credential(issued.credential)
        access, port = self._broker.kinds[detail.type].access, authority_of(request).ports.get(detail.resource)
        if port is not None and isinstance(access, PortAccess):
            credential = dict(access.local(credential, port))
        content = {
            "lease": lease.id,
            "expires_at": wire.instant(lease.expires_at),
            "credential": credential,
        }
        return wire.answer(content, 201)

    async def renew(self, request: Request, caller: Principal) -> Response:
        """Extend a lease in place."""
        asked = await wire.document(request, frozenset({"ttl"}))
        ttl = wire.seconds("ttl", asked.get("ttl"))
        lease = await self._broker.renew(caller, request.path_params["lease"], ttl)
        grant = self._broker.task_of_lease(lease.id).grant(lease.grant)
        ends = {"expires_at": wire.instant(lease.expires_at), "ends_with_grant": lease.expires_at >= grant.expires_at}
        return wire.answer({"lease": lease.id, **ends})

    async def revoke_lease(self, request: Request, caller: Principal) -> Response:
        """End one lease."""
        await wire.nothing(request)
        return wire.answer(render.report(await self._broker.revoke_lease(caller, request.path_params["lease"])))

    # -- resources ----------------------------------------------------------------------------------------------

    async def resources(self, request: Request, caller: Principal) -> Response:
        """List the configured resources."""
        del request
        operator(caller)
        return wire.answer({"resources": [render.resource(item) for item in self._broker.resources()]})

    async def resource(self, request: Request, caller: Principal) -> Response:
        """Show one resource."""
        operator(caller)
        return wire.answer(render.resource(self._broker.resource(request.path_params["resource"])))

    async def put_resource(self, request: Request, caller: Principal) -> Response:
        """Add or replace a resource, with its secret if one is given."""
        asked = await wire.document(request, frozenset({"kind", "destination", "bound", "settings", "secret"}))
        resource = _resource(scopes.check_name(request.path_params["resource"]), asked)
        value = Secret(wire.text(asked, "secret")) if "secret" in asked else None
        await self._broker.put_resource(operator(caller), resource, value)
        return wire.answer(render.resource(self._broker.resource(resource.name)))

    async def check_resource(self, request: Request, caller: Principal) -> Response:
        """Check a resource again, and change nothing; ``contacted`` says whether its target was."""
        await wire.nothing(request)
        name = request.path_params["resource"]
        findings = await self._broker.check_resource(operator(caller), name)
        shown = [{"name": item.name, "text": item.text, "acceptable": item.acceptable} for item in findings]
        contacted = self._broker.kinds[self._broker.resource(name).kind].inspects
        return wire.answer({"resource": name, "contacted": contacted, "findings": shown})

    async def delete_resource(self, request: Request, caller: Principal) -> Response:
        """Remove a resource and its secret."""
        await wire.nothing(request)
        await self._broker.delete_resource(operator(caller), request.path_params["resource"])
        return Response(status_code=204, headers=wire.HEADERS)

    async def put_secret(self, request: Request, caller: Principal) -> Response:
        """Replace a static secret. There is no way to read it back."""
        asked = await wire.document(request, frozenset({"resource", "value"}))
        name = wire.text(asked, "resource")
        if name != request.path_params["secret"]:
            raise InvalidRequestError("a secret has the name of its resource")
        await self._broker.put_secret(operator(caller), name, Secret(wire.text(asked, "value")))
        return Response(status_code=204, headers=wire.HEADERS)


def _resource(name: str, asked: dict[str, object]) -> Resource:
    settings = asked.get("settings", {})
    if not isinstance(settings, dict):
        raise InvalidRequestError("`settings` must be a JSON object")
    bound = scopes.parse(asked.get("bound"))
    return Resource(name, wire.text(asked, "kind"), wire.text(asked, "destination"), bound, None, settings)
