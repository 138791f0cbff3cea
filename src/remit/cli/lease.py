"""Leases: issue, renew."""

from __future__ import annotations

from typing import Annotated

import typer

from remit.cli import options
from remit.cli.connect import ask
from remit.cli.render import emit, lines, said


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
    from remit.sdk import verbs
    from remit.sdk.detail import name_of
    from remit.sdk.grant import local

    [wish] = options.wishes([resource] if resource else None, [grant_detail] if grant_detail else None)
    task = ask(verbs.find(grant))
    issued = ask(verbs.issue(task["task"], grant, wish, verbs.details_of(task, grant), key))
    ports = ask(verbs.self())["ports"]  # in a run its database is reached at the run's own port
    issued["credential"] = local(issued["credential"], ports.get(name_of(wish)))
    if json:
        emit(issued)
        return
    lines({"lease": issued["lease"], "expires_at": issued["expires_at"], **issued["credential"]})


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
    from remit.sdk import verbs

    renewed = ask(verbs.renew(lease, ttl))
    if json:
        emit(renewed)
        return
    lines({"lease": lease, "expires_at": renewed["expires_at"]})
    if renewed.get("ends_with_grant"):
        said("it ends with its grant, and cannot be renewed beyond it")
