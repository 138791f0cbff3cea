"""Have a project brokered: its keys go to the sealed store, and its files say where they are to be had."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from remit.cli import options, project, sdk
from remit.cli.options import argument, option
from remit.cli.render import Table, answer, safe
from remit.cli.resource import kind_of
from remit.errors import DeniedError, InvalidRequestError

if TYPE_CHECKING:
    from remit.config.backups import Backups, KeptFile
    from remit.config.brokering import FoundKey, Survey
    from remit.config.clients import Moved
    from remit.config.folder import Folder

BOUND = "actions=GET,HEAD,POST,PUT,PATCH,DELETE,paths=/**,args=any"


@dataclass(frozen=True, slots=True)
class KeyTarget:
    """The resource that a key goes to: new, there without a secret, or with this very key already."""

    resource: str
    destination: str
    there: bool = False
    stored: bool = False

    @property
    def host(self) -> str:
        return urlsplit(self.destination).netloc


Targets = Mapping[str, KeyTarget]  # by provider


def init(
    place: Annotated[Path | None, argument("[DIR]", "Where the project is; else the working directory.")] = None,
    confirm: Annotated[
        list[str] | None,
        option("--confirm HOST", "Move the key that goes to this host, without asking: once for each host."),
    ] = None,
    user: Annotated[bool, option("--user", "Change the configuration of clients in your home, too.")] = False,
    dry_run: Annotated[bool, option("--dry-run", "Show what was found and would change; change nothing.")] = False,
    undo: Annotated[bool, option("--undo", "Put files back as they were before.")] = False,
    json: options.Json = False,
) -> None:
    """Move a project's keys into the sealed store, and have its files name placeholders in their place.

    Looks at .env files, the configuration of agents' clients and their MCP servers, the environment, and the packages
    that are used. Shows what it found and to which host of the catalog each key would go, and asks for each host. What
    changes in files is shown first, and kept, sealed, in the state. Makes remit.toml, which counts after `remit allow`.

    \b
    Examples:
      remit init
      remit init --dry-run --json
      remit init ~/shop --confirm api.openai.com --confirm api.search.brave.com
      remit init --user
      remit init --undo
    """
    if os.environ.get("REMIT_GRANT"):
        raise DeniedError("a run moves no keys", help="whoever starts runs does, outside of them")
    here, home = _folders(place or Path.cwd())
    if undo:
        _undone(here, home, json)
        return
    from remit.compose.kinds import on_this_machine
    from remit.config import brokering

    on_this_machine(os.environ)  # with providers of one's own
    found = brokering.survey(here, home, os.environ, user=user)
    targets = _targets(found, start=not dry_run)
    if not json:
        answer(False, None, *_told(found, targets))
    asks = not (dry_run or json or confirm) and sys.stdin.isatty() and sys.stdout.isatty()
    chosen = targets if dry_run else _chosen(found, targets, confirm, asks=asks)
    keys = brokering.moved(found, {name: each.resource for name, each in chosen.items()})
    files = list(brokering.changed(found, keys))
    text = brokering.project_text(found, keys)
    fresh = None if text is None else _project_file(here, text)
    files += [] if fresh is None else [fresh]
    lines = [line for file in files for line in brokering.difference(found, file)]
    if not json and files:
        answer(False, None, "", *lines)
    if asks and files and not typer.confirm("Store the keys, and change these files?"):
        raise typer.Abort
    done = bool(keys) and not dry_run
    if done:
        _brokered(found, chosen, files, here, home)
    document = {**_document(found, targets), "changes": lines, "changed": done}
    answer(
        json,
        document,
        *(_after(found, keys, files, text if fresh is None else None) if done else ("nothing was changed",)),
    )
    if asks and fresh is not None:
        project.allow(here.path)


def _folders(place: Path) -> tuple[Folder, Folder]:
    from remit.config.folder import Folder
    from remit.config.project import check_alone

    here, home = place.resolve(), Path(os.environ.get("HOME") or "/").resolve()
    if not here.is_dir():
        raise InvalidRequestError(f"`{place}` is no folder")
    if home.is_relative_to(here):
        raise InvalidRequestError("your home is no project, nor what is above it", help="say which folder is: DIR")
    check_alone(here, here.stat())
    return Folder(here), Folder(home)


def _told(found: Survey, targets: Targets) -> Iterator[str | Table]:
    """Yield what was found: never a key."""
    from remit.catalog.recognised import shown
    from remit.config.brokering import unserved

    rows = [
        (
            key.variable or "-",
            f"{key.where} ({key.whose})",
            key.provider.name if key.provider else "-",
            key.why or (targets[key.provider.name].host if key.provider else ""),
            shown(key.value),
        )
        for key in found.keys
    ]
    if rows:
        yield Table(("variable", "where", "provider", "goes to, or why it stays", "key"), rows)
    else:
        yield "no key was found"
    yield from (f"not looked at: {where}: {why}" for where, why in found.unread)
    yield from unserved(found)


def _document(found: Survey, targets: Targets) -> dict[str, Any]:
    from remit.catalog.recognised import shown

    keys = []
    for key in found.keys:
        name = key.provider.name if key.provider else None
        target = targets.get(name or "") if not key.why else None
        about = {"variable": key.variable, "where": key.where, "whose": key.whose}
        goes = {"resource": target.resource, "host": target.host} if target else {"why": key.why}
        keys.append({**about, "provider": name, "key": shown(key.value), **goes})
    return {"keys": keys, "not_read": [{"where": where, "why": why} for where, why in found.unread]}


def _backups() -> Backups:
    from remit.config.backups import Backups
    from remit.keys.file import FileSealer, load_kek

    settings = options.settings()
    return Backups(settings.places.state, FileSealer(load_kek(settings.kek, create=False)))


def _targets(found: Survey, *, start: bool) -> Targets:
    """Return where the keys would go; without a state, and unless one may ``start``, as if nothing were stored."""
    fresh = not (start or options.settings().places.state.is_dir())
    if fresh or not found.offered:
        stored: dict[str, Any] = {}
    else:
        stored = {item["resource"]: item for item in sdk.ask(sdk.verbs.resources())}
    before = _backups() if stored else None
    return {name: _target(key, stored, before) for name, key in found.offered.items()}


def _target(key: FoundKey, stored: Mapping[str, Any], before: Backups | None) -> KeyTarget:
    provider = key.provider.name if key.provider else ""
    same = before.resource_of(key.value) if before else None
    names = [provider, *(f"{provider}-{number}" for number in range(2, len(stored) + 3))]
    for name in filter(None, [same, *names]):
        there = stored.get(name)
        if there is None:
            return KeyTarget(name, key.host)
        if there["settings"].get("provider") == provider and (name == same or not there["secret"]):
            return KeyTarget(name, there["destination"], there=True, stored=bool(there["secret"]))
    raise AssertionError


def _chosen(found: Survey, targets: Targets, confirm: Sequence[str] | None, *, asks: bool) -> Targets:
    """Return what a human wants moved, host by host."""
    hosts = sorted({each.host for each in targets.values()})
    if strange := sorted(set(confirm or ()) - {*hosts}):
        raise InvalidRequestError(
            f"no key that was found goes to `{strange[0]}`", help=f"hosts are: {', '.join(hosts) or 'none'}"
        )
    if targets and not confirm and not asks:
        raise InvalidRequestError("there is nobody to ask: this is no terminal", help="--dry-run, or --confirm HOST")
    return {
        name: each
        for name, each in targets.items()
        if each.host in (confirm or ()) or (asks and _asked(found, name, each))
    }


def _asked(found: Survey, name: str, target: KeyTarget) -> bool:
    key = found.offered[name]
    stands = "it is there already" if target.stored else f"as `{target.resource}`"
    return typer.confirm(safe(f"Move {key.variable} of {key.where} to {target.destination}, {stands}?"))


def _project_file(here: Folder, text: str) -> KeptFile | None:
    from remit.config.backups import KeptFile
    from remit.run.named import PROJECT

    return None if os.path.lexists(here.path / PROJECT) else KeptFile(False, PROJECT, None, text, 0o644)


def _brokered(found: Survey, chosen: Targets, files: Sequence[KeptFile], here: Folder, home: Folder) -> None:
    """Do it: what was is kept before a key goes anywhere, and a key is in the store before it leaves a file."""
    values = {target.resource: found.offered[name].value for name, target in chosen.items()}
    backups = _backups()
    kept = backups.keep(str(here.path), files)
    for name, target in chosen.items():
        if not target.stored:
            _stored(name, target, values[target.resource])
    backups.note(kept, values)
    for file in files:
        (home if file.in_home else here).replace(file.name, file.before, file.after, file.mode)


def _stored(provider: str, target: KeyTarget, key: str) -> None:
    if target.there:
        sdk.ask(sdk.verbs.put_secret(target.resource, target.resource, key))
        return
    kind = kind_of(target.destination).name
    bound = [{"type": kind, "resource": target.resource, **options.fields(BOUND)}]
    body = {"kind": kind, "destination": target.destination, "settings": {"provider": provider}, "bound": bound}
    sdk.ask(sdk.verbs.put_resource(target.resource, {**body, "secret": key}))


def _after(found: Survey, keys: Moved, files: Sequence[KeptFile], wanted: str | None) -> Iterator[str]:
    """Yield what was done and is left to do; ``wanted`` is the project's file where there is another one already."""
    from remit.config import brokering

    yield ""
    for each in {moved.resource: moved for moved in keys.values()}.values():
        yield f"`{each.resource}` has the key, sealed. It stood in plain text: make another at the provider,"
        yield f"  then `remit secret set {each.resource}`"
        if each.provider.rotate:
            yield f"  {each.provider.title}: {each.provider.rotate}"
    for key in found.keys:
        if key.file is None and (key.variable, key.value) in keys:
            yield f"{key.variable} is in your environment still: take it out where it is set"
    yield f"changed: {', '.join(file.shown for file in files) or 'no file'}; `remit init --undo` takes it back"
    for server in brokering.fetching(found, keys):
        yield f"{server}: a run reaches no registry by itself, see docs/how-to/coding-agents.md"
    if wanted is not None:
        yield "remit.toml is there already, and was left. It would be:"
        yield from (f"  {line}" for line in wanted.splitlines())
    yield "`remit allow` shows what a run here gets, then `remit run -- COMMAND`"


def _undone(here: Folder, home: Folder, json: bool) -> None:
    done = list(_backups().undo(here, home))
    refused = [(name, why) for name, why in done if why]
    lines = [f"{name}: {why or 'is as it was'}" for name, why in done]
    stays = "keys that were moved are in the store as well, until `remit resource remove`"
    document = {"files": [{"file": name, "restored": not why, **({"why": why} if why else {})} for name, why in done]}
    answer(
        json,
        document,
        *(lines or ["nothing of this project was changed, or all of it is as it was"]),
        *([stays] if lines else []),
    )
    if refused:
        name, why = refused[0]
        raise InvalidRequestError(
            f"`{name}` was not put back: {why}", help="its backup stays; then `remit init --undo` again"
        )
