"""The project's file: accept it as it is now, and make the request of a run from it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import unified_diff
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from remit.cli import options
from remit.cli.options import argument, option
from remit.cli.render import answer, safe
from remit.errors import DeniedError, InvalidRequestError, NotFoundError

if TYPE_CHECKING:
    from remit.config.project import AcceptedProject, FoundProject, ProjectBind, ProjectFile
    from remit.run.named import NamedVariable
    from remit.run.sandbox import Bind

Given = TypeVar("Given", bound=options.GrantOptions)
STEERS = "programs know this name: it decides what code they run, or whom they trust"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a command gets beside its authority: paths, the --env options, and variables that a project names."""

    binds: Sequence[Bind]
    env: Sequence[str]
    named: Sequence[NamedVariable] = ()


def allow(
    place: Annotated[Path | None, argument("[DIR]", "Where the project is; else the working directory.")] = None,
    yes: Annotated[bool, option("--yes", "Do not ask: for scripts that know what the file says.")] = False,
    json: options.Json = False,
) -> None:
    """Accept the project's file, remit.toml, as it is now: `remit run` without -r, -d or -g then goes by it.

    What has changed since it was last accepted is shown, and what it means. It counts until it changes, or until one of
    its binds leads elsewhere. A run cannot accept one.

    \b
    Examples:
      remit allow
      remit allow ~/shop --yes
    """
    found = _found(place or Path.cwd())
    if found is None:
        raise NotFoundError("there is no `remit.toml` here, nor above", help="docs/how-to/write-a-project-file.md")
    project = found.read()
    binds = project.binds(found.path.parent)  # looked at once: a run may put a link there while a human reads
    record = found.record(binds)
    accepted = record == found.before
    if not (accepted or json):
        answer(False, None, *_changes(found), "", *_meaning(found, project, binds), "")
    if not (accepted or yes):
        if not (sys.stdin.isatty() and sys.stdout.isatty()) or json:
            raise InvalidRequestError("there is nobody to ask: this is no terminal", help="look at the file; --yes")
        if not typer.confirm("Accept it?"):
            raise typer.Abort
    if not accepted:
        _keep(record)
    answer(json, {"file": str(found.path), "accepted": True, "changed": not accepted}, f"accepted: {found.path}")


def _found(place: Path) -> FoundProject | None:
    if os.environ.get("REMIT_GRANT"):
        raise DeniedError("a run accepts no project", help="whoever starts runs does, outside of them")
    from remit.config import project
    from remit.config.settings import places

    return project.find(place, Path(os.environ.get("HOME") or "/"), places(os.environ).state)


def _keep(record: AcceptedProject) -> None:
    import msgspec

    from remit.config.project import kept
    from remit.config.settings import places
    from remit.keys.file import write_private

    path = kept(places(os.environ).state, Path(record.path))
    for folder in (path.parents[1], path.parent):  # the state itself may be new, too
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(path, msgspec.json.encode(record), over=True)


def _changes(found: FoundProject) -> Iterator[str]:
    """Yield what has changed since the file was accepted, line by line; all of it is new if it never was."""
    before = found.before.text.split("\n") if found.before else []
    was = f"{found.path} {'as it was accepted' if found.before else '(never accepted)'}"
    yield from unified_diff(before, found.text.split("\n"), was, f"{found.path} now", lineterm="")


def _meaning(found: FoundProject, project: ProjectFile, binds: Sequence[ProjectBind]) -> Iterator[str]:
    """Yield what a run by this file has, one line each."""
    folder = found.path.parent
    yield "A run in this project then, without more options,"
    yield from (f"  may use        {text}" for text in project.resources)
    yield from (f"  reaches itself {host}: a way out for whatever it knows" for host in project.egress)
    bounds = {"ttl": project.ttl, "depth": project.depth, "fan_out": project.fan_out, "purpose": project.purpose}
    yield from (f"  {name:<14} {value}" for name, value in bounds.items() if value is not None)
    for bind in binds:
        outside = "" if bind.path.is_relative_to(folder) else "  (outside of the project)"
        yield f"  {'can write to' if bind.writable else 'can read':<14} {bind.path}{outside}"
    for each in project.variables:
        match each.source:
            case "placeholder":
                what = f"the placeholder of `{each.of}`"
            case "url":
                what = f"the URL of `{each.of}` at the gateway{each.path and f', with {each.path}'}"
            case "lease":
                what = f"a credential for `{each.of}`, which the command can hand on while the run lasts"
            case _:
                what = f"`{each.of}`"
        yield f"  has {each.name} = {what}{f'  ({STEERS})' if each.steers else ''}"


def completed(
    context: typer.Context, grant: str | None, request: Given, purpose: str | None, around: Surroundings
) -> tuple[Given, str | None, Surroundings]:
    """Return what a run asks for: where nothing is granted by options, the project's file stands for those not given.

    InvalidRequestError for a file that was not accepted as it is.
    """
    named_here = grant or request.resource or request.grant_detail  # not what a run reaches itself, on top of that
    found = None if named_here else _found(Path.cwd())
    if found is None:
        return request, purpose, around
    from remit.run.sandbox import Bind

    project, led = found.accepted()
    given = {name for name in context.params if getattr(context.get_parameter_source(name), "name", "") != "DEFAULT"}
    bounds: dict[str, Any] = {
        "ttl": options.duration(project.ttl),
        "depth": project.depth,
        "fan_out": project.fan_out,
        "resource": list(project.resources),
        "egress": list(project.egress),
    }
    taken = {name: value for name, value in bounds.items() if value is not None and name not in given}
    binds = [Bind(PurePosixPath(bind.path), bind.writable, straight=True) for bind in led]
    said = {text.partition("=")[0] for text in around.env}
    named = [each for each in project.variables if each.name not in said]
    texts = [f"{each.name}={each.of}" for each in named if not each.source]
    if not context.params["quiet"]:
        sys.stderr.write(f"note: by {safe(found.path)}\n")
    return (
        replace(request, **taken),
        purpose or project.purpose,
        Surroundings(around.binds or binds, (*texts, *around.env), tuple(each for each in named if each.source)),
    )
