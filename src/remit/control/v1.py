"""``/v1``: parse, call the broker, render. Each handler gets the request and the caller its listener vouches for."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from remit.broker import Broker
from remit.control import render
from remit.core import scope as scopes
from remit.core.principal import Human, Operator, Principal, Right
from remit.core.task import Grant
from remit.errors import NotFoundError
from remit.ports import Clock
from remit.ports.kind import PortAccess
from remit.web import wire
from remit.web.authentication import listener_of
from remit.web.routes import Route

PAGED = frozenset({"after", "limit"})


class V1:
    """Tasks, grants and leases of one broker."""

    def __init__(self, broker: Broker, clock: Clock) -> None:
        self._broker, self._clock = broker, clock

    def routes(self) -> tuple[Route, ...]:
        """Return the routes."""
        return (
            Route("GET", "/v1/self", self.self_, Right.ACT),
            Route("GET", "/v1/tasks", self.tasks, Right.ACT),
            Route("GET", "/v1/tasks/{task}", self.task, Right.ACT, PAGED),
            Route("POST", "/v1/tasks/{task}/close", self.close, Right.ACT),
            Route("POST", "/v1/tasks/{task}/leases", self.issue, Right.ACT),
            Route("POST", "/v1/tasks/{task}/grants/{grant}/revoke", self.revoke, Right.ACT),
            Route("POST", "/v1/leases/{lease}/renew", self.renew, Right.ACT),
            Route("POST", "/v1/leases/{lease}/revoke", self.revoke_lease, Right.ACT),
        )

    # -- tasks --------------------------------------------------------------------------------------------------

    async def self_(self, request: Request, caller: Principal) -> Response:
        """Say who the caller is and where it finds the data plane."""
        authority = listener_of(request)
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

    async def tasks(self, _: Request, caller: Principal) -> Response:
        """List the tasks that the caller may see."""
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
        access, port = self._broker.kinds[detail.type].access, listener_of(request).ports.get(detail.resource)
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
