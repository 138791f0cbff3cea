"""What of a project can be brokered: which keys are where and whose, what becomes of its files, and its ``remit.toml``.

Where a key goes is the host of a provider of the catalog; a file names variables and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import unified_diff
from pathlib import PurePosixPath

from remit.catalog import Provider, load, recognised
from remit.config import clients, manifests
from remit.config.backups import KeptFile
from remit.config.clients import HOME_FILES, PROJECT_FILES, ClientFile, HeldValue, Moved, MovedKey
from remit.config.folder import FileState, Folder
from remit.errors import InvalidRequestError

MAX_ENV_FILES = 32
NOT_ASKED = "in your home: --user has it changed, too"
UNUSED = "in the environment, and nothing here is known to use it"
ANOTHER = "another key of {} is found before it, and one is moved"
FETCH = ("npx", "npm", "pnpm", "yarn", "bunx", "uvx", "uv", "pipx", "docker", "podman")
_ENV_FILE = re.compile(r"\.env(?:\.[A-Za-z0-9._-]{1,64})?")
_WORD = re.compile(r"(?=[A-Za-z0-9_-]*[0-9])(?=[A-Za-z0-9_-]*[A-Za-z])[A-Za-z0-9_-]{20,}")
_LOGIN = re.compile(r"(://[^:/@\s]*:)[^@\s]+@")


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file that may hold keys."""

    about: ClientFile
    in_home: bool
    state: FileState
    held: tuple[HeldValue, ...]

    @property
    def shown(self) -> str:
        return f"~/{self.about.path}" if self.in_home else self.about.path


@dataclass(frozen=True, slots=True)
class FoundKey:
    """A key, where it is, and the provider to whose host it would go; ``why`` it would not."""

    variable: str
    value: str = field(repr=False)
    provider: Provider | None
    why: str = ""
    file: FoundFile | None = None  # else it is in the environment
    line: int = 0
    server: str = ""

    @property
    def where(self) -> str:
        return "the environment" if self.file is None else f"{self.file.shown}:{self.line}"

    @property
    def whose(self) -> str:
        return "your shell" if self.file is None else ", ".join(filter(None, (self.file.about.client, self.server)))

    @property
    def host(self) -> str:
        return "" if self.provider is None or self.provider.destination is None else self.provider.destination


@dataclass(frozen=True, slots=True)
class Survey:
    """What a look at a project found."""

    files: tuple[FoundFile, ...]
    keys: tuple[FoundKey, ...]
    unread: tuple[tuple[str, str], ...]  # where, and why
    used: Mapping[str, str]  # providers, and what names them

    @property
    def offered(self) -> Mapping[str, FoundKey]:
        """The key of each provider that can be moved."""
        found: dict[str, FoundKey] = {}
        for each in self.keys:
            if each.provider is not None and not each.why:
                found.setdefault(each.provider.name, each)
        return found


def survey(project: Folder, home: Folder, environ: Mapping[str, str], *, user: bool) -> Survey:
    """Look at a project, the clients' files in the home, and the environment; nothing is changed."""
    files, unread, used = list[FoundFile](), list[tuple[str, str]](), dict[str, str]()
    names = project.names()
    own = [ClientFile("this project", name, "env") for name in names if _ENV_FILE.fullmatch(name)][:MAX_ENV_FILES]
    there = [(project, each) for each in (*own, *PROJECT_FILES)]
    if home.path != project.path:
        there += [(home, each) for each in HOME_FILES]
    for folder, about in ((folder, about) for folder, about in there if about.brokered):
        shown = about.path if folder is project else f"~/{about.path}"
        try:
            state = folder.read(about.path)
            if state is not None:
                files.append(FoundFile(about, folder is home, state, clients.held(about.form, state.text)))
        except InvalidRequestError as error:
            unread.append((shown, error.detail))
    for name in names:
        if manifests.MANIFEST.fullmatch(name):
            used |= dict.fromkeys(_packages(project, name), name)
    for each in (each for each in files if not each.in_home):
        used |= {whose.name: each.shown for held in each.held if (whose := recognised.by_variable(held.variable))}
    keys = _once([*_keys(files, user=user), *_of_environment(environ, used)])
    return Survey(tuple(files), tuple(keys), tuple(unread), used)


def _packages(project: Folder, name: str) -> frozenset[str]:
    try:
        state = project.read(name)
    except InvalidRequestError:
        return frozenset()
    return frozenset() if state is None else manifests.used(name, state.text)


def _keys(files: Sequence[FoundFile], *, user: bool) -> Iterator[FoundKey]:
    for file in files:
        whole = (NOT_ASKED if file.in_home and not user else "") or _stuck(file)
        for each in file.held:
            found = recognised.recognise(each.variable, each.value)
            if found is not None:
                why = found.why or each.fixed or whole
                yield FoundKey(each.variable, each.value, found.provider, why, file, each.line, each.server)


def _stuck(file: FoundFile) -> str:
    """Say why a file cannot be changed, if all that could be moved were moved."""
    whose = ((each, recognised.recognise(each.variable, each.value)) for each in file.held if not each.fixed)
    found = ((each, key.provider) for each, key in whose if key is not None and key.provider is not None)
    keys = {(each.variable, each.value): MovedKey(provider.name, provider) for each, provider in found}
    try:
        clients.brokered(file.about.form, file.state.text, keys)
    except InvalidRequestError as error:
        return error.detail
    return ""


