"""Grants: delegate, revoke."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from remit.cli import options
from remit.cli.connect import ask
from remit.cli.render import detail_line, emit, ended, lines, said, waiting
from remit.cli.task import written


def delegate(
    grant: options.GrantId,
    label: Annotated[str, typer.Argument(help="What the child is called, for people to read.")] = "",
    resource: options.Resources = None,
    grant_detail: options.Details = None,
    ttl: options.Ttl = None,
    depth: options.Depth = 0,
    fan_out: options.FanOut = 0,
    exercise: options.Exercise = True,
    delegates: options.Delegates = None,
    unattested: options.Unattested = True,
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
    from remit.sdk import asking, verbs

    if approval is not None:
        child = ask(asking.taken(_asked_for(grant, ask(asking.approval(approval)))))
    else:
        wishes = options.wishes(resource, grant_detail)
        known = verbs.details_of(ask(verbs.find(grant)), grant)
        bounds = verbs.Bounds(ttl, depth, fan_out, exercise, delegates, unattested)
        child = ask(verbs.delegate(grant, known, wishes, bounds, label))
    if json:
        emit(written(child))
        return
    lines({"task": child.task, "grant": child.grant, "ends in": f"{child.expires_in} s"})
    for detail in child.details:
        said(f"  {detail_line(detail)}")


def _asked_for(grant: str, document: dict[str, Any]) -> dict[str, Any]:
    if document["request"].get("parent") != grant:
        raise typer.BadParameter(f"this was not asked for under {grant}")
    return document


def revoke(
    id: Annotated[str, typer.Argument(metavar="ID", help="A grant, a lease or a task.")],  # noqa: A002 - as shown
    json: options.Json = False,
) -> None:
    """Revoke a grant with everything below it, a lease, or a whole task; say truthfully what is outstanding.

    \b
    Examples:
      remit revoke grt_7VYx1bD0Qe2mNf3sK9h6Lw
      remit revoke lse_0aJ9cE4dT1vXr8kPq5bS7g --json
    """
    from remit.sdk import verbs

    with waiting("revoking"):
        report = ask(verbs.end(id))
    ended(report, json)
