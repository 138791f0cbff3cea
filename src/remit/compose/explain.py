"""Why a request would be allowed or refused, judged as the gateway and the broker judge it, from what the API tells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from remit import catalog
from remit.compose.kinds import BUILT_IN
from remit.core import scope as scopes
from remit.errors import InvalidRequestError, MethodError, NotFoundError, ScopeError
from remit.gateway.authorize import HttpRequest, authorize, compile_rules
from remit.gateway.conversation import Conversation
from remit.gateway.framing import Fields
from remit.gateway.fronts.path import read_target
from remit.gateway.mcp import descriptions, messages
from remit.gateway.mcp.rules import compile_messages, judge
from remit.gateway.target import HttpTarget
from remit.ports import Resource
from remit.ports.kind import GatewayAccess, Kind
from remit.sdk.detail import DetailLike, expand_one


@dataclass(frozen=True, slots=True)
class Request:
    """A request to the gateway: ``METHOD /RESOURCE/PATH``, and its JSON body, or message, if it has one."""

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
    kinds: Mapping[str, Kind] = BUILT_IN,
) -> Explanation:
    """Judge what a grant of a task would be used for, at a resource as it is configured, if the caller may know."""
    by_id = {node["grant"]: node for node in task["grants"]}
    holder = by_id[grant]
    line = [holder]  # the grant and those it comes from, as far up as the caller may see them
    while line[-1]["parent"] in by_id:
        line.append(by_id[line[-1]["parent"]])
    reasons = _ended(task, line, now)
    if not holder["exercise"]:
        reasons.append(f"the grant may delegate, but not be used itself ({holder.get('unusable') or 'advisory'})")
    if isinstance(what, Request):
        index, why, enough, name = _request(holder, what, resource, kinds)
    else:
        [detail] = scopes.parse([expand_one(what, holder["authorization_details"])])
        index = scopes.cover(detail, scopes.read(holder["authorization_details"]))
        why, enough, name = "no detail of the grant covers it", scopes.dump((detail,))[0], detail.resource
    if index is None:
        found = any(detail["resource"] == name for detail in holder["authorization_details"])
        reasons.append(why if found else f"the grant holds nothing for `{name}`")
        return Explanation(allowed=False, reasons=tuple(reasons), enough=enough)
    by, rests_on = holder["authorization_details"][index], tuple(_rests_on(line))
    reasons += _spent(line, index)
    said = tuple(reasons) or ("the grant and all it comes from are live",)
    return Explanation(allowed=not reasons, reasons=said, by=by, rests_on=rests_on)


def _rests_on(line: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Say who holds the grant, by whose word, and what on the way to it a human approved beyond the parent."""
    node = line[0]
    attested = "attested" if node.get("attested") else "not attested"
    yield f"held by {node.get('agent', node['grant'])} ({attested})"
    version = node.get("policy")
    if version and not version.startswith("local-"):  # else no policies are written down
        yield f"allowed by policies {version}"
    for item in line:
        if item.get("approval"):
            yield f"{item['grant']} was approved by a human: {item['approval']}"


def _ended(task: Mapping[str, Any], line: Sequence[Mapping[str, Any]], now: datetime) -> list[str]:
    if task["closed"]:
        return ["the task is closed"]
    revoked = [f"{item['grant']} was revoked" for item in line if item["revoked"]]
    return revoked or [
        f"{item['grant']} has expired" for item in line if datetime.fromisoformat(item["expires_at"]) <= now
    ]


def _spent(line: Sequence[Mapping[str, Any]], index: int) -> list[str]:
    """Say which budget on the way up is used up."""
    reasons = []
    for item, above in zip(line, [*line[1:], None], strict=True):
        detail = item["authorization_details"][index]
        if "uses" in detail and item["used"][index] >= detail["uses"]:
            reasons.append(f"the budget of {item['grant']} is used up ({detail['uses']} uses)")
        if above is None or index in item.get("approved", ()):  # covered by an approval alone
            break
        [narrow], wide = scopes.parse([detail]), scopes.parse(above["authorization_details"])
        index = scopes.cover(narrow, wide) or 0
    return reasons


Judged = tuple[int | None, str, Mapping[str, Any] | None, str]  # covering detail, else why and what is enough; resource


def _request(
    holder: Mapping[str, Any], what: Request, found: Mapping[str, Any] | None, kinds: Mapping[str, Kind]
) -> Judged:
    target = read_target(what.target.encode())
    if target.grant not in {None, holder["grant"]}:
        raise InvalidRequestError(f"the URL names another grant: {target.grant}", help="explain that one with --grant")
    raw = None if what.body is None else what.body.encode()
    fields = Fields(((b"content-type", b"application/json"),) if raw else (), None, False, True, frozenset())
    request = HttpRequest(what.method.upper(), target, fields, raw is not None, raw)
    kind = next((d["type"] for d in holder["authorization_details"] if d["resource"] == target.resource), "")
    access = kinds[kind].access if kind in kinds else None
    if access is not None and not isinstance(access, GatewayAccess):
        raise InvalidRequestError(f"`{target.resource}` takes no requests", help="`remit explain` judges details of it")
    said = access is not None and access.messages  # where it is said to changes nothing
    settings = found["settings"] if found and not said else {}  # an agent cannot look: its grant alone says
    destination = found["destination"] if found and not said else "https://unseen.invalid"
    there, judged = Resource(target.resource, kind, destination, (), None, settings), _message if said else _plain
    try:
        return judged(scopes.read(holder["authorization_details"]), there, request), "", None, target.resource
    except (MethodError, NotFoundError, ScopeError) as error:
        return None, error.detail, error.enough, target.resource


def _plain(scope: scopes.Scope, there: Resource, request: HttpRequest) -> int | None:
    """Return the index of the detail that permits a request; None where there is none for its resource."""
    provider = catalog.load().get(str(there.settings.get("provider")))
    permit = authorize(compile_rules(scope, there.name), HttpTarget(there, provider), request)
    return permit.index if permit else None


def _message(scope: scopes.Scope, there: Resource, request: HttpRequest) -> int:
    """Return the same for a message to a server that speaks MCP, or for what opens a stream of it or ends a session."""
    rules = compile_messages(scope, there.name)
    Conversation(rules, HttpTarget(there, None, messages=True), "", b"", "", descriptions.nothing).check(request)
    if request.body is None:
        return rules[0].index
    said = messages.read(request.body)
    if "requestState" in said.params:
        raise InvalidRequestError("a state that is handed back cannot be judged beforehand", help="leave it out")
    return judge(rules, said, there.kind, there.name).index
