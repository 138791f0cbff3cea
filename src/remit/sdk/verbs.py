"""The six verbs, and what is around them, as flows: one conversation each, of no colour.

``Client.run(verbs.close(task))`` and ``await AsyncClient.run(verbs.close(task))`` do the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypedDict

from remit.errors import InvalidRequestError, NotFoundError, UpstreamError
from remit.sdk._wire import ApiCall, Flow, Json, ask, ask_list, ask_proven, check, decoded, encoded, quoted
from remit.sdk.detail import TTL, DetailLike, Details, Wishes, expand, expand_one, meant, name_of, seconds, whole
from remit.sdk.dpop import DPoPKey

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - the name of a type
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"  # noqa: S105 - as above
PEER = "urn:remit:peer"
GRANT = "urn:remit:grant"
METADATA = "/.well-known/oauth-authorization-server"
PAGE = 1_000  # audit entries asked for at once
DEFAULT_TTL = "15m"  # of a task


@dataclass(frozen=True, slots=True)
class Bounds:
    """What may hang below a grant: how long, how deep, how many, by whom, and whether it may be used itself.

    ``delegates`` are patterns of the attested workloads that may be children, ``unattested`` whether others may.
    """

    ttl: TTL | None = None
    depth: int = 0
    fan_out: int = 0
    exercise: bool = True
    delegates: Sequence[str] | None = None  # None: those of the parent
    unattested: bool = True


class BoundsOptions(TypedDict, total=False):
    """``Bounds`` as keyword arguments."""

    ttl: TTL | None
    depth: int
    fan_out: int
    exercise: bool
    delegates: Sequence[str] | None
    unattested: bool


@dataclass(frozen=True, slots=True)
class DPoPBinding:
    """What a token outside a run is bound to, and where it is renewed and used."""

    key: DPoPKey
    issuer: str
    endpoint: str  # the token endpoint's URL, which proofs name
    gateway: str | None = None


@dataclass(frozen=True, slots=True)
class TokenResponse:
    """A grant as its holder knows it. ``token`` is there only outside a run."""

    task: str
    grant: str
    expires_in: int | None  # seconds, of the token if there is one
    details: Details
    token: str | None = field(default=None, repr=False)
    bound_to: DPoPBinding | None = field(default=None, repr=False)
    nonce: str | None = None  # of the server that gave the token


@dataclass(frozen=True, slots=True)
class Report:
    """The truthful answer to a revoke. ``outstanding`` names what can still act, and until when.

    What is not ``recorded`` yet holds while the broker runs, which goes on trying.
    """

    state: str  # closed | partial | unknown
    revoked: int
    outstanding: Sequence[Json]
    residue: int
    recorded: bool = True


def open_task(
    purpose: str, grants: Wishes, bounds: Bounds, key: DPoPKey | None = None, id_token: str | None = None
) -> Flow[TokenResponse]:
    """Open a task at the operator's own socket, for the human of ``id_token`` or for the owner of the state.

    Names are expanded to the bound of their resource.
    """
    wishes = list(grants)
    known = yield from known_bounds(wishes)
    bound_to = None
    if key is not None:
        metadata = yield from ask(ApiCall("GET", METADATA))
        places = yield from self()
        bound_to = DPoPBinding(key, str(metadata["issuer"]), str(metadata["token_endpoint"]), places.get("gateway"))
    form = {"subject_token": "self", "subject_token_type": PEER, "purpose": purpose}
    if id_token is not None:
        form |= {"subject_token": id_token, "subject_token_type": ID_TOKEN}
    timed = bounds if bounds.ttl is not None else replace(bounds, ttl=DEFAULT_TTL)
    return (yield from exchange({**form, **grant_request(expand(wishes, known), timed)}, bound_to))


def known_bounds(wishes: Wishes) -> Flow[Details]:
    """Return the bounds of the resources that are wished for by name."""
    known: list[Json] = []
    for name in dict.fromkeys(name_of(wish) for wish in wishes if not whole(wish)):
        try:
            found = yield from resource(name)
        except NotFoundError as error:
            near = meant(name, [str(item.get("resource")) for item in (yield from resources())])
            raise NotFoundError(error.detail, help=near or error.help) from error
        known += found.get("bound") or []
    return known


def delegate(
    parent: str, known: Details, grants: Wishes, bounds: Bounds, label: str = "", bound_to: DPoPBinding | None = None
) -> Flow[TokenResponse]:
    """Make a child of a grant; names are expanded to the parent's only detail for them."""
    request = grant_request(expand(grants, known), bounds, label)
    return exchange({"subject_token": parent, "subject_token_type": GRANT, **request}, bound_to)


def grant_request(details: Details, bounds: Bounds, label: str = "") -> Json:
    """Return the members of a grant request, as JSON."""
    request: Json = {"authorization_details": list(details), "depth": bounds.depth, "fan_out": bounds.fan_out}
    request |= {"exercise": bounds.exercise, "unattested": bounds.unattested}
    request |= {} if bounds.ttl is None else {"ttl": seconds(bounds.ttl)}
    request |= {} if bounds.delegates is None else {"delegates": list(bounds.delegates)}
    return request | ({"label": label} if label else {})


