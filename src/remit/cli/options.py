"""Options that several commands share, and how what is written in them is read."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand

from remit.cli import ids, sdk
from remit.errors import InvalidRequestError

if TYPE_CHECKING:
    from remit.config.settings import Settings
    from remit.ports.kind import Kind

Detail = dict[str, object]

_FIELD = re.compile(r"[a-z_]+=")


def option(names: str, text: str, **more: Any) -> Any:
    """Return an option with its help. ``names`` is as the help shows it: ``--grant -g GRANT``; a flag has no value."""
    words = names.split()
    metavar = words.pop() if not words[-1].startswith("-") else None
    return typer.Option(*words, metavar=metavar, help=text, **more)


def argument(metavar: str | None, text: str, **more: Any) -> Any:
    return typer.Argument(metavar=metavar, help=text, **more)


def seconds(text: str) -> int:
    from remit.sdk.detail import seconds as read

    try:
        return read(text)
    except InvalidRequestError as error:
        raise typer.BadParameter(error.detail) from error


def duration(text: str | None) -> str | None:
    """Refuse what is not a duration."""
    return None if text is None else f"{seconds(text)}s"


Json = Annotated[bool, option("--json", "Print one JSON object.")]
GrantId = Annotated[
    str, option("--grant -g GRANT", "The grant it comes from.", envvar="REMIT_GRANT", callback=ids.of("grant"))
]
Label = Annotated[str, argument("[LABEL]", "What the child is called, for people to read.")]
Ttl = Annotated[str | None, option("--ttl TIME", "How long at most: 90s, 15m, 1h.", callback=duration)]


@dataclass(frozen=True, slots=True)
class GrantOptions:
    """The options of a grant request: its details, and its bounds."""

    resource: Annotated[
        list[str] | None,
        option(
            "--resource -r NAME[:FIELD=VALUE,…]",
            "A resource, as wide as it is here; fields narrow it: search:paths=/v1/search,actions=GET",
        ),
    ] = None
    grant_detail: Annotated[
        list[str] | None, option("--grant-detail -d JSON", "A whole detail, or an array of them.")
    ] = None
    ttl: Ttl = None
    depth: Annotated[int, option("--depth COUNT", "How many hops of delegation may follow.", min=0)] = 0
    fan_out: Annotated[int, option("--fan-out COUNT", "How many live children each grant may have.", min=0)] = 0
    exercise: Annotated[
        bool, option("--exercise/--no-exercise", "Whether it may be used itself, or delegated alone.")
    ] = True
    delegates: Annotated[
        list[str] | None,
        option(
            "--delegate-to PATTERN",
            "Which attested workloads may be children: spiffe://domain/path/*, or * for all; else as the parent.",
        ),
    ] = None
    unattested: Annotated[
        bool, option("--unattested/--attested-only", "Whether a child may be one that nobody attested.")
    ] = True

    @property
    def details(self) -> list[str | Detail]:
        return wishes(self.resource, self.grant_detail)

    @property
    def bounds(self) -> sdk.verbs.Bounds:
        return sdk.verbs.Bounds(self.ttl, self.depth, self.fan_out, self.exercise, self.delegates, self.unattested)


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command, in place of each parameter that is a dataclass of options, all of these options."""
    signature = inspect.signature(command, eval_str=True)
    own = {name: _own(one) for name, one in signature.parameters.items() if is_dataclass(one.annotation)}
    parameters = [one for name, each in signature.parameters.items() for one in own.get(name, [each])]

    @wraps(command)
    def called(**given: Any) -> None:
        for name, options in own.items():
            read = {one.name: given.pop(one.name) for one in options}
            given[name] = signature.parameters[name].annotation(**read)
        command(**given)

    vars(called)["__signature__"] = signature.replace(parameters=parameters)  # what typer reads
    return called


def _own(whole: inspect.Parameter) -> list[inspect.Parameter]:
    hints = get_type_hints(whole.annotation, include_extras=True)
    return [
        whole.replace(name=item.name, default=item.default, annotation=hints[item.name])
        for item in dataclasses.fields(whole.annotation)
    ]


def settings() -> Settings:
    from remit.config.settings import load

    return load(os.environ)


def kinds() -> Mapping[str, Kind]:
    from remit.compose.kinds import on_this_machine

    return on_this_machine(os.environ)


def group(noun: str, text: str) -> typer.Typer:
    return Commands(name=noun, help=text, no_args_is_help=True, rich_markup_mode=None)


class PlainHelp(TyperCommand):
    """A command whose help has no types of Python in it."""

    def get_help(self, ctx: Any) -> str:
        return re.sub(r"<[a-z][a-z \[\]]*>", lambda found: " " * len(found[0]), super().get_help(ctx))


class Commands(typer.Typer):
    """Commands of one noun, or of none."""

    def command(self, name: str | None = None, **more: Any) -> Callable[[Any], Any]:
        return super().command(name, cls=PlainHelp, **more)


def wishes(resources: Sequence[str] | None, details: Sequence[str] | None) -> list[str | Detail]:
    """Return what is asked for by --resource and --grant-detail, in that order."""
    found: list[str | Detail] = [wish(text) for text in resources or ()]
    for text in details or ():
        read = loaded(text)
        objects = read if isinstance(read, list) else [read]
        if not all(isinstance(item, dict) for item in objects):
            raise typer.BadParameter("a detail is a JSON object")
        found += objects
    if not found:
        raise typer.BadParameter("say what is granted, with --resource or --grant-detail")
    return found


def wish(text: str) -> str | Detail:
    """Read ``NAME`` or ``NAME:FIELD=VALUE,…``; a part without ``=`` is one more value of the field before it."""
    name, colon, rest = text.partition(":")
    return {"resource": name, **fields(rest)} if colon else name


def fields(text: str) -> Detail:
    """Read ``FIELD=VALUE,VALUE,FIELD=VALUE``."""
    read: dict[str, list[str]] = {}
    name = ""
    for part in text.split(","):
        value = part
        if _FIELD.match(part):
            name, _, value = part.partition("=")
        if not name:
            raise typer.BadParameter(f"`{part}` is not of the form FIELD=VALUE")
        read.setdefault(name, []).append(value)
    shapes = {name: row.order.schema.get("type") for kind in kinds().values() for name, row in kind.table.items()}
    found: Detail = {}
    for name, values in read.items():
        whole = ",".join(values)
        if shapes.get(name) == "array":
            found[name] = values
        elif name == "ttl":
            found[name] = seconds(whole)
        elif shapes.get(name) == "integer" and whole.isascii() and whole.isdigit():
            found[name] = int(whole)
        else:
            found[name] = loaded(whole) if whole.startswith(("{", "[")) else whole
    return found


def loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"this is not JSON: {error}") from error
