"""What an agent may know of its own authority, and do to narrow it: the tools of ``mcp_server``, as plain values.

No answer has a token, a placeholder or a key in it: fields are named one by one, and in a run a child is its id, with
base URLs of its own. What lies not below the grant that this process was started under does not exist here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Unpack

from remit.errors import DeniedError, InvalidRequestError, NotFoundError
from remit.sdk import AsyncClient, AsyncGrant, Bounds, asking, verbs
from remit.sdk._wire import Json
from remit.sdk.asking import ApprovalRequest
from remit.sdk.verbs import BoundsOptions

MAX_SHOWN = 200  # grants of a tree; more are counted
NO_RUN = "this process is in no run, so there is no grant to show or to narrow"
START_IN_RUN = "start the client by `remit run -r RESOURCE -- CLIENT`, and it has one"
OWN = "this is the grant that you act under, and no child of it"
HUMAN = "a human decides on this, outside of runs; nothing that you or a tool says does"
NOT_BOTH = "say `approval` alone, or what is delegated in `grants`"

Judge = Callable[[Json, str, Mapping[str, Any]], Json]  # a task, a grant of it, a request -> whether, and why


class OwnAuthority:
    """The grant that a process acts under, and what hangs below it."""

    def __init__(self, client: AsyncClient, judge: Judge) -> None:
        self._client, self._judge = client, judge

    async def _own(self) -> AsyncGrant:
        if not self._client.place.in_run:
            raise DeniedError(NO_RUN, help=START_IN_RUN)
        return await self._client.own()

    async def show(self, would: Mapping[str, Any] | None = None) -> Json:
        """Return scope, time left, budgets and children; ``would`` is a request to judge, which is not made."""
        own = await self._own()
        task = await self._client.run(verbs.task(own.task_id))
        asked = await self._client.run(asking.approvals())
        node, below = _subtree(task, own.id)
        found: Json = {
            "grant": own.id,
            "task": task["task"],
            "purpose": task["purpose"],
            **_written(own, node),
            "children": _tree(below, own.id),
            "not_shown": max(0, len(below) - MAX_SHOWN),
            "asked": [_asked(item) for item in asked if _parent(item) in {own.id, *below}],
            "refused": list(_refused(node, below)),
        }
        return found if would is None else {**found, "would": self._judge(task, own.id, would)}

    async def delegate(
        self,
        label: str = "",
        grants: Sequence[Mapping[str, Any]] = (),
        approval: str | None = None,
        wait: int = 0,
        **bounds: Unpack[BoundsOptions],
    ) -> Json:
        """Make a child of the own grant, or exactly what a human approved, waiting so many seconds for them."""
        if (approval is None) != bool(grants):
            raise InvalidRequestError(NOT_BOTH, help="`ask_for_access` gives an approval's id")
        own = await self._own()
        if approval is None:
            return _child(await own.delegate(label, grants=grants, **bounds), label)
        item = await self._client.run(asking.approval(approval))
        _, below = _subtree(await self._client.run(verbs.task(own.task_id)), own.id)
        if _parent(item) not in {own.id, *below}:
            raise NotFoundError
        made = await self._client.run(asking.granted(ApprovalRequest(item), wait))
        return _child(AsyncGrant(self._client, made), str(item["request"].get("label", "")))

    async def ask(self, label: str, grants: Sequence[Mapping[str, Any]], **bounds: Unpack[BoundsOptions]) -> Json:
        """Ask the task's human for a child that exceeds the own grant."""
        own = await self._own()
        flow = asking.ask_for(own.id, own.details, grants, Bounds(**bounds), label)
        item = (await self._client.run(flow)).document
        return {
            **_asked(item),
            "initiated_by": "agent",
            "decides": item["approver"],
            "exceeds": list(item.get("exceeds", ())),
            "offending": list(item.get("offending", ())),
            "where": item["verification_uri"],
            "command": f"remit approve {item['approval']}",
            "next": f"{HUMAN}. When they have, `delegate` with this `approval` makes the child, once",
        }

    async def revoke(self, grant: str) -> Json:
        """End a grant below the own one, with all below it."""
        own = await self._own()
        if grant == own.id:
            raise DeniedError(OWN, help="`my_authority` lists the children; a human ends yours")
        _, below = _subtree(await self._client.run(verbs.task(own.task_id)), own.id)
        if grant not in below:
            raise NotFoundError
        report = await self._client.run(verbs.revoke(own.task_id, grant))
        left = [{name: item.get(name) for name in ("lease", "kind", "expires_at")} for item in report.outstanding]
        done = {"state": report.state, "revoked": report.revoked, "outstanding": left, "recorded": report.recorded}
        return {"grant": grant, **done}


