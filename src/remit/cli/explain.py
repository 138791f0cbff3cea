"""Explain: why a request would be allowed or refused, by the same judgement that the gateway and the broker make."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remit.cli import options
from remit.cli.connect import ask
from remit.cli.render import answer, detail_line, utc_now

if TYPE_CHECKING:
    from remit.compose.explain import Explanation, Request
    from remit.sdk.detail import DetailLike


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
    from remit.sdk import verbs

    options.kinds()  # whose details the grant has
    asked = asked_about(what, body)
    task = ask(verbs.find(grant))
    found = explained(task, grant, asked, utc_now(), _configured(asked) if isinstance(asked, Request) else None)
    document = {name: value for name, value in asdict(found).items() if value is not None}
    answer(json, document, *_parts(found))
    raise typer.Exit(0 if found.allowed else 1)


def asked_about(what: list[str], body: str | None) -> Request | DetailLike:
    """Read what is asked about: a method and a path, or a detail."""
    from remit.compose.explain import Request

    if len(what) == 2 and what[1].startswith("/"):  # noqa: PLR2004 - those two
        return Request(what[0], what[1], body)
    if len(what) != 1:
        raise typer.BadParameter("write `METHOD /RESOURCE/PATH`, or one detail")
    found: DetailLike = options.loaded(what[0]) if what[0].startswith("{") else options.wish(what[0])
    return found


def _configured(what: Request) -> Mapping[str, Any] | None:
    """Return the resource that is asked about, if the caller may look at it: only the operator may."""
    from remit.errors import DeniedError, NotFoundError
    from remit.gateway.fronts.path import read_target
    from remit.sdk import verbs

    try:
        return ask(verbs.resource(read_target(what.target.encode()).resource))
    except (DeniedError, NotFoundError):
        return None


def _parts(found: Explanation) -> Iterator[str]:
    yield "allowed" if found.allowed else "refused"
    yield from (f"  {reason}" for reason in found.reasons)
    if found.by is not None:
        yield f"  by: {detail_line(found.by)}"
    yield from (f"  {fact}" for fact in found.rests_on)
    if found.enough is not None:
        yield f"  enough: {detail_line(found.enough)}"