def exchange(form: Json, bound_to: DPoPBinding | None) -> Flow[TokenResponse]:
    """Ask the token endpoint for a grant; in its form, text is as it is and all else JSON."""

    def call(members: Json) -> ApiCall:
        fields = {name: value if isinstance(value, str) else encoded(value) for name, value in members.items()}
        return ApiCall("POST", "/oauth/token", form=fields)

    request = {"grant_type": EXCHANGE, **form}
    if bound_to is None:
        return opened(decoded((yield call(request))))
    answer = yield from ask_proven(call, request, bound_to.key, bound_to.endpoint)
    return replace(opened(decoded(answer)), bound_to=bound_to, nonce=answer.headers.get("dpop-nonce"))


def opened(answer: Json) -> TokenResponse:
    """Read a grant from an answer of the broker."""
    try:
        details, token = answer["authorization_details"], answer.get("access_token")
        return TokenResponse(answer["task"], answer["grant"], answer.get("expires_in"), details, token)
    except (KeyError, TypeError, AttributeError) as error:
        raise UpstreamError("the broker's answer lacks a field") from error


def self() -> Flow[Json]:
    """Return the channel's own grant, its gateway and its database ports."""
    return ask(ApiCall("GET", "/v1/self"))


def identity() -> Flow[Json]:
    """Return whose word the broker takes for humans, and how one logs in there. Nothing in it is secret."""
    return ask(ApiCall("GET", "/v1/identity"))


def own(named: str | None = None) -> Flow[TokenResponse]:
    """Return the grant of the run that this process is in, or the one inside it that ``named`` says is its own."""
    found = opened((yield from self()))
    if named is None or named == found.grant:
        return found
    return replace(found, grant=named, details=details_of((yield from task(found.task)), named))


def end_runs() -> Flow[Json]:
    """End every run of a broker."""
    return ask(ApiCall("POST", "/v1/runs/end"))


def tasks() -> Flow[list[Json]]:
    return ask_list(ApiCall("GET", "/v1/tasks"), "tasks")


def task(task_id: str) -> Flow[Json]:
    """Return a task with all its grants and leases, page by page."""
    path = f"/v1/tasks/{quoted(task_id)}"
    found: Json = yield from ask(ApiCall("GET", path))
    while "next" in found:
        more: Json = yield from ask(ApiCall("GET", f"{path}?after={quoted(found.pop('next'))}"))
        found = {**more, **{nodes: [*found[nodes], *more[nodes]] for nodes in ("grants", "leases")}}
    return found


def find(node_id: str) -> Flow[Json]:
    """Return the task that holds a grant or a lease (``grt_…``, ``lse_…``), or that is it (``task_…``)."""
    if node_id.startswith("task_"):
        return (yield from task(node_id))
    noun = "lease" if node_id.startswith("lse_") else "grant"
    for known in reversed((yield from tasks())):
        found = yield from task(known["task"])
        if any(node.get(noun) == node_id for node in found.get(f"{noun}s", [])):
            return found
    raise NotFoundError(f"there is no `{node_id}`, or you may not know of it", help="see `remit tree`")


def details_of(task_document: Json, grant: str) -> Details:
    """Return the details of a grant of a task."""
    found = [node for node in task_document.get("grants", []) if node.get("grant") == grant]
    if not found:
        raise NotFoundError(f"there is no `{grant}` in this task")
    details: Details = found[0].get("authorization_details", [])
    return details


def issue(task_id: str, grant: str, wish: DetailLike, known: Details, key: str | None = None) -> Flow[Json]:
    """Make a credential for a detail of a grant. ``key`` (Idempotency-Key) first revokes its earlier lease."""
    body = {"grant": grant, "detail": expand_one(wish, known)}
    headers = {"Idempotency-Key": key} if key else {}
    return ask(ApiCall("POST", f"/v1/tasks/{quoted(task_id)}/leases", body=body, headers=headers))


def renew(lease: str, ttl: TTL) -> Flow[Json]:
    return ask(ApiCall("POST", f"/v1/leases/{quoted(lease)}/renew", body={"ttl": seconds(ttl)}))


def renew_task(task_id: str, ttl: TTL, id_token: str | None = None) -> Flow[Json]:
    """Let a task end later, at the operator's own socket, for the human of ``id_token`` or the owner of the state."""
    proof = {} if id_token is None else {"id_token": id_token}
    return ask(ApiCall("POST", f"/v1/tasks/{quoted(task_id)}/renew", body={"ttl": seconds(ttl), **proof}))


def revoke(task_id: str, grant: str) -> Flow[Report]:
    return _ended(f"/v1/tasks/{quoted(task_id)}/grants/{quoted(grant)}/revoke")


def revoke_lease(lease: str) -> Flow[Report]:
    return _ended(f"/v1/leases/{quoted(lease)}/revoke")


