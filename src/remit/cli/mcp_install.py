"""Have clients' configuration start remit's MCP server, and other servers by remit: shown first, kept, taken back."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from remit.cli import options, sdk
from remit.cli.options import argument, option
from remit.cli.render import Table, answer
from remit.errors import DeniedError, InvalidRequestError

if TYPE_CHECKING:
    from remit.config.backups import Backups, KeptFile
    from remit.config.clients import ClientFile
    from remit.config.folder import Folder

PREFIX = "mcp+"  # of the destination of a resource that is such a server


def install(
    client: Annotated[str | None, argument("[CLIENT]", "Whose configuration: claude-code, codex, cursor, …")] = None,
    server: Annotated[
        list[str] | None,
        option("--server -s NAME", "A server that it has: have remit start it, or the gateway reach it; add none."),
    ] = None,
    resource: Annotated[
        list[str] | None,
        option("--resource -r NAME[:FIELD=VALUE,…]", "What a server that remit starts reaches, as in `remit run`."),
    ] = None,
    tool: Annotated[
        list[str] | None,
        option(
            "--tool -t TOOL", "A tool of that server that may be called: `remit mcp wrap` starts it, not `remit run`."
        ),
    ] = None,
    project: Annotated[bool, option("--project", "In the working directory; else in your home.")] = False,
    listed: Annotated[bool, option("--list", "List the clients, and which of them are found.")] = False,
    undo: Annotated[bool, option("--undo", "Put the client's file back as it was before.")] = False,
    dry_run: Annotated[bool, option("--dry-run", "Show what would change; change nothing.")] = False,
    yes: Annotated[bool, option("--yes -y", "Change it without asking.")] = False,
    json: options.Json = False,
) -> None:
    """Add remit's MCP server to a client's configuration, or have a server that it has be started by remit.

    What changes is shown first, and kept, sealed, in the state. Comments and all else in the file stay. The server
    that is added serves a client in a run (`remit mcp serve`); a server that remit starts is in a run of its own, and
    one at a URL is reached through the gateway where a resource stands for it.

    \b
    Examples:
      remit mcp install --list
      remit mcp install claude-code
      remit mcp install cursor --project --dry-run
      remit mcp install codex --server github -r github
      remit mcp install codex --server github -t search_repositories -r github-api
      remit mcp install codex --undo
    """
    if os.environ.get("REMIT_GRANT"):
        raise DeniedError("a run changes no configuration", help="whoever starts runs does, outside of them")
    from remit.config.mcp_clients import file_of

    folder = _folder(project)
    if listed:
        _list(json)
        return
    if client is None:
        raise typer.BadParameter("say which client, or --list")
    file = file_of(client, home=not project)
    if (resource or tool) and not server:
        raise typer.BadParameter("`--resource` and `--tool` are of a `--server`")
    if undo:
        _undone(folder, file, home=not project, json=json)
        return
    kept = _changed(folder, file, server or (), resource or (), tool or (), home=not project)
    lines = list(_difference(file, kept)) if kept else []
    if not json:
        answer(False, None, *lines)
    asks = not (dry_run or json or yes) and sys.stdin.isatty() and sys.stdout.isatty()
    if kept and not (dry_run or yes or asks):
        raise InvalidRequestError("there is nobody to ask: this is no terminal", help="--dry-run, or --yes")
    if asks and kept and not typer.confirm("Change this file?"):
        raise typer.Abort
    done = kept is not None and not dry_run
    if done and kept is not None:
        _written(folder, kept)
    document = {"client": client, "file": _shown(file, home=not project), "changes": lines, "changed": done}
    answer(json, document, _after(client, project=project) if done else "nothing was changed")


def _folder(project: bool) -> Folder:
    from remit.config.folder import Folder
    from remit.config.project import check_alone

    home = Path(os.environ.get("HOME") or "/").resolve()
    if not project:
        return Folder(home)
    here = Path.cwd().resolve()
    if home.is_relative_to(here):
        raise InvalidRequestError("your home is no project, nor what is above it", help="leave out --project")
    check_alone(here, here.stat())
    return Folder(here)


def _path(file: ClientFile) -> str:
    return file.darwin if sys.platform == "darwin" and file.darwin else file.path


def _shown(file: ClientFile, *, home: bool) -> str:
    return f"~/{_path(file)}" if home else _path(file)


def _list(json: bool) -> None:
    from remit.config.mcp_clients import files

    places = {True: _folder(False).path, False: Path.cwd()}
    rows, found = [], []
    for home, folder in places.items():
        for name, file in files(home=home).items():
            there = _is_found(folder, _path(file), home=home)
            found.append({"client": name, "title": file.client, "file": _shown(file, home=home), "found": there})
            rows.append((name, _shown(file, home=home), "" if home else "--project", "found" if there else "-"))
    answer(json, {"clients": found}, Table(("client", "file", "", ""), rows))


def _is_found(folder: Path, path: str, *, home: bool) -> bool:
    """Whether a client's file is there, or, in the home, the folder that it would be in."""
    above = (folder / path).parent
    return (folder / path).is_file() or (home and above != folder and above.is_dir())


