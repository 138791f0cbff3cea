"""Administration: resources and their secrets, policies, signing keys, and the audit log.

The log is on the wire as it was hashed: entries, checkpoints as they were signed, proofs in base64url.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from remit import jose
from remit.control import render
from remit.core import scope as scopes
from remit.core import tree
from remit.core.audit import Checkpoint
from remit.core.principal import Principal, Right
from remit.core.secret import Secret
from remit.errors import InvalidRequestError, NotFoundError
from remit.jose.keys import PublishedKey
from remit.ports import Resource
from remit.ports.broker import BrokerPort
from remit.ports.kind import Kind
from remit.web import wire
from remit.web.routes import AppDeps, Policies, Rings, Route

MAX_ENTRIES = 1_000  # in one answer
ENTRIES = frozenset({"start", "limit"})
INCLUSION = frozenset({"seq", "size"})
CONSISTENCY = frozenset({"from", "to"})


def routes(deps: AppDeps) -> tuple[Route, ...]:
    """Return the routes: none for keys that are somebody else's, and none where nothing is told of policies."""
    audit, resources, admin = AuditLog(deps.broker, deps.checkpoint), Resources(deps.broker, deps.kinds), Right.OPERATE
    found = [
        Route("GET", "/v1/resources", resources.resources, admin),
        Route("GET", "/v1/resources/{resource}", resources.resource, admin),
        Route("PUT", "/v1/resources/{resource}", resources.put_resource, admin),
        Route("DELETE", "/v1/resources/{resource}", resources.delete_resource, admin),
        Route("POST", "/v1/resources/{resource}/check", resources.check_resource, admin),
        Route("PUT", "/v1/secrets/{secret}", resources.put_secret, admin),
        Route("GET", "/v1/audit", audit.audit, admin, ENTRIES),
        Route("GET", "/v1/audit/checkpoint", audit.checkpoint, admin),
        Route("GET", "/v1/audit/proof/inclusion", audit.inclusion, admin, INCLUSION),
        Route("GET", "/v1/audit/proof/consistency", audit.consistency, admin, CONSISTENCY),
    ]
    if deps.policies is not None:
        policies = PolicyAdministration(deps.broker, deps.policies)
        found += [
            Route("GET", "/v1/policy", policies.policy, admin),
            Route("POST", "/v1/policy/reload", policies.reload_policy, admin),
            Route("GET", "/v1/policy/explain/{grant}", policies.explain_policy, admin),
        ]
    if deps.rings is not None:
        keys = KeyAdministration(deps.rings)
        found += [
            Route("GET", "/v1/keys", keys.keys, admin),
            Route("POST", "/v1/keys/{ring}/rotate", keys.rotate_key, admin),
            Route("POST", "/v1/keys/{ring}/{kid}/revoke", keys.revoke_key, admin),
        ]
    return tuple(found)


class Resources:
    """Resources and secrets of one broker."""

    def __init__(self, broker: BrokerPort, kinds: Mapping[str, Kind]) -> None:
        self._broker, self._kinds = broker, kinds

    async def resources(self, _request: Request, _: Principal) -> Response:
        """List the configured resources."""
        return wire.answer({"resources": [render.resource(item) for item in await self._broker.resources()]})

    async def resource(self, request: Request, _: Principal) -> Response:
        """Show one resource."""
        return wire.answer(render.resource(await self._broker.resource(request.path_params["resource"])))

    async def put_resource(self, request: Request, principal: Principal) -> Response:
        """Add or replace a resource, with its secret if one is given."""
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
        shown = [{"name": item.name, "text": item.text, "acceptable": item.acceptable} for item in findings]
        contacted = self._kinds[(await self._broker.resource(name)).kind].inspects
        return wire.answer({"resource": name, "contacted": contacted, "findings": shown})

    async def delete_resource(self, request: Request, principal: Principal) -> Response:
        """Remove a resource and its secret."""
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


class PolicyAdministration:
    """What one broker decides by."""

    def __init__(self, broker: BrokerPort, policies: Policies) -> None:
        self._broker, self._policies = broker, policies

    async def policy(self, _request: Request, _: Principal) -> Response:
        """Return which policies hold, and what was wrong when they were last to be replaced."""
        return wire.answer(self._policies.shown())

    async def reload_policy(self, request: Request, principal: Principal) -> Response:
        """Load the policies anew; what they do not allow has ended when this answers."""
        await wire.nothing(request)
        return wire.answer(await self._policies.reload(principal))

    async def explain_policy(self, request: Request, _: Principal) -> Response:
        """Say how the policies decide on a grant now, whether it is live or not."""
        question = await self._broker.question(request.path_params["grant"])
        return wire.answer({"grant": request.path_params["grant"], **self._policies.explained(question)})


class KeyAdministration:
    """The signing keys of one broker."""

    def __init__(self, rings: Rings) -> None:
        self._rings = rings

    async def keys(self, _request: Request, _: Principal) -> Response:
        """List the public halves that verify, by ring."""
        return wire.answer({"rings": {name: [*map(_key, keys)] for name, keys in self._rings.published().items()}})

    async def rotate_key(self, request: Request, principal: Principal) -> Response:
        """Have a new key sign."""
        await wire.nothing(request)
        ring: str = request.path_params["ring"]
        return wire.answer({"ring": ring, "signing": await self._rings.rotate(principal, ring)})

    async def revoke_key(self, request: Request, principal: Principal) -> Response:
        """End what a key has signed."""
        await wire.nothing(request)
        ring, kid = request.path_params["ring"], request.path_params["kid"]
        return wire.answer({"ring": ring, "revoked": kid, "signing": await self._rings.revoke(principal, ring, kid)})


def _key(key: PublishedKey) -> dict[str, object]:
    until = None if key.until is None else wire.instant(key.until)
    return {"kid": key.kid, "alg": key.alg, "signing": key.signing, "until": until}


class AuditLog:
    """The audit log; ``checkpoint`` signs its head as it is now."""

    def __init__(self, broker: BrokerPort, checkpoint: Callable[[], Awaitable[Checkpoint]]) -> None:
        self._broker, self._checkpoint = broker, checkpoint

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
        """Return a signed checkpoint (C2SP note)."""
        return PlainTextResponse((await self._checkpoint()).text, headers=wire.HEADERS)

    async def inclusion(self, request: Request, _: Principal) -> Response:
        """Prove that an entry is in the log of ``size`` entries."""
        seq, size = await self._range(request, INCLUSION, "seq", "size")
        return _proof(await self._broker.nodes(tree.inclusion_path(seq, size)), seq=seq, size=size)

    async def consistency(self, request: Request, _: Principal) -> Response:
        """Prove that the log of ``to`` entries extends that of ``from`` entries."""
        old, new = await self._range(request, CONSISTENCY, "from", "to")
        return _proof(await self._broker.nodes(tree.consistency_path(old, new)), **{"from": old, "to": new})

    async def _range(self, request: Request, known: frozenset[str], first: str, size: str) -> tuple[int, int]:
        asked = wire.pairs(request.scope["query_string"], known)
        if asked.keys() != known:
            raise InvalidRequestError(f"`{first}` and `{size}` are needed")
        found = wire.whole(first, asked[first]), wire.whole(size, asked[size])
        if found[1] > (await self._broker.audit_state()).size:
            raise NotFoundError("the log has fewer entries than that")
        return found


def _proof(nodes: Sequence[bytes], **about: int) -> Response:
    return wire.answer({**about, "proof": [jose.encode(node) for node in nodes]})
