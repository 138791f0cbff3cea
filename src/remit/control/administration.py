"""Administration: resources and their secrets, policies, signing keys, the broker's processes, and the audit log.

The log is on the wire as it was hashed: entries, checkpoints as they were signed, proofs in base64url.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import repeat

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from remit import jose
from remit.control import render
from remit.core import scope as scopes
from remit.core import tree
from remit.core.principal import Principal, Right
from remit.core.secret import Secret
from remit.core.tree import Range
from remit.errors import InvalidRequestError, NotFoundError
from remit.jose.keys import PublishedKey
from remit.ports import Resource
from remit.ports.broker import BrokerPort
from remit.web import wire
from remit.web.routes import AppDeps, Handler, Policies, Rings, Route

MAX_ENTRIES = 1_000  # in one answer
ENTRIES = frozenset({"start", "limit"})
POLICIES = (("GET", "/v1/policy"), ("POST", "/v1/policy/reload"), ("GET", "/v1/policy/explain/{grant}"))
STATUS = (("GET", "/v1/processes"),)
KEYS = (("GET", "/v1/keys"), ("POST", "/v1/keys/{ring}/rotate"), ("POST", "/v1/keys/{ring}/{kid}/revoke"))


def routes(deps: AppDeps) -> tuple[Route, ...]:
    """Return the routes. Keys and policies are the operator's, who comes to the control socket alone."""
    made, admin = Administration(deps), Right.OPERATE
    return (
        Route("GET", "/v1/resources", made.resources, admin),
        Route("GET", "/v1/resources/{resource}", made.resource, admin),
        Route("PUT", "/v1/resources/{resource}", made.put_resource, admin),
        Route("DELETE", "/v1/resources/{resource}", made.delete_resource, admin),
        Route("POST", "/v1/resources/{resource}/check", made.check_resource, admin),
        Route("PUT", "/v1/secrets/{secret}", made.put_secret, admin),
        Route("GET", "/v1/audit", made.audit, admin, ENTRIES),
        Route("GET", "/v1/audit/checkpoint", made.checkpoint, admin),
        Route("GET", "/v1/audit/proof/inclusion", made.inclusion, admin, frozenset({"seq", "size"})),
        Route("GET", "/v1/audit/proof/consistency", made.consistency, admin, frozenset({"from", "to"})),
        *_rows(POLICIES, None if deps.policies is None else _policies(deps.broker, deps.policies)),
        *_rows(KEYS, None if deps.rings is None else _keys(deps.rings)),
        *_rows(STATUS, None if deps.status is None else _status(deps.status)),
    )


def _rows(places: Sequence[tuple[str, str]], handlers: Sequence[Handler] | None) -> tuple[Route, ...]:
    """Return routes of the operator; where there is nothing behind them, whoever has no right is told the same."""
    found = zip(places, repeat(_nothing) if handlers is None else handlers, strict=False)
    return tuple(Route(method, path, handler, Right.OPERATE) for (method, path), handler in found)


async def _nothing(_request: Request, _: Principal) -> Response:
    raise NotFoundError


def _status(described: Callable[[], Awaitable[Mapping[str, object]]]) -> Sequence[Handler]:
    async def processes(_request: Request, _: Principal) -> Response:
        return wire.answer(await described())

    return (processes,)