def close(task_id: str) -> Flow[Report]:
    return _ended(f"/v1/tasks/{quoted(task_id)}/close")


def end(node_id: str) -> Flow[Report]:
    """Revoke whatever an id names: a task, a grant with its subtree, or a lease."""
    if node_id.startswith("task_"):
        return (yield from close(node_id))
    if node_id.startswith("lse_"):
        return (yield from revoke_lease(node_id))
    if not node_id.startswith("grt_"):
        raise InvalidRequestError(f"`{node_id}` is not an id of a task, a grant or a lease", help="see `remit tree`")
    return (yield from revoke((yield from find(node_id))["task"], node_id))


def _ended(path: str) -> Flow[Report]:
    answer = yield from ask(ApiCall("POST", path, body={}))
    try:
        state, revoked = answer["state"], answer["revoked"]
        left, recorded = answer.get("outstanding", []), answer.get("recorded", True)
        return Report(state, revoked, left, answer.get("residue", 0), recorded)
    except (KeyError, TypeError) as error:
        raise UpstreamError("the broker's answer lacks a field") from error


def resources() -> Flow[list[Json]]:
    return ask_list(ApiCall("GET", "/v1/resources"), "resources")


def resource(name: str) -> Flow[Json]:
    return ask(ApiCall("GET", f"/v1/resources/{quoted(name)}"))


def put_resource(name: str, body: Json) -> Flow[Json]:
    """Add or replace a resource; the broker checks it at the target first."""
    return ask(ApiCall("PUT", f"/v1/resources/{quoted(name)}", body=body))


def check_resource(name: str) -> Flow[Json]:
    """Check a resource as it is configured, at its target if it has an engine; nothing is written."""
    return ask(ApiCall("POST", f"/v1/resources/{quoted(name)}/check", body={}))


def descriptions(name: str) -> Flow[Json]:
    """Return how the server of a resource was seen to describe itself: what was accepted, and what is held."""
    return ask(ApiCall("GET", f"/v1/resources/{quoted(name)}/descriptions"))


def description(name: str, s256: str) -> Flow[Json]:
    """Return one text of how a server describes itself, by its digest."""
    return ask(ApiCall("GET", f"/v1/resources/{quoted(name)}/descriptions/{quoted(s256)}"))


def accept_descriptions(name: str, chosen: Sequence[Json]) -> Flow[Json]:
    """Accept how a server describes items, each by `what`, `name` and the digest of the text that was looked at."""
    body = {"descriptions": list(chosen)}
    return ask(ApiCall("POST", f"/v1/resources/{quoted(name)}/descriptions/accept", body=body))


def delete_resource(name: str) -> Flow[Json]:
    return ask(ApiCall("DELETE", f"/v1/resources/{quoted(name)}"))


def put_secret(name: str, resource_name: str, value: str) -> Flow[Json]:
    return ask(ApiCall("PUT", f"/v1/secrets/{quoted(name)}", body={"resource": resource_name, "value": value}))


def connections() -> Flow[list[Json]]:
    return ask_list(ApiCall("GET", "/v1/connections"), "connections")


def connect(resource_name: str, id_token: str | None = None, scopes: Sequence[str] = ()) -> Flow[Json]:
    """Begin to connect the owner, or the human of an ID token, to the provider of a resource.

    ``scopes`` are asked for beside what the resource says, and what was let before.
    """
    told: Json = {"resource": resource_name, **({"id_token": id_token} if id_token else {})}
    told |= {"scopes": list(scopes)} if scopes else {}
    return ask(ApiCall("POST", "/v1/connections", body=told))


def confirm_connection(resource_name: str, begun: str, code: str) -> Flow[Json]:
    """Make the connection that was begun, by the code on the page that the browser came back to."""
    return ask(ApiCall("POST", f"/v1/connections/{quoted(resource_name)}/confirm", body={"begun": begun, "code": code}))


def disconnect(resource_name: str, human: str | None = None) -> Flow[Json]:
    body = {"human": human} if human else {}
    return ask(ApiCall("POST", f"/v1/connections/{quoted(resource_name)}/end", body=body))


def entries(start: int, limit: int = PAGE) -> Flow[list[Json]]:
    return ask_list(ApiCall("GET", "/v1/audit", query={"start": start, "limit": limit}), "entries")


def audit() -> Flow[Json]:
    """Return what the audit endpoint says about the log, with its last entries left out."""
    return ask(ApiCall("GET", "/v1/audit", query={"start": 0, "limit": 1}))


def checkpoint() -> Flow[str]:
    answer = yield ApiCall("GET", "/v1/audit/checkpoint")
    check(answer)
    return answer.text


def inclusion(seq: int, size: int) -> Flow[Json]:
    return ask(ApiCall("GET", "/v1/audit/proof/inclusion", query={"seq": seq, "size": size}))


def consistency(old: int, new: int) -> Flow[Json]:
    return ask(ApiCall("GET", "/v1/audit/proof/consistency", query={"from": old, "to": new}))
