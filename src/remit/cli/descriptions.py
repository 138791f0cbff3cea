"""Descriptions of servers: what is held is shown beside what was accepted, and accepted by whoever has seen it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from remit.cli import options, sdk
from remit.cli.options import argument, option
from remit.cli.render import answer, said
from remit.errors import NotFoundError

Item = dict[str, Any]


def label(item: Item) -> str:
    """Return what an item is called on a command line: its name, or what it is where it has none."""
    return str(item["name"] or item["what"])


def held(name: str) -> list[Item]:
    """Return the items of a resource that are held."""
    return [item for item in sdk.ask(sdk.verbs.descriptions(name))["descriptions"] if item["state"] == "held"]


def changes(name: str, item: Item) -> Iterator[str]:
    """Yield how an item differs from what was accepted, line by line."""
    from difflib import unified_diff

    before = _lines(name, item["accepted"][-1]) if item["accepted"] else []
    yield f"{item['what']} {label(item)}: {'changed' if before else 'new'} at {item['changed_at']}"
    yield f"digest {item['pending']}"
    for line in unified_diff(before, _lines(name, item["pending"]), n=2, lineterm=""):
        if not line.startswith(("---", "+++", "@@")):
            yield f"  {line}"  # as all that is printed: what does not show is escaped


def _lines(name: str, s256: str) -> Sequence[str]:
    """Return a text that is kept, one value a line."""
    import json

    try:
        text = str(sdk.ask(sdk.verbs.description(name, s256))["text"])
    except NotFoundError:
        return ["(there was no room for its text)"]
    try:
        return json.dumps(json.loads(text), ensure_ascii=False, indent=1).split("\n")
    except ValueError:  # a worker wrote it
        return [text]


def accept(
    name: Annotated[str, argument("NAME", "The resource.")],
    items: Annotated[
        list[str] | None, argument("ITEM", "A tool, prompt, resource or `instructions` that is held; else all.")
    ] = None,
    digest: Annotated[
        list[str] | None, option("--digest DIGEST", "A text that was seen, where nobody can confirm.")
    ] = None,
    before: Annotated[
        bool, option("--before", "Go on with what was accepted before: the server has gone back to it.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Accept how a server describes its tools now. What is held is shown first, as it differs, and confirmed.

    Until then models do not see it, and calls of it are refused. Read it as what it is: text that every model which
    uses this server will take for instructions.

    \b
    Examples:
      remit resource accept github
      remit resource accept github create_issue
      remit resource accept github create_issue --digest 8kQ0yq8m3sVZr1n0T2vXw4b6c8d0e2f4g6h8i0j2k4l
    """
    found = [item for item in held(name) if label(item) in (items or [label(item)])]
    found = [item for item in found if digest is None or item["pending"] in digest]
    if before:
        found = [item for item in found if item["accepted"]]
    missing = {*(items or ())} - {label(item) for item in found}
    if missing or (digest and not found):
        raise NotFoundError(
            f"nothing of `{name}` is held under this {'name' if missing else 'digest'}",
            help=f"`remit resource show {name}` shows what is held",
        )
    if not found:
        answer(json, {"resource": name, "accepted": []}, f"nothing of `{name}` is held")
        return
    if digest is None:
        _confirm(name, found)
    chosen = [(item, item["accepted"][-1] if before else item["pending"]) for item in found]
    told = [{"what": item["what"], "name": item["name"], "s256": s256} for item, s256 in chosen]
    sdk.ask(sdk.verbs.accept_descriptions(name, told))
    answer(json, {"resource": name, "accepted": told}, *(f"accepted: {i['what']} {label(i)}" for i in found))


def _confirm(name: str, found: Sequence[Item]) -> None:
    if not sys.stdin.isatty():
        raise typer.BadParameter(
            f"nobody can confirm here: say which texts were seen, with --digest; `remit resource show {name}` has it"
        )
    for item in found:
        for line in changes(name, item):
            said(line)
    if not typer.confirm("accept this?"):
        said("nothing was accepted")
        raise typer.Exit(1)
