"""Tasks, grants and leases: open, show, explain, delegate, issue, renew, revoke, close."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from remit.cli import options, sdk
from remit.cli.approval import request_parts
from remit.cli.login import AsOwner, session_token
from remit.cli.render import answer, detail_line, detail_lines, ended, granted, waiting
from remit.errors import DeniedError, NotFoundError


@dataclass(frozen=True, slots=True)
class TaskOptions(options.GrantOptions):
    """The options of a grant request that opens a task."""

    ttl: options.Ttl = "15m"


@options.expanded
def open_(
    purpose: Annotated[str, typer.Argument(help="What the task is for, in a sentence. It goes into the audit log.")],
    *,
    request: TaskOptions,
    as_owner: AsOwner = False,
    json: options.Json = False,
) -> None:
    """Open a task, and print its root grant. It is the task of whoever is logged in, else of this state's owner.

    \b
    Examples:
      remit open "draft the CFO summary" -r search -r warehouse:tables=sales.revenue --ttl 15m
      remit open "triage" -r github:actions=GET --depth 1 --fan-out 3 --json
    """
    details = request.details
    opened = sdk.ask(sdk.verbs.open_task(purpose, details, request.bounds, id_token=session_token(as_owner)))
    granted(opened, json, *detail_lines(opened.details), f"use it: remit run --grant {opened.grant} -- COMMAND")


def show(
    node: Annotated[str, typer.Argument(metavar="ID", help="A task, grant, lease or approval.")],
    json: options.Json = False,
) -> None:
    """Show a task, a grant, a lease or an approval, with everything that is known of it.

    \b
    Examples:
      remit show task_4pqRz0mZkq1uJb0f8w2c5A
      remit show grt_7VYx1bD0Qe2mNf3sK9h6Lw --json
    """
    if node.startswith("apr_"):
        document = sdk.ask(sdk.asking.approval(node))
        answer(json, document, *request_parts(document))
        return
    task = sdk.ask(sdk.verbs.find(node))
    nodes = [task, *task["grants"], *task["leases"]]
    found = next(item for item in nodes if node == (item.get("lease") or item.get("grant") or item["task"]))
    plain = {name: value for name, value in found.items() if not isinstance(value, list | dict)}
    about = {"posture": _posture(found)} if "posture" in found else {}
    answer(json, found, {**plain, **about, "task": task["task"], "subject": task["subject"]["sub"]}, *_held(found))


def _held(node: Mapping[str, Any]) -> Iterator[str]:
    yield from detail_lines(node.get("authorization_details", []))
    for grant in node.get("grants", []):
        until = f"until {grant['expires_at']}{', revoked' if grant['revoked'] else ''}"
        yield f"  grant {grant['grant']}  {grant['label'] or '-'}  {until}  {_posture(grant)}"
    for lease in node.get("leases", []):
        what = f"{lease['kind']} / {lease['resource']}"
        yield f"  lease {lease['lease']}  {what}  {lease['state']}, until {lease['expires_at']}"


def _posture(grant: Mapping[str, Any]) -> str:
    posture = grant["posture"]
    return f"isolation {posture['isolation']}, custody {posture['custody']}, at rest {posture['at_rest']}"


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
    from remit.compose.explain import Request, explained
    from remit.gateway.fronts.path import read_target

    options.kinds()  # whose details the grant has
    asked: Request | str | options.Detail
    match what:
        case [method, target] if target.startswith("/"):
            asked = Request(method, target, body)
        case [detail]:
            asked = options.loaded(detail) if detail.startswith("{") else options.wish(detail)
        case _:
            raise typer.BadParameter("write `METHOD /RESOURCE/PATH`, or one detail")
    task, resource = sdk.ask(sdk.verbs.find(grant)), None
    if isinstance(asked, Request):
        with suppress(DeniedError, NotFoundError):  # only the operator may look at it
            resource = sdk.ask(sdk.verbs.resource(read_target(asked.target.encode()).resource))
    found = explained(task, grant, asked, datetime.now(UTC), resource)
    document = {name: value for name, value in asdict(found).items() if value is not None}
    parts = ["allowed" if found.allowed else "refused", *(f"  {reason}" for reason in found.reasons)]
    parts += [] if found.by is None else [f"  by: {detail_line(found.by)}"]
    parts += [f"  {fact}" for fact in found.rests_on]
    parts += [] if found.enough is None else [f"  enough: {detail_line(found.enough)}"]
    answer(json, document, *parts)
    raise typer.Exit(0 if found.allowed else 1)


@options.expanded
def delegate(
    grant: options.GrantId,
    label: options.Label = "",
    *,
    request: options.GrantOptions,
    approval: Annotated[
        str | None,
        typer.Option(
            "--approval", metavar="APPROVAL", help="Make exactly what a human approved, in place of all else."
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Delegate a grant to a sub-agent, no wider than the grant it comes from, or as a human approved.

    \b
    Examples:
      remit delegate research -g grt_7VYx1bD0Qe2mNf3sK9h6Lw -r search:paths=/v1/search
      remit delegate -r search --ttl 5m           (in a run: from the run's own grant)
      remit delegate -g grt_7VYx1bD0Qe2mNf3sK9h6Lw --approval apr_2b6mTn9pQ4rVx0cZ
    """
    if approval is not None:
        document = sdk.ask(sdk.asking.approval(approval))
        if document["request"].get("parent") != grant:
            raise typer.BadParameter(f"this was not asked for under {grant}")
        child = sdk.ask(sdk.asking.taken(approval, grant))
    else:
        details = request.details
        known = sdk.verbs.details_of(sdk.ask(sdk.verbs.find(grant)), grant)
        child = sdk.ask(sdk.verbs.delegate(grant, known, details, request.bounds, label))
    granted(child, json, *detail_lines(child.details))


