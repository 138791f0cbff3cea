"""Resources: add, list, show, remove, check; their static secrets: set."""

from __future__ import annotations

import getpass
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remit.cli import descriptions, options, sdk
from remit.cli.options import argument, option
from remit.cli.render import Table, answer, detail_lines, waiting
from remit.core.scope import check_name
from remit.errors import ConflictError, InvalidRequestError

if TYPE_CHECKING:
    from remit.ports.kind import Kind

app = options.group("resource", "What credentials are for, and how far they may go.")

Name = Annotated[str, argument("NAME", "The resource.")]


@app.command("add")
def add(
    name: Name,
    destination: Annotated[
        str, argument("URL", "Where its credential may go: https://host[:port][/base], postgresql://…")
    ],
    bound: Annotated[
        list[str] | None,
        option(
            "--bound -b FIELD=VALUE,…|JSON",
            "What no grant may exceed, once for each detail: actions=GET,paths=/v1/**,args=any; of hosts all.",
        ),
    ] = None,
    provider: Annotated[str | None, option("--provider NAME", "Of the catalog: where the key goes. http only.")] = None,
    setting: Annotated[
        list[str] | None,
        option("--setting NAME=JSON", "A setting of its kind, of those on its page: scram_iterations=1."),
    ] = None,
    accept: Annotated[
        list[str] | None, option("--accept FINDING", "Accept what checking the target found, by its name.")
    ] = None,
    secret: Annotated[
        bool, option("--secret", "Read its static secret from stdin or a prompt, in the same step.")
    ] = False,
    replace: Annotated[bool, option("--replace", "Put it in place of the resource of that name.")] = False,
    json: options.Json = False,
) -> None:
    """Add a resource, or replace all of one with --replace; it is checked at the target first.

    \b
    Examples:
      remit resource add search https://api.search.example -b actions=GET,paths=/v1/**,args=any --secret
      remit resource add openai https://api.openai.com --provider openai -b actions=POST,paths=/v1/**,args=any
      remit resource add warehouse postgresql://remit@db.example:5432/sales --secret \\
          --setting 'tls="verify-full"' -b actions=select,tables=sales.revenue
    """
    check_name(name)
    kind = kind_of(destination)
    settings: dict[str, Any] = {}
    for text in setting or ():
        field, equals, value = text.partition("=")
        if not equals:
            raise typer.BadParameter("a setting is written NAME=JSON")
        settings[field] = options.loaded(value)
    settings |= {"provider": provider} if provider else {}
    settings |= {"accept": accept} if accept else {}
    body: dict[str, Any] = {"kind": kind.name, "destination": destination, "settings": settings, "bound": []}
    given = [options.loaded(text) if text.startswith("{") else options.fields(text) for text in bound or ()]
    if not given:
        if kind.widest is None:
            raise typer.BadParameter("say what no grant may exceed, with --bound")
        given = [kind.widest(destination)]
    body["bound"] = [{"type": kind.name, "resource": name, **each} for each in given]
    there = {item["resource"]: item["destination"] for item in sdk.ask(sdk.verbs.resources())}.get(name)
    if there is not None and not replace:
        raise ConflictError(f"`{name}` is there already, for {there}", help="--replace puts this in place of all of it")
    if secret:
        body["secret"] = read_secret(name)
    with waiting("checking the target"):
        put = sdk.ask(sdk.verbs.put_resource(name, body))
    done = f"`{name}` is {'ready' if there is None else 'replaced'}"
    missing = f"`{name}` has no secret yet: remit secret set {name}"
    if "oauth" in settings:
        missing = f"{done}; each human connects it: remit connect {name}"
    elif kind.messages:
        missing = f"{done}, without a key; where the server wants one: remit secret set {name}"
    complete = put.get("secret") or kind.keyless or kind.is_command(destination)
    answer(json, put, done if complete else missing)


def kind_of(destination: str) -> Kind:
    scheme, found, _ = destination.partition(":")
    known = options.kinds().values()
    for kind in known:
        if found and scheme in kind.schemes:
            return kind
    *most, last = [kind.destination for kind in known]
    raise typer.BadParameter(f"a destination is {', '.join(most)} or {last}")


@app.command("list")
def list_(json: options.Json = False) -> None:
    """List the resources, and what of how their servers describe themselves is held.

    \b
    Examples:
      remit resource list
    """
    found = sdk.ask(sdk.verbs.resources())
    kinds = options.kinds()
    rows = []
    for item in found:
        kind = kinds.get(item["kind"])
        keyless = kind is not None and (kind.keyless or kind.is_command(item["destination"]))
        secret = "yes" if item["secret"] else "-" if keyless else "no"
        accepted = ", ".join(map(str, item["settings"].get("accept", ()))) or "-"
        rows.append((item["resource"], item["kind"], item["destination"], secret, accepted))
        if kind is not None and kind.messages:
            item["held"] = [descriptions.label(each) for each in descriptions.held(item["resource"])]
    held = [f"held of {i['resource']}: {', '.join(i['held'])}" for i in found if i.get("held")]
    answer(json, {"resources": found}, Table(("name", "kind", "destination", "secret", "accepted"), rows), *held)


