"""Tasks: open, show, close."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from remit.cli import options, sdk
from remit.cli.approval import request_parts
from remit.cli.connect import ask
from remit.cli.login import AsOwner, session_token
from remit.cli.render import answer, detail_lines, ended, granted, waiting


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
    opened = ask(sdk.verbs.open_task(purpose, details, request.bounds, id_token=session_token(as_owner)))
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
        document = ask(sdk.asking.approval(node))
        answer(json, document, *request_parts(document))
        return
    task = ask(sdk.verbs.find(node))
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


def close(task: Annotated[str, typer.Argument(metavar="TASK", help="The task.")], json: options.Json = False) -> None:
    """Close a task: every grant and lease in it ends.

    \b
    Examples:
      remit close task_4pqRz0mZkq1uJb0f8w2c5A
    """
    with waiting("closing the task"):
        report = ask(sdk.verbs.close(task))
    ended(report, json)
