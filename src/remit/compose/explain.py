"""Why a request would be allowed or refused, judged as the gateway and the broker judge it, from what the API tells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from remit import catalog
from remit.core import scope as scopes
from remit.errors import InvalidRequestError, ScopeError
from remit.gateway.authorize import HttpRequest, authorize, compile_rules
from remit.gateway.framing import Fields
from remit.gateway.fronts.path import read_target
from remit.gateway.target import HttpTarget
from remit.ports import Resource
from remit.sdk.detail import DetailLike, expand_one


@dataclass(frozen=True, slots=True)
class Request:
    """A request to the gateway: ``METHOD /RESOURCE/PATH``, and its JSON body if it has one."""

    method: str
    target: str
    body: str | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Whether, why, by which detail, and what would have been enough."""

    allowed: bool
    reasons: tuple[str, ...]
    by: Mapping[str, Any] | None = None
    enough: Mapping[str, Any] | None = None
    rests_on: tuple[str, ...] = ()  # who holds it, and what humans approved on the way to it


def explained(
    task: Mapping[str, Any],
    grant: str,
    what: Request | DetailLike,
    now: datetime,
    resource: Mapping[str, Any] | None = None,
) -> Explanation:
    """Judge what a grant of a task would be used for, at a resource as it is configured, if the caller may know."""
    by_id = {node["grant"]: node for node in task["grants"]}
    holder = by_id[grant]
    reasons = _ended(task, by_id, holder, now)
    if not holder["exercise"]:
        reasons.append(f"the grant may delegate, but not be used itself ({holder.get('unusable') or 'advisory'})")
    judged = _request(holder, what, resource) if isinstance(what, Request) else _lease(holder, what)
    index, why, enough, name = judged
    if index is None:
        found = [d for d in holder["authorization_details"] if d["resource"] == name]
        reasons.append(why if found else f"the grant holds nothing for `{name}`")
        return Explanation(allowed=False, reasons=tuple(reasons), enough=enough)
    by, rests_on = holder["authorization_details"][index], tuple(_rests_on(by_id, holder))
    reasons += _spent(by_id, holder, index)
    if reasons:
        return Explanation(allowed=False, reasons=tuple(reasons), by=by, rests_on=rests_on)
    return Explanation(allowed=True, reasons=("the grant and all it comes from are live",), by=by, rests_on=rests_on)


def _rests_on(by_id: Mapping[str, Any], node: Mapping[str, Any]) -> Iterator[str]:
    """Say who holds the grant, by whose word, and what on the way to it a human approved beyond the parent."""
    attested = "attested" if node.get("attested") else "not attested"
    yield f"held by {node.get('agent', node['grant'])} ({attested})"
    version = node.get("policy")
    if version and not version.startswith("local-"):  # else no policies are written down
        yield f"allowed by policies {version}"
    for item in _lineage(by_id, node):
        if item.get("approval"):
            yield f"{item['grant']} was approved by a human: {item['approval']}"


def _lineage(by_id: Mapping[str, Any], node: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    line = []
    while node is not None:
        line.append(node)
        node = by_id.get(node["parent"])
    return line


def _ended(task: Mapping[str, Any], by_id: Mapping[str, Any], node: Mapping[str, Any], now: datetime) -> list[str]:
    if task["closed"]:
        return ["the task is closed"]
    line = _lineage(by_id, node)
    revoked = [f"{item['grant']} was revoked" for item in line if item["revoked"]]
    return revoked or [
        f"{item['grant']} has expired" for item in line if datetime.fromisoformat(item["expires_at"]) <= now
    ]


def _spent(by_id: Mapping[str, Any], node: Mapping[str, Any], index: int) -> list[str]:
    """Say which budget on the way up is used up; a parent's details are known only where the caller may see them."""
    reasons = []
    for item in _lineage(by_id, node):
        detail = item["authorization_details"][index]
        if "uses" in detail and item["used"][index] >= detail["uses"]:
            reasons.append(f"the budget of {item['grant']} is used up ({detail['uses']} uses)")
        above = by_id.get(item["parent"])
        if above is None or index in item.get("approved", ()):  # covered by an approval alone
            break
        [narrow], wide = scopes.parse([detail]), scopes.parse(above["authorization_details"])
        index = scopes.cover(narrow, wide) or 0
    return reasons


Judged = tuple[int | None, str, Mapping[str, Any] | None, str]  # covering detail, else why and what is enough; resource


def _request(holder: Mapping[str, Any], what: Request, found: Mapping[str, Any] | None) -> Judged:

    target = read_target(what.target.encode())
    if target.grant not in {None, holder["grant"]}:
        raise InvalidRequestError(f"the URL names another grant: {target.grant}", help="explain that one with --grant")
    raw = None if what.body is None else what.body.encode()
    fields = Fields(((b"content-type", b"application/json"),) if raw else (), None, False, True, frozenset())
    request = HttpRequest(what.method.upper(), target, fields, raw is not None, raw)
    kind = next((d["type"] for d in holder["authorization_details"] if d["resource"] == target.resource), "")
    rules = compile_rules(scopes.read(holder["authorization_details"]), target.resource)
    try:
        permit = authorize(rules, _http_target(target.resource, kind, found), request)
    except ScopeError as error:
        return None, error.detail, error.enough, target.resource
    return (permit.index if permit else None), "", None, target.resource


def _http_target(name: str, kind: str, found: Mapping[str, Any] | None) -> HttpTarget:
    """Compile what is configured; an agent cannot look, and is told what its grant alone says."""
    settings = found["settings"] if found else {}
    provider = catalog.load().get(str(settings.get("provider")))
    destination = found["destination"] if found else "https://unseen.invalid"
    return HttpTarget(Resource(name, kind, destination, (), None, settings), provider)


def _lease(holder: Mapping[str, Any], wish: DetailLike) -> Judged:

    [detail] = scopes.parse([expand_one(wish, holder["authorization_details"])])
    index = scopes.cover(detail, scopes.read(holder["authorization_details"]))
    return index, "no detail of the grant covers it", scopes.dump((detail,))[0], detail.resource