@app.command("show")
def show(name: Name, json: options.Json = False) -> None:
    """Show a resource, its bound, and how its server describes what is held. Its secret is never shown.

    \b
    Examples:
      remit resource show search
    """
    found = sdk.ask(sdk.verbs.resource(name))
    plain = {key: value for key, value in found.items() if key != "bound"}
    held: list[descriptions.Item] = []
    kind = options.kinds().get(found["kind"])
    if kind is not None and kind.messages:
        held = found["held"] = descriptions.held(name)
    changes = [line for item in held for line in ("", *descriptions.changes(name, item))]
    accepts = [*changes, "", f"held until a human accepts it: remit resource accept {name}"] if held else []
    answer(json, found, plain, "bound", *detail_lines(found["bound"]), *accepts)


@app.command("remove")
def remove(name: Name, json: options.Json = False) -> None:
    """Remove a resource on which no lease stands, and its secret.

    \b
    Examples:
      remit resource remove search
    """
    sdk.ask(sdk.verbs.delete_resource(name))
    answer(json, {"resource": name, "removed": True}, f"`{name}` is removed")


@app.command("check")
def check(name: Name, json: options.Json = False) -> None:
    """Check a resource again; nothing is written, here or there.

    A database is asked, as when it was added: the login's powers, and what everybody has there. Of an http resource
    only the form of its destination, settings, bound and secret is checked; nothing is contacted.

    \b
    Examples:
      remit resource check warehouse
    """
    with waiting("checking the target"):
        checked = sdk.ask(sdk.verbs.check_resource(name))
    found = [item for item in checked["findings"] if not item["accepted"]]
    if json or not found:
        well = "is as it should be" if checked["contacted"] else "is well formed; nothing was contacted"
        stands = [f"accepted, and it stands: {i['name']}: {i['text']}" for i in checked["findings"] if i["accepted"]]
        answer(json, checked, f"`{name}` {'is as it was accepted' if stands else well}", *stands)
        raise typer.Exit(int(bool(found)))
    hints = ", ".join(item["name"] for item in found if item["acceptable"])
    raise ConflictError(
        "; ".join(f"{item['name']}: {item['text']}" for item in found),
        help=f"fix it, or accept by name: {hints}" if hints else "fix it at the target",
    )


@app.command("test")
def try_key(name: Name, json: options.Json = False) -> None:
    """Test the key of an http resource: one GET that its provider's entry in the catalog names.

    It is a request of a run like any other: the resource's bound has to permit it, and the audit has it. What is told
    is the status and the time; nobody reads the answer. Exits with 1 unless the key works.

    \b
    Examples:
      remit resource test openai
    """
    from remit.catalog import load
    from remit.cli.tested import tested
    from remit.compose import kinds

    found = sdk.ask(sdk.verbs.resource(name))
    kinds.on_this_machine(os.environ)  # with providers of one's own
    provider = load().get(str(found["settings"].get("provider")))
    if provider is None or provider.check is None:
        raise InvalidRequestError(
            f"no request is known that tests the key of `{name}`",
            help="`check` of its provider in the catalog says one",
        )
    with waiting("asking the provider"):
        told = tested(found, provider.check)
    says = {True: "works", False: "does not work", None: "may or may not work"}[told["works"]]
    answer(json, told, f"the key of `{name}` {says}: {told['status']} after {told['milliseconds']} ms")
    raise typer.Exit(int(told["works"] is not True))


app.command("accept")(descriptions.accept)
secrets = options.group("secret", "Static secrets, sealed at rest.")


secrets.callback()(lambda: None)  # keeps `set` a command of its own


@secrets.command("set")
def set_secret(
    name: Annotated[str, argument("NAME", "The resource whose secret it is.")], json: options.Json = False
) -> None:
    """Set the static secret of a resource, from stdin or a prompt.

    \b
    Examples:
      remit secret set search                    (asks for it)
      pass show openai | remit secret set openai
    """
    sdk.ask(sdk.verbs.put_secret(name, name, read_secret(name)))
    answer(json, {"secret": name, "stored": True}, f"the secret of `{name}` is stored, sealed to its destination")


def read_secret(name: str) -> str:
    """Return a secret from a prompt, or from stdin without its last newline: never from the command line."""
    if sys.stdin.isatty():
        return getpass.getpass(f"secret of {''.join(char for char in name if char.isprintable())}: ")
    text = sys.stdin.read(65_536)
    value = text.removesuffix("\n").removesuffix("\r")
    if not value:
        raise typer.BadParameter("stdin is empty")
    return value