class Administration:
    """Resources, secrets and the audit log of one broker."""

    def __init__(self, deps: AppDeps) -> None:
        self._broker, self._kinds = deps.broker, deps.kinds

    async def resources(self, _request: Request, _: Principal) -> Response:
        return wire.listing(resources=map(render.resource, await self._broker.resources()))

    async def resource(self, request: Request, _: Principal) -> Response:
        return wire.answer(render.resource(await self._broker.resource(request.path_params["resource"])))

    async def put_resource(self, request: Request, principal: Principal) -> Response:
        asked = await wire.document(request, frozenset({"kind", "destination", "bound", "settings", "secret"}))
        name, settings = scopes.check_name(request.path_params["resource"]), asked.get("settings", {})
        if not isinstance(settings, dict):
            raise InvalidRequestError("`settings` must be a JSON object")
        bound = scopes.parse(asked.get("bound"))
        resource = Resource(name, wire.text(asked, "kind"), wire.text(asked, "destination"), bound, None, settings)
        value = Secret(wire.text(asked, "secret")) if "secret" in asked else None
        await self._broker.put_resource(principal, resource, value)
        return wire.answer(render.resource(await self._broker.resource(name)))

    async def check_resource(self, request: Request, _: Principal) -> Response:
        """Check a resource again, and change nothing; ``contacted`` says whether its target was."""
        await wire.nothing(request)
        name = request.path_params["resource"]
        findings = await self._broker.check_resource(name)
        contacted = self._kinds[(await self._broker.resource(name)).kind].inspects
        return wire.answer({"resource": name, "contacted": contacted, "findings": [asdict(item) for item in findings]})

    async def delete_resource(self, request: Request, principal: Principal) -> Response:
        await wire.nothing(request)
        await self._broker.delete_resource(principal, request.path_params["resource"])
        return Response(status_code=204, headers=wire.HEADERS)

    async def put_secret(self, request: Request, principal: Principal) -> Response:
        """Replace a static secret. There is no way to read it back."""
        asked = await wire.document(request, frozenset({"resource", "value"}))
        name = wire.text(asked, "resource")
        if name != request.path_params["secret"]:
            raise InvalidRequestError("a secret has the name of its resource")
        await self._broker.put_secret(principal, name, Secret(wire.text(asked, "value")))
        return Response(status_code=204, headers=wire.HEADERS)

    async def audit(self, request: Request, _: Principal) -> Response:
        """Return entries from ``start``: each leaf is spliced in as it was hashed."""
        asked = wire.pairs(request.scope["query_string"], ENTRIES)
        start, limit = wire.whole("start", asked.get("start", "0")), wire.whole("limit", asked.get("limit", "100"))
        found = await self._broker.entries(start, min(limit, MAX_ENTRIES))
        leaves = b",".join(entry.leaf for entry in found)
        state = await self._broker.audit_state()
        trouble = None if state.trouble is None else state.trouble.detail
        about = {"size": state.size, "rolled_back": state.rolled_back, "second_place": trouble}
        head = json.dumps(about, separators=(",", ":")).encode()[:-1]
        return Response(b'%b,"entries":[%b]}' % (head, leaves), 200, wire.HEADERS, "application/json")

    async def checkpoint(self, _request: Request, _: Principal) -> Response:
        """Sign the head of the log as it is now (C2SP note)."""
        return PlainTextResponse((await self._broker.checkpoint()).text, headers=wire.HEADERS)

    async def inclusion(self, request: Request, _: Principal) -> Response:
        """Prove that an entry is in the log of ``size`` entries."""
        return await self._proof(request, "seq", "size", tree.inclusion_path)

    async def consistency(self, request: Request, _: Principal) -> Response:
        """Prove that the log of ``to`` entries extends that of ``from`` entries."""
        return await self._proof(request, "from", "to", tree.consistency_path)

    async def _proof(
        self, request: Request, first: str, size: str, path: Callable[[int, int], Sequence[Range]]
    ) -> Response:
        asked = wire.pairs(request.scope["query_string"], frozenset({first, size}))
        if len(asked) < len((first, size)):
            raise InvalidRequestError(f"`{first}` and `{size}` are needed")
        at, entries = wire.whole(first, asked[first]), wire.whole(size, asked[size])
        if entries > (await self._broker.audit_state()).size:
            raise NotFoundError("the log has fewer entries than that")
        nodes = await self._broker.nodes(path(at, entries))
        return wire.answer({first: at, size: entries, "proof": [jose.encode(node) for node in nodes]})


def _policies(broker: BrokerPort, policies: Policies) -> Sequence[Handler]:
    async def shown(_request: Request, _: Principal) -> Response:
        return wire.answer(policies.shown())

    async def reload(request: Request, principal: Principal) -> Response:
        await wire.nothing(request)
        return wire.answer(await policies.reload(principal))

    async def explain(request: Request, _: Principal) -> Response:
        question = await broker.question(request.path_params["grant"])
        return wire.answer({"grant": request.path_params["grant"], **policies.explained(question)})

    return shown, reload, explain


def _keys(rings: Rings) -> Sequence[Handler]:
    def public(key: PublishedKey) -> dict[str, object]:
        until = None if key.until is None else wire.instant(key.until)
        return {"kid": key.kid, "alg": key.alg, "signing": key.signing, "until": until}

    async def published(_request: Request, _: Principal) -> Response:
        return wire.answer({"rings": {name: [*map(public, keys)] for name, keys in rings.published().items()}})

    async def rotate(request: Request, principal: Principal) -> Response:
        await wire.nothing(request)
        ring: str = request.path_params["ring"]
        return wire.answer({"ring": ring, "signing": await rings.rotate(principal, ring)})

    async def revoke(request: Request, principal: Principal) -> Response:
        await wire.nothing(request)
        ring, kid = request.path_params["ring"], request.path_params["kid"]
        return wire.answer({"ring": ring, "revoked": kid, "signing": await rings.revoke(principal, ring, kid)})

    return published, rotate, revoke
