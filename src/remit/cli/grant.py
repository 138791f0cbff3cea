"""Grants: delegate, revoke."""

from __future__ import annotations

from typing import Annotated

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
    json: options.Json = False,
) -> None:
    """Delegate a grant to a sub-agent, no wider than the grant it comes from.

    \b
    Examples:
      remit delegate research -g grt_7VYx1bD0Qe2mNf3sK9h6Lw -r search:paths=/v1/search
      remit delegate -r search --ttl 5m           (in a run: from the run's own grant)
    """
    from remit.sdk import verbs

    wishes = options.wishes(resource, grant_detail)
    known = verbs.details_of(ask(verbs.find(grant)), grant)
    child = ask(verbs.delegate(grant, known, wishes, verbs.Bounds(ttl, depth, fan_out, exercise), label))
    if json:
        emit(written(child))
        return
    lines({"task": child.task, "grant": child.grant, "ends in": f"{child.expires_in} s"})
    for detail in child.details:
        said(f"  {detail_line(detail)}")


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
