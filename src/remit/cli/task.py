"""Tasks: open, show, close."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from remit.cli import options
from remit.cli.connect import ask
from remit.cli.login import AsOwner, session_token
from remit.cli.render import detail_line, emit, ended, lines, said, waiting


def open_(
    purpose: Annotated[str, typer.Argument(help="What the task is for, in a sentence. It goes into the audit log.")],
    resource: options.Resources = None,
    grant_detail: options.Details = None,
    ttl: options.Ttl = "15m",
    depth: options.Depth = 0,
    fan_out: options.FanOut = 0,
    exercise: options.Exercise = True,
    delegates: options.Delegates = None,
    unattested: options.Unattested = True,
    as_owner: AsOwner = False,
    json: options.Json = False,
) -> None:
    """Open a task, and print its root grant. It is the task of whoever is logged in, else of this state's owner.

    \b
    Examples:
      remit open "draft the CFO summary" -r search -r warehouse:tables=sales.revenue --ttl 15m
      remit open "triage" -r github:actions=GET --depth 1 --fan-out 3 --json
    """
    from remit.sdk import verbs

    wishes = options.wishes(resource, grant_detail)
    bounds = verbs.Bounds(ttl, depth, fan_out, exercise, delegates, unattested)
    opened = ask(verbs.open_task(purpose, wishes, bounds, id_token=session_token(as_owner)))
    if json:
        emit(written(opened))
        return
    lines({"task": opened.task, "grant": opened.grant, "ends in": f"{opened.expires_in} s"})
    for detail in opened.details:
        said(f"  {detail_line(detail)}")
    said(f"use it: remit run --grant {opened.grant} -- COMMAND")


def written(opened: object) -> dict[str, object]:
    """Return a grant that was opened or delegated as JSON."""
    names = {"task": "task", "grant": "grant", "expires_in": "expires_in", "details": "authorization_details"}
    return {to: getattr(opened, name) for name, to in names.items()}


def show(
    id: Annotated[str, typer.Argument(metavar="ID", help="A task, grant, lease or approval.")],  # noqa: A002 - as shown
    json: options.Json = False,
) -> None:
    """Show a task, a grant, a lease or an approval, with everything that is known of it.

    \b
    Examples:
      remit show task_4pqRz0mZkq1uJb0f8w2c5A
      remit show grt_7VYx1bD0Qe2mNf3sK9h6Lw --json
    """
    from remit.sdk import asking, verbs

    if id.startswith("apr_"):
        from remit.cli.approval import shown

        shown(ask(asking.approval(id)), json)
        return
    task = ask(verbs.find(id))
    nodes = [*task["grants"], *task["leases"]]
    found = task if id.startswith("task_") else next(node for node in nodes if id in {node.get("lease"), _own(node)})
    if json:
        emit(found)
        return
    plain = {name: value for name, value in found.items() if not isinstance(value, list | dict)}
    about = {"posture": _posture(found)} if "posture" in found else {}
    lines({**plain, **about, "task": task["task"], "subject": task["subject"]["sub"]})
    for detail in found.get("authorization_details", []):
        said(f"  {detail_line(detail)}")
    for grant in found.get("grants", []):
        state = ", revoked" if grant["revoked"] else ""
        said(
            f"  grant {grant['grant']}  {grant['label'] or '-'}  until {grant['expires_at']}{state}  {_posture(grant)}"
        )
    for lease in found.get("leases", []):
        what = f"{lease['kind']} / {lease['resource']}"
        said(f"  lease {lease['lease']}  {what}  {lease['state']}, until {lease['expires_at']}")


def _posture(grant: Mapping[str, Any]) -> str:
    posture = grant["posture"]
    return f"isolation {posture['isolation']}, custody {posture['custody']}, at rest {posture['at_rest']}"


def _own(node: dict[str, object]) -> object:
    return None if "lease" in node else node.get("grant")


def close(
    task: Annotated[str, typer.Argument(metavar="TASK", help="The task.")],
    json: options.Json = False,
) -> None:
    """Close a task: every grant and lease in it ends.

    \b
    Examples:
      remit close task_4pqRz0mZkq1uJb0f8w2c5A
    """
    from remit.sdk import verbs

    with waiting("closing the task"):
        report = ask(verbs.close(task))
    ended(report, json)
