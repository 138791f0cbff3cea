"""Resources: add, list, show, remove, check; their static secrets: set."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remit.cli import options
from remit.cli.connect import ask
from remit.cli.render import Table, answer, detail_line, emit, safe, said, waiting

if TYPE_CHECKING:
    from remit.ports.kind import Kind

app = options.group("What credentials are for, and how far they may go.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The resource.")]


@app.command("add")
def add(
    name: Name,
    destination: Annotated[
        str,
        typer.Argument(metavar="URL", help="Where its credential may go: https://host[:port][/base], postgresql://…"),
    ],
    bound: Annotated[
        list[str],
        typer.Option(
            "--bound",
            "-b",
            metavar="FIELD=VALUE,…|JSON",
            help="What no grant may exceed, once for each detail: actions=GET,paths=/v1/**,args=any",
        ),
    ],
    provider: Annotated[
        str | None, typer.Option("--provider", metavar="NAME", help="Of the catalog: where the key goes. http only.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--setting", metavar="NAME=JSON", help="A setting of its kind.")
    ] = None,
    accept: Annotated[
        list[str] | None,
        typer.Option("--accept", metavar="FINDING", help="Accept what checking the target found, by its name."),
    ] = None,
    secret: Annotated[
        bool, typer.Option("--secret", help="Read its static secret from stdin or a prompt, in the same step.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Add a resource, or replace one, which is asked about on a terminal; it is checked at the target first.

    \b
    Examples:
      remit resource add search https://api.search.example -b actions=GET,paths=/v1/**,args=any --secret
      remit resource add openai https://api.openai.com --provider openai -b actions=POST,paths=/v1/**,args=any
      remit resource add warehouse postgresql://remit@db.example:5432/sales --secret \\
          --setting 'tls="verify-full"' -b actions=select,tables=sales.revenue
    """
    from remit.core.scope import check_name
    from remit.sdk import verbs

    check_name(name)
    kind = _kind(destination)
    settings = dict(_setting(text) for text in setting or ())
    settings |= {"provider": provider} if provider else {}
    settings |= {"accept": accept} if accept else {}
    body: dict[str, Any] = {"kind": kind.name, "destination": destination, "settings": settings}
    body["bound"] = [_bound(name, kind.name, text) for text in bound]
    there = {_name(item): str(item["destination"]) for item in ask(verbs.resources())}.get(name)
    if there is not None:
        _confirm_replacing(name, there)
    if secret:
        body["secret"] = read_secret(name)
    with waiting("checking the target"):
        put = ask(verbs.put_resource(name, body))
    done = f"`{name}` is {'ready' if there is None else 'replaced'}"
    complete = put.get("secret") or kind.keyless
    answer(json, put, done if complete else f"`{name}` has no secret yet: remit secret set {name}")


def _confirm_replacing(name: str, destination: str) -> None:
    """Have whoever sits in front of it agree; a script goes on."""
    if not sys.stdin.isatty():
        return
    if not typer.confirm(safe(f"`{name}` is there already, for {destination}: replace all of it?"), err=True):
        said("nothing was changed")
        raise typer.Exit(1)


def _kind(destination: str) -> Kind:
    scheme, found, _ = destination.partition("://")
    known = options.kinds()
    for kind in known.values():
        if found and scheme in kind.schemes:
            return kind
    *most, last = [kind.destination for kind in known.values()]
    raise typer.BadParameter(f"a destination is {', '.join(most)} or {last}")


def _bound(name: str, kind: str, text: str) -> options.Detail:
    given = options.loaded(text) if text.startswith("{") else options.fields(text)
    return {"type": kind, "resource": name, **given}


def _setting(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter("a setting is written NAME=JSON")
    return name, options.loaded(value)


@app.command("list")
def list_(json: options.Json = False) -> None:
    """List the resources.

    \b
    Examples:
      remit resource list
    """
    from remit.sdk import verbs

    found = ask(verbs.resources())
    keyless = {kind.name for kind in options.kinds().values() if kind.keyless}
    secrets = ["yes" if item["secret"] else "-" if item["kind"] in keyless else "no" for item in found]
    rows = [(_name(item), item["kind"], item["destination"], has) for item, has in zip(found, secrets, strict=True)]
    answer(json, {"resources": found}, Table(("name", "kind", "destination", "secret"), rows))


def _name(item: Mapping[str, Any]) -> str:
    return str(item["resource"])


@app.command("show")
def show(name: Name, json: options.Json = False) -> None:
    """Show a resource and its bound. Its secret is never shown.

    \b
    Examples:
      remit resource show search
    """
    from remit.sdk import verbs

    found = ask(verbs.resource(name))
    plain = {key: value for key, value in found.items() if key != "bound"}
    answer(json, found, plain, "bound", *(f"  {detail_line(detail)}" for detail in found["bound"]))


@app.command("remove")
def remove(name: Name, json: options.Json = False) -> None:
    """Remove a resource on which no lease stands, and its secret.

    \b
    Examples:
      remit resource remove search
    """
    from remit.sdk import verbs

    ask(verbs.delete_resource(name))
    answer(json, {"resource": name, "removed": True}, f"`{name}` is removed")


@app.command("check")
def check(name: Name, json: options.Json = False) -> None:
    """Check a resource again; nothing is written, here or there.

    A database is asked, as when it was added: the login's powers, and what everybody has there. Of an http resource
    only the form of its destination, settings and bound is checked, and nothing is contacted.

    \b
    Examples:
      remit resource check warehouse
    """
    from remit.errors import ConflictError
    from remit.sdk import verbs

    with waiting("checking the target"):
        checked = ask(verbs.check_resource(name))
    found = checked["findings"]
    if found and json:
        emit(checked)
        raise typer.Exit(1)
    if found:
        hints = ", ".join(item["name"] for item in found if item["acceptable"])
        raise ConflictError(
            "; ".join(f"{item['name']}: {item['text']}" for item in found),
            help=f"fix it, or accept by name: {hints}" if hints else "fix it at the target",
        )
    well = "is as it should be" if checked["contacted"] else "is well formed; nothing was contacted"
    answer(json, checked, f"`{name}` {well}")


# -- static secrets: they come in by stdin or a prompt, never by the command line, and never out --------------------

secrets = options.group("Static secrets, sealed at rest.")


@secrets.callback()
def _secret_group() -> None:
    """Keep `set` a command of its own."""


@secrets.command("set")
def set_secret(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The resource whose secret it is.")],
    json: options.Json = False,
) -> None:
    """Set the static secret of a resource, from stdin or a prompt.

    \b
    Examples:
      remit secret set search                    (asks for it)
      pass show openai | remit secret set openai
    """
    from remit.sdk import verbs

    ask(verbs.put_secret(name, name, read_secret(name)))
    answer(json, {"secret": name, "stored": True}, f"the secret of `{name}` is stored, sealed to its destination")


def read_secret(name: str) -> str:
    """Return a secret from a prompt, or from stdin without its last newline."""
    if sys.stdin.isatty():
        import getpass

        return getpass.getpass(f"secret of {''.join(char for char in name if char.isprintable())}: ")
    text = sys.stdin.read(65_536)
    value = text.removesuffix("\n").removesuffix("\r")
    if not value:
        raise typer.BadParameter("stdin is empty")
    return value
