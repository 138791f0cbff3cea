"""Grants and leases: delegate, issue, renew, revoke."""

from __future__ import annotations

from typing import Annotated

import typer

from remit.cli import options, sdk
from remit.cli.connect import ask
from remit.cli.render import answer, detail_lines, ended, granted, waiting


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
        document = ask(sdk.asking.approval(approval))
        if document["request"].get("parent") != grant:
            raise typer.BadParameter(f"this was not asked for under {grant}")
        child = ask(sdk.asking.taken(approval, grant))
    else:
        details = request.details
        known = sdk.verbs.details_of(ask(sdk.verbs.find(grant)), grant)
        child = ask(sdk.verbs.delegate(grant, known, details, request.bounds, label))
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
    task = ask(sdk.verbs.find(grant))
    issued = ask(sdk.verbs.issue(task["task"], grant, wish, sdk.verbs.details_of(task, grant), key))
    answer(json, issued, {"lease": issued["lease"], "expires_at": issued["expires_at"], **issued["credential"]})


def renew(
    lease: Annotated[str, typer.Argument(metavar="LEASE", help="The lease.")],
    ttl: Annotated[
        str, typer.Option("--ttl", metavar="TIME", callback=options.duration, help="From now on: 90s, 15m, 1h.")
    ],
    json: options.Json = False,
) -> None:
    """Renew a lease in place, to the end of its grant at most; say so when that is sooner than asked.

    \b
    Examples:
      remit renew lse_0aJ9cE4dT1vXr8kPq5bS7g --ttl 10m
    """
    renewed = ask(sdk.verbs.renew(lease, ttl))
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
        report = ask(sdk.verbs.end(node))
    ended(report, json)