def _of_environment(environ: Mapping[str, str], used: Mapping[str, str]) -> Iterator[FoundKey]:
    for name, value in sorted(environ.items()):
        found = recognised.recognise(name, value) if recognised.by_variable(name) else None
        if found is not None and found.provider is not None:
            why = "" if found.provider.name in used else UNUSED
            yield FoundKey(name, value, found.provider, why)


def _once(keys: Sequence[FoundKey]) -> Iterator[FoundKey]:
    """Yield the keys; of two of one provider the first is moved, and the other stays where it is."""
    first: dict[str, str] = {}
    for key in keys:
        if key.provider is None or key.why or first.setdefault(key.provider.name, key.value) == key.value:
            yield key
        else:
            yield replace(key, why=ANOTHER.format(key.provider.title))


def moved(found: Survey, resources: Mapping[str, str]) -> Moved:
    """Return what is moved, where the keys of these providers go to these resources."""
    return {
        (key.variable, key.value): MovedKey(resources[key.provider.name], key.provider)
        for key in found.keys
        if key.provider is not None and not key.why and key.provider.name in resources
    }


def changed(found: Survey, keys: Moved) -> Iterator[KeptFile]:
    """Yield the files that change, as they are and as they will be; InvalidRequestError names one that cannot."""
    for file in found.files:
        if not any(key.file is file and not key.why for key in found.keys):
            continue
        try:
            after = clients.brokered(file.about.form, file.state.text, keys)
        except InvalidRequestError as error:
            raise InvalidRequestError(
                f"`{file.shown}` cannot be changed: {error.detail}", help="move its keys by hand"
            ) from None
        if after != file.state.text:
            yield KeptFile(file.in_home, file.about.path, file.state.text, after, file.state.mode)


def project_text(found: Survey, keys: Moved) -> str | None:
    """Return the ``remit.toml`` for a project whose keys were moved; None where none is its own."""
    mine = [key for key in found.keys if not key.why and (key.variable, key.value) in keys and not _in_home(key)]
    names = list(dict.fromkeys(keys[key.variable, key.value].resource for key in mine))
    if not names:
        return None
    launched = {(key.file.shown, key.server) for key in mine if key.file is not None and key.server}
    lines = [
        "# Made by `remit init`. It counts when you have accepted it: `remit allow` shows what it means.",
        'ttl = "8h"',
    ]
    if launched:
        lines += ["depth = 1  # an agent started here starts its MCP servers with less", f"fan_out = {len(launched)}"]
    lines.append(f"resources = {json.dumps(names)}")
    clean = [file.about.path for file in found.files if _clean(file, keys)]
    if clean:
        lines += [
            "# A run sees files of variables empty, since they may hold keys. None is known to be left in these:",
            f"# bind = {json.dumps([f'./{path}' for path in clean])}",
        ]
    own = {key.variable: keys[key.variable, key.value] for key in mine if not key.server}
    named = {name: each.resource for name, each in own.items() if name not in each.provider.variables}
    if named:
        lines += ["", "[env]", *(f'{name} = "placeholder:{resource}"' for name, resource in named.items())]
    return "\n".join(lines) + "\n"


def _in_home(key: FoundKey) -> bool:
    return key.file is not None and key.file.in_home


def _clean(file: FoundFile, keys: Moved) -> bool:
    """Whether no key is left in a file of variables that held some."""
    left = [each for each in file.held if recognised.recognise(each.variable, each.value)]
    ours = file.about.form == "env" and not file.in_home and "/" not in file.about.path
    return ours and bool(left) and all((each.variable, each.value) in keys for each in left)


def difference(found: Survey, file: KeptFile) -> Iterator[str]:
    """Yield how a file changes, line by line, without what may be a secret."""
    held = [each for one in found.files for each in one.held]
    yield from lines(file, held, "brokered")


def lines(file: KeptFile, held: Iterable[HeldValue], done: str) -> Iterator[str]:
    """Yield how a file changes, line by line, without the keys that are ``held`` or what looks like one."""
    secret = [each.value for each in held if recognised.recognise(each.variable, each.value)]
    before, after = (masked(text or "", secret).split("\n") for text in (file.before, file.after))
    yield from unified_diff(before, after, file.shown, f"{file.shown} ({done})", lineterm="", n=0)


def masked(text: str, secrets: Sequence[str]) -> str:
    """Return a text whose secrets, and whatever looks like one, are told by their form alone."""
    for value in sorted(set(secrets), key=len, reverse=True):
        text = text.replace(value, recognised.shown(value)).replace(json.dumps(value)[1:-1], recognised.shown(value))
    return _LOGIN.sub(r"\1…@", _WORD.sub(lambda word: recognised.shown(word[0]), text))


def unserved(found: Survey) -> Iterator[str]:
    """Yield the providers that the project uses, and whose key was not found."""
    having = {key.provider.name for key in found.keys if key.provider is not None}
    for name, where in sorted(found.used.items()):
        if name in load() and name not in having:
            yield f"{where} uses {load()[name].title}: no key of it was found"


def fetching(found: Survey, keys: Moved) -> Iterator[str]:
    """Yield the servers whose key was moved and whose command is one that fetches what it runs."""
    for key in found.keys:
        if key.server and key.file is not None and not key.why and (key.variable, key.value) in keys:
            command = next(each.command for each in key.file.held if each.server == key.server)
            if PurePosixPath(command).name in FETCH:
                yield f"`{key.server}` is started by `{command}`, which fetches what it runs"
