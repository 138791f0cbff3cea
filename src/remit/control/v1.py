"""``/v1``: parse, call the broker, render. Each handler gets the request and the caller its listener vouches for."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from remit.control import render
from remit.core import scope as scopes
from remit.core.principal import GrantView, Human, IdToken, Operator, Principal, Right
from remit.core.secret import Secret
from remit.errors import NotFoundError
from remit.ports.broker import PAGE
from remit.ports.kind import PortAccess
from remit.web import wire
from remit.web.authentication import listener_of
from remit.web.routes import AppDeps, Route

PAGED = frozenset({"after", "limit"})


class V1:
    """Tasks, grants and leases of one broker."""

    def __init__(self, deps: AppDeps) -> None:
        self._broker, self._kinds, self._clock = deps.broker, deps.kinds, deps.verifier.clock
        self._renew_task = deps.renew_task

    def routes(self) -> tuple[Route, ...]:
        renewing = Route("POST", "/v1/tasks/{task}/renew", self.renew_task, Right.OPERATE)
        return (
            *(() if self._renew_task is None else (renewing,)),
            Route("GET", "/v1/self", self.self_, Right.ACT),
            Route("GET", "/v1/tasks", self.tasks, Right.ACT),
            Route("GET", "/v1/tasks/{task}", self.task, Right.ACT, PAGED),
            Route("POST", "/v1/tasks/{task}/close", self.close, Right.ACT),
            Route("POST", "/v1/tasks/{task}/leases", self.issue, Right.ACT),
            Route("POST", "/v1/tasks/{task}/grants/{grant}/revoke", self.revoke, Right.ACT),
            Route("POST", "/v1/leases/{lease}/renew", self.renew, Right.ACT),
            Route("POST", "/v1/leases/{lease}/revoke", self.revoke_lease, Right.ACT),
        )

    async def self_(self, request: Request, caller: Principal) -> Response:
        """Say who the caller is and where it finds the data plane."""
        authority = listener_of(request)
        places = {"gateway": authority.gateway, "ports": dict(authority.ports)}
        if isinstance(caller, Operator | Human):
            return wire.answer({"subject": caller.subject.sub, "acr": caller.subject.acr, **places})
        held = await self._broker.grant(caller.name)
        left = int((held.grant.expires_at - self._clock()).total_seconds())
        told = {"task": held.task, "grant": held.id, "authorization_details": scopes.dump(held.grant.scope)}
        return wire.answer({**told, "expires_in": left, **places})

    async def tasks(self, _: Request, caller: Principal) -> Response:
        return wire.listing(tasks=map(render.summary, await self._broker.tasks(caller)))

    async def task(self, request: Request, caller: Principal) -> Response:
        """Show one task with its tree; with ``after`` (a grant) and ``limit``, a page of it."""
        asked = wire.pairs(request.scope["query_string"], PAGED)
        limit = max(1, wire.whole("limit", asked.get("limit", str(PAGE)), PAGE))
        page = await self._broker.task(caller, request.path_params["task"], asked.get("after"), limit)
        await asyncio.sleep(0)  # others go on between looking and writing
        grants = map(render.grant, page.grants, page.used)
        return wire.listing(render.task(page), grants=grants, leases=map(render.lease, page.leases))

    async def renew_task(self, request: Request, caller: Operator) -> Response:
        """Renew a task for whom it was opened for: the owner, or the human of an ID token."""
        asked = await wire.document(request, frozenset({"ttl", "id_token"}))
        task, ttl = request.path_params["task"], wire.seconds("ttl", asked.get("ttl"))
        token = IdToken(wire.text(asked, "id_token")) if "id_token" in asked else None
        assert self._renew_task is not None  # noqa: S101 - else there is no such route
        ends = await self._renew_task(caller, task, ttl, token)
        return wire.answer({"task": task, "expires_at": wire.instant(ends)})

    async def close(self, request: Request, caller: Principal) -> Response:
        await wire.nothing(request)
        return wire.answer(render.report(await self._broker.close(caller, request.path_params["task"])))

    async def revoke(self, request: Request, caller: Principal) -> Response:
        await wire.nothing(request)
        grant = await self._grant(request, caller, request.path_params["grant"])
        return wire.answer(render.report(await self._broker.revoke(caller, grant.id)))

    async def _grant(self, request: Request, caller: Principal, grant_id: str) -> GrantView:
        """Return a grant of the task that the path names."""
        found = await self._broker.find(grant_id, caller)
        if found.task != request.path_params["task"]:
            raise NotFoundError
        return found

    async def issue(self, request: Request, caller: Principal) -> Response:
        """Make a credential for a detail of a grant; in a run it names the run's own port, where there is one."""
        key = wire.idempotency_key(request)
        asked = await wire.document(request, frozenset({"grant", "detail"}))
        grant = await self._grant(request, caller, wire.text(asked, "grant"))
        [detail] = scopes.parse([asked.get("detail")])
        issued = await self._broker.issue(caller, grant.id, detail, key)
        lease, kept = issued.lease, issued.credential.items()
        credential = {name: value.reveal() if isinstance(value, Secret) else value for name, value in kept}
        access, port = self._kinds[detail.type].access, listener_of(request).ports.get(detail.resource)
        if port is not None and isinstance(access, PortAccess):
            credential = dict(access.local(credential, port))
        answer = {"lease": lease.id, "expires_at": wire.instant(lease.expires_at), "credential": credential}
        return wire.answer(answer, 201)

    async def renew(self, request: Request, caller: Principal) -> Response:
        asked = await wire.document(request, frozenset({"ttl"}))
        lease = await self._broker.renew(caller, request.path_params["lease"], wire.seconds("ttl", asked.get("ttl")))
        grant = (await self._broker.find(lease.grant)).grant
        ends = {"expires_at": wire.instant(lease.expires_at), "ends_with_grant": lease.expires_at >= grant.expires_at}
        return wire.answer({"lease": lease.id, **ends})

    async def revoke_lease(self, request: Request, caller: Principal) -> Response:
        await wire.nothing(request)
        return wire.answer(render.report(await self._broker.revoke_lease(caller, request.path_params["lease"])))
