"""Explain: why a request would be allowed or refused, by the same judgement that the gateway and the broker make."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer

from remit.cli import options, sdk
from remit.cli.connect import ask
from remit.cli.render import answer, detail_line
from remit.errors import DeniedError, NotFoundError


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
    task, resource = ask(sdk.verbs.find(grant)), None
    if isinstance(asked, Request):
        with suppress(DeniedError, NotFoundError):  # only the operator may look at it
            resource = ask(sdk.verbs.resource(read_target(asked.target.encode()).resource))
    found = explained(task, grant, asked, datetime.now(UTC), resource)
    document = {name: value for name, value in asdict(found).items() if value is not None}
    parts = ["allowed" if found.allowed else "refused", *(f"  {reason}" for reason in found.reasons)]
    parts += [] if found.by is None else [f"  by: {detail_line(found.by)}"]
    parts += [f"  {fact}" for fact in found.rests_on]
    parts += [] if found.enough is None else [f"  enough: {detail_line(found.enough)}"]
    answer(json, document, *parts)
    raise typer.Exit(0 if found.allowed else 1)