def _changed(
    folder: Folder,
    file: ClientFile,
    servers: Sequence[str],
    resources: Sequence[str],
    tools: Sequence[str],
    *,
    home: bool,
) -> KeptFile | None:
    """Return a client's file as it is and as it will be; None where it is as wanted already."""
    from remit.config import mcp_clients
    from remit.config.backups import KeptFile

    place, shown = _path(file), _shown(file, home=home)
    try:
        state = folder.read(place)
        text = state.text if state is not None else ""
        new = _rewritten(file, text, servers, resources, tools) if servers else mcp_clients.added(file, text)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"`{shown}` was left: {error.detail}", help=error.help) from None
    if new == text:
        return None
    if state is None and home and not _is_found(folder.path, place, home=True):
        raise InvalidRequestError(f"{file.client} is not found: there is no `{shown}`", help="start it once, first")
    return KeptFile(home, place, None if state is None else text, new, 0o600 if state is None else state.mode)


def _rewritten(
    file: ClientFile, text: str, servers: Sequence[str], resources: Sequence[str], tools: Sequence[str]
) -> str:
    """Return a file's text in which servers are started by remit, or spoken to through its gateway."""
    from remit.config import mcp_clients
    from remit.config.clients import TTL

    urls = {name: url for name in servers if (url := mcp_clients.remote(file, text, name)) is not None}
    for name, url in urls.items():
        text = mcp_clients.redirected(file, text, name, _through(name, url))
    started = [name for name in servers if name not in urls]
    if bool(started) != bool(resources):
        raise InvalidRequestError("`--resource` says what a server that remit starts reaches, and goes with one")
    more = ["--ttl", TTL, *(word for each in tools for word in ("-t", each))]
    more += [word for each in resources for word in ("-r", each)]
    words = {name: [*(_wrapping(name) if tools else ["run"]), *more] for name in started}
    return mcp_clients.rewrapped(file, text, started, words) if started else text


def _wrapping(name: str) -> list[str]:
    """Return what wraps a server, where a resource of its name stands for its input and output."""
    there = {each["resource"]: each["destination"] for each in sdk.ask(sdk.verbs.resources())}
    if not there.get(name, "").startswith(f"{PREFIX}stdio:"):
        add = f"`remit resource add {name} {PREFIX}stdio:{name}`, then again"
        raise InvalidRequestError(f"no resource stands for what is said to `{name}`", help=add)
    return ["mcp", "wrap", "-s", name]


def _through(name: str, url: str) -> str:
    """Return the gateway's URL of the resource that stands for a server."""
    found = [each for each in sdk.ask(sdk.verbs.resources()) if each["destination"] == f"{PREFIX}{url.rstrip('/')}"]
    if not found:
        add = f"`remit resource add {name} {PREFIX}{url.rstrip('/')} --secret`, then again"
        raise InvalidRequestError(f"no resource stands for `{name}`, which is at `{url}`", help=add)
    if not found[0]["secret"]:
        store = f"`remit secret set {found[0]['resource']}`, then again"
        raise InvalidRequestError(f"`{found[0]['resource']}` has no key of `{name}` yet", help=store)
    gateway = sdk.ask(sdk.verbs.self()).get("gateway") or sdk.place.GATEWAY
    return f"{gateway}/{found[0]['resource']}"


def _difference(file: ClientFile, kept: KeptFile) -> Iterator[str]:
    from remit.config.brokering import lines
    from remit.config.clients import held

    before = kept.before or ""
    known = held(file.form, before) if file.brokered and before.strip() else ()
    return lines(kept, known, "by remit")


def _backups() -> Backups:
    from remit.config.backups import Backups
    from remit.keys.file import FileSealer, load_kek

    settings = options.settings()
    if not settings.places.state.is_dir():
        sdk.ask(sdk.verbs.resources())  # whoever serves the state makes its keys
    return Backups(settings.places.state, FileSealer(load_kek(settings.kek, create=False)), "mcp")


def _written(folder: Folder, kept: KeptFile) -> None:
    """Do it: what was is kept first."""
    _backups().keep(f"{folder.path}\n{kept.name}", [kept])
    folder.make_above(kept.name)
    folder.replace(kept.name, kept.before, kept.after, kept.mode)


def _undone(folder: Folder, file: ClientFile, *, home: bool, json: bool) -> None:
    from remit.config.mcp_clients import taken_out

    def without(kept: KeptFile, now: str) -> str | None:
        try:
            return taken_out(file, kept.before or "", kept.after or "", now)
        except InvalidRequestError:  # it is no JSON any more
            return None

    done = list(_backups().undo(folder, folder, f"\n{_path(file)}", without))
    document = {"files": [{"file": name, "restored": not why, **({"why": why} if why else {})} for name, why in done]}
    lines = [f"{name}: {why or 'is as it was'}" for name, why in done]
    answer(json, document, *(lines or [f"{_shown(file, home=home)} is as it was"]))
    for name, why in done:
        if why:
            again = "its backup stays; then `remit mcp install --undo` again"
            raise InvalidRequestError(f"`{name}` was not put back: {why}", help=again)


def _after(client: str, *, project: bool) -> str:
    where = " --project" if project else ""
    return f"done; start {client} anew. `remit mcp install {client}{where} --undo` takes it back"
