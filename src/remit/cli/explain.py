"""Explain: why a request would be allowed or refused, by the same judgement that the gateway and the broker make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import typer

from remit.cli import options
from remit.cli.connect import ask
from remit.cli.render import detail_line, emit, said, utc_now


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether, why, by which detail, and what would have been enough."""

    allowed: bool
    reasons: tuple[str, ...]
    by: Mapping[str, Any] | None = None
    enough: Mapping[str, Any] | None = None


def explain(
    grant: options.GrantId,
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="METHOD /RESOURCE/PATH | NAME[:FIELD=VALUE,…]",
            help="A request as it is made to the gateway, or a detail for which a credential is to be issued.",
        ),
    ],
    body: Annotated[str | None, typer.Option("--body", metavar="JSON", help="The request's JSON body.")] = None,
    json: options.Json = False,
) -> None:
    """Explain why a request would be allowed or refused, and what would be enough. Nothing is done.

    \b
    Examples:
      remit explain -g grt_7VYx1bD0Qe2mNf3sK9h6Lw GET '/search/v1/search?q=revenue'
      remit explain -g grt_7VYx1bD0Qe2mNf3sK9h6Lw warehouse:tables=sales.salaries
    """
    from remit.sdk import verbs

    task = ask(verbs.find(grant))
    answer = answered(task, grant, what, body, utc_now())
    if json:
        shown = {"allowed": answer.allowed, "reasons": answer.reasons, "by": answer.by, "enough": answer.enough}
        emit({name: value for name, value in shown.items() if value is not None})
    else:
        _tell(answer)
    raise typer.Exit(0 if answer.allowed else 1)


def _tell(answer: Answer) -> None:
    said("allowed" if answer.allowed else "refused")
    for reason in answer.reasons:
        said(f"  {reason}")
    if answer.by is not None:
        said(f"  by: {detail_line(answer.by)}")
    if answer.enough is not None:
        said(f"  enough: {detail_line(answer.enough)}")


def answered(task: Mapping[str, Any], grant: str, what: list[str], body: str | None, now: datetime) -> Answer:
    """Judge what a grant of a task would be used for."""
    by_id = {node["grant"]: node for node in task["grants"]}
    holder = by_id[grant]
    reasons = _ended(task, by_id, holder, now)
    if not holder["exercise"]:
        reasons.append("the grant may delegate, but not be used itself")
    request = len(what) == 2 and what[1].startswith("/")  # noqa: PLR2004 - a method and a path
    index, enough, resource = _request(holder, what, body) if request else _lease(holder, what)
    if index is None:
        found = [d for d in holder["authorization_details"] if d["resource"] == resource]
        reasons.append("no detail of the grant covers it" if found else f"the grant holds nothing for `{resource}`")
        return Answer(allowed=False, reasons=tuple(reasons), enough=enough)
    by = holder["authorization_details"][index]
    reasons += _spent(by_id, holder, index)
    if reasons:
        return Answer(allowed=False, reasons=tuple(reasons), by=by)
    return Answer(allowed=True, reasons=("the grant and all it comes from are live",), by=by)


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
    from remit.core import scope as scopes

    reasons = []
    for item in _lineage(by_id, node):
        detail = item["authorization_details"][index]
        if "uses" in detail and item["used"][index] >= detail["uses"]:
            reasons.append(f"the budget of {item['grant']} is used up ({detail['uses']} uses)")
        above = by_id.get(item["parent"])
        if above is None:
            break
        [narrow], wide = scopes.parse([detail]), scopes.parse(above["authorization_details"])
        index = scopes.cover(narrow, wide) or 0
    return reasons


Judged = tuple[int | None, Mapping[str, Any], str]  # the detail that covers it, what would be enough, the resource


def _request(holder: Mapping[str, Any], what: list[str], body: str | None) -> Judged:
    from remit.core import scope as scopes
    from remit.core.scope import Access
    from remit.gateway import canon

    target = canon.target(what[1].encode())
    args = {f"query.{name}": scopes.json_text(value) for name, value in canon.query_pairs(target.query)}
    if body is not None:
        args.update(canon.leaves(canon.json_body(body.encode())))
    access = Access("http", target.resource, what[0].upper(), target.path, args=args)
    enough: dict[str, Any] = {"type": "http", "resource": access.resource, "actions": [access.action]}
    enough["paths"] = [access.path]
    if args:
        enough["args"] = {name: {"exact": options.loaded(text)} for name, text in args.items()}
    return scopes.permitting(scopes.parse(holder["authorization_details"]), access), enough, access.resource


def _lease(holder: Mapping[str, Any], what: list[str]) -> Judged:
    from remit.core import scope as scopes
    from remit.sdk.detail import expand_one

    if len(what) != 1:
        raise typer.BadParameter("write `METHOD /RESOURCE/PATH`, or one detail")
    wish: Any = options.loaded(what[0]) if what[0].startswith("{") else options.wish(what[0])
    [detail] = scopes.parse([expand_one(wish, holder["authorization_details"])])
    index = scopes.cover(detail, scopes.parse(holder["authorization_details"]))
    return index, scopes.dump((detail,))[0], detail.resource