def issue(
    grant: options.GrantId,
    resource: Annotated[
        str, typer.Argument(metavar="NAME[:FIELD=VALUE,…]", help="A resource of the grant, narrowed by fields.")
    ] = "",
    grant_detail: Annotated[
        str | None, typer.Option("--grant-detail", "-d", metavar="JSON", help="A whole detail instead.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="KEY", help="Idempotency key: asking again revokes the earlier lease first."),
    ] = None,
    json: options.Json = False,
) -> None:
    """Issue a credential under a grant, and print it. It is shown once and not stored.

    \b
    Examples:
      remit issue -g grt_7VYx1bD0Qe2mNf3sK9h6Lw warehouse:tables=sales.revenue
      psql "$(remit issue warehouse --json | jq -r .credential.dsn)"
    """
    [wish] = options.wishes([resource] if resource else None, [grant_detail] if grant_detail else None)
    task = sdk.ask(sdk.verbs.find(grant))
    issued = sdk.ask(sdk.verbs.issue(task["task"], grant, wish, sdk.verbs.details_of(task, grant), key))
    answer(json, issued, {"lease": issued["lease"], "expires_at": issued["expires_at"], **issued["credential"]})


def renew(
    lease: Annotated[str, typer.Argument(metavar="LEASE", help="The lease.")],
    ttl: Annotated[str, options.lasting("From now on: 90s, 15m, 1h.")],
    json: options.Json = False,
) -> None:
    """Renew a lease in place, to the end of its grant at most; say so when that is sooner than asked.

    \b
    Examples:
      remit renew lse_0aJ9cE4dT1vXr8kPq5bS7g --ttl 10m
    """
    renewed = sdk.ask(sdk.verbs.renew(lease, ttl))
    sooner = ["it ends with its grant, and cannot be renewed beyond it"] if renewed.get("ends_with_grant") else []
    answer(json, renewed, {"lease": lease, "expires_at": renewed["expires_at"]}, *sooner)


def revoke(
    node: Annotated[str, typer.Argument(metavar="ID", help="A grant, a lease or a task.")], json: options.Json = False
) -> None:
    """Revoke a grant with everything below it, a lease, or a whole task; say truthfully what is outstanding.

    \b
    Examples:
      remit revoke grt_7VYx1bD0Qe2mNf3sK9h6Lw
      remit revoke lse_0aJ9cE4dT1vXr8kPq5bS7g --json
    """
    with waiting("revoking"):
        report = sdk.ask(sdk.verbs.end(node))
    ended(report, json)


def close(task: Annotated[str, typer.Argument(metavar="TASK", help="The task.")], json: options.Json = False) -> None:
    """Close a task: every grant and lease in it ends.

    \b
    Examples:
      remit close task_4pqRz0mZkq1uJb0f8w2c5A
    """
    with waiting("closing the task"):
        report = sdk.ask(sdk.verbs.close(task))
    ended(report, json)