def base_urls(grant: AsyncGrant) -> dict[str, str]:
    """Return where a grant's resources are in this run, of those that its gateway serves: its variables name them."""
    places = grant.environ().values()
    urls = {name: grant.url(name) for name in dict.fromkeys(str(each.get("resource")) for each in grant.details)}
    return {name: url for name, url in urls.items() if any(_at(each, url) for each in places)}


def _at(value: str, url: str) -> bool:
    return f"{value}/".startswith(f"{url}/")


def _subtree(task: Json, own: str) -> tuple[Json, dict[str, Json]]:
    """Return the node of a grant, and those below it: a parent stands before its children."""
    found, below = next((node for node in task["grants"] if node["grant"] == own), None), dict[str, Json]()
    if found is None:
        raise NotFoundError
    for node in task["grants"]:
        if node["parent"] == own or node["parent"] in below:
            below[node["grant"]] = node
    return found, below


def _written(own: AsyncGrant, node: Json) -> Json:
    return {**_node(node), "base_urls": base_urls(own), "depth": node["depth"], "fan_out": node["fan_out"]}


def _node(node: Json) -> Json:
    details, used = node["authorization_details"], node["used"]
    budgets = [
        {"resource": each["resource"], "uses": each["uses"], "left": max(0, each["uses"] - spent)}
        for each, spent in zip(details, used, strict=True)
        if isinstance(each.get("uses"), int)
    ]
    seconds = (datetime.fromisoformat(node["expires_at"]) - datetime.now(UTC)).total_seconds()
    return {
        "label": node["label"],
        "authorization_details": details,
        "expires_at": node["expires_at"],
        "seconds_left": 0 if node["revoked"] else max(0, int(seconds)),
        "revoked": bool(node["revoked"]),
        "exercise": node["exercise"],
        "budgets": budgets,
    }


def _tree(below: Mapping[str, Json], own: str) -> list[Json]:
    made: dict[str, Json] = {own: {"children": []}}
    for name, node in list(below.items())[:MAX_SHOWN]:
        made[name] = {"grant": name, **_node(node), "children": []}
        made[node["parent"]]["children"].append(made[name])
    children: list[Json] = made[own]["children"]
    return children


def _refused(node: Json, below: Mapping[str, Json]) -> Iterator[str]:
    """Say what would be refused, whatever it is that is asked for."""
    yield "whatever `authorization_details` does not name: another resource, path, action or argument"
    if not node["exercise"]:
        yield "every use of this grant itself: it may be delegated alone"
    for budget in _node(node)["budgets"]:
        if not budget["left"]:
            yield f"`{budget['resource']}`: all {budget['uses']} uses are spent"
    live = [each for each in below.values() if each["parent"] == node["grant"] and not each["revoked"]]
    if not node["depth"]:
        yield "a child: this grant may not be delegated (depth 0)"
    elif len(live) >= node["fan_out"]:
        yield f"one more child: there are {len(live)}, and {node['fan_out']} may live at once"
    yield "a child that is wider or lasts longer than this grant: `ask_for_access` asks a human for it"


def _parent(item: Json) -> str:
    return str(item["request"].get("parent"))


def _asked(item: Json) -> Json:
    return {name: item[name] for name in ("approval", "state", "expires_at")}


def _child(child: AsyncGrant, label: str) -> Json:
    urls, named = base_urls(child), {child.id, child.gateway}
    own = {
        name: value
        for name, value in child.environ().items()
        if value in named or any(_at(value, url) for url in urls.values())
    }
    places = ", ".join(f"{name} at {url}" for name, url in urls.items()) or "no base URL: start it by `remit run -g`"
    return {
        "grant": child.id,
        "label": label,
        "authorization_details": list(child.details),
        "seconds_left": child.opened.expires_in,
        "base_urls": urls,
        "environ": own,
        "tell": f"You act under the grant {child.id} and no other. You reach {places}. All else is refused",
    }
