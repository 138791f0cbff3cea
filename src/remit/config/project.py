"""``remit.toml``, the file of a project: what its runs ask for. Nothing in it counts until a human has accepted it.

It names resources, hosts that a run reaches without a credential, variables and binds, and never the host or the place
of a credential, where one comes from, or a command. What was accepted is kept in the state, which no run sees, by the
file's path: its whole text, to show what has changed, and where its binds led.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from remit.config.sections import Section, unknown
from remit.config.settings import converted, located
from remit.config.values import MAX_ENTRIES, Text, Texts
from remit.core.orders import HOSTS
from remit.errors import InvalidRequestError
from remit.run import named
from remit.run.named import PROJECT, NamedVariable
from remit.sdk.detail import seconds

MAX_FILE = 16_384  # bytes
MAX_KEPT = 1_048_576  # bytes of what is kept of one file: its text and its binds, as JSON

_LOOK = "look at it with `ls -ld`: it must be yours, and `chmod go-w` keeps others from writing it"


@dataclass(frozen=True, slots=True)
class ProjectBind:
    """A path that a project has its runs see: as it is written, and where that leads now."""

    written: str
    path: Path
    writable: bool


class ProjectFile(Section, frozen=True):
    """The settings of a project."""

    resources: Texts = Texts()
    egress: Texts = Texts()  # hosts, bounded by resources
    purpose: Text | None = None
    ttl: Text | None = None
    depth: int | None = None
    fan_out: int | None = None
    bind: Texts = Texts()
    env: dict[str, Any] = {}  # noqa: RUF012 - msgspec copies it

    def _check(self) -> None:
        if not (self.resources or self.egress):
            raise InvalidRequestError("`resources` is missing: say what a run may use")
        if self.egress:
            HOSTS.parse("egress", list(self.egress))
        if self.ttl is not None:
            seconds(self.ttl)
        for name, count in (("depth", self.depth), ("fan_out", self.fan_out)):
            if count is not None and count < 0:
                raise InvalidRequestError(f"`{name}` must not be negative")
        if any(text.startswith(("~", ":")) for text in self.bind):
            raise InvalidRequestError("`bind` has paths from the project's folder, or from the root, and no `~`")
        if len(self.env) > MAX_ENTRIES:
            raise InvalidRequestError(f"`env` has more than {MAX_ENTRIES} variables")
        names = [text.partition(":")[0] for text in self.resources]
        for each in self.variables:
            if each.source and each.of not in names:
                refused = unknown(each.of, names, "among `resources`")
                raise InvalidRequestError(f"`env.{each.name}` names {refused.detail}", help=refused.help)

    @property
    def variables(self) -> tuple[NamedVariable, ...]:
        return tuple(named.read(name, text) for name, text in self.env.items())

    def binds(self, folder: Path) -> tuple[ProjectBind, ...]:
        """Return the paths that a run sees, of a file in ``folder``."""
        split = ((text, text.removesuffix(":rw")) for text in self.bind)
        return tuple(ProjectBind(text, (folder / path).resolve(), path != text) for text, path in split)


class AcceptedProject(msgspec.Struct, frozen=True):
    """What a human accepted of the file at a path."""

    path: str
    text: str
    binds: Mapping[str, str]  # where each led


@dataclass(frozen=True, slots=True)
class FoundProject:
    """A project's file as it is now, and what was accepted before; nobody need have accepted it."""

    path: Path
    text: str
    before: AcceptedProject | None

    def read(self) -> ProjectFile:
        """Return its settings, or raise InvalidRequestError naming file and line."""
        try:
            raw = tomllib.loads(self.text)
        except (ValueError, RecursionError) as error:
            told = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "it is no TOML that can be meant"
            raise InvalidRequestError(f"`{self.path}` cannot be read: {told}") from error
        with located(self.path, self.text):
            return converted(raw, ProjectFile)

    def accepted(self) -> tuple[ProjectFile, tuple[ProjectBind, ...]]:
        """Return its settings if this very text was accepted, and its binds if they lead where they led then."""
        if self.before is None or self.before.text != self.text:
            what = "has changed since it was accepted" if self.before else "was not accepted"
            raise InvalidRequestError(f"`{self.path}` {what}", help="`remit allow` shows it, and asks")
        project = self.read()
        binds = project.binds(self.path.parent)
        for bind in binds:
            if self.before.binds.get(bind.written) != str(bind.path):
                raise InvalidRequestError(
                    f"`{bind.written}` of `{self.path}` leads to `{bind.path}`, and did not when it was accepted",
                    help="was a link put there? `remit allow` shows what is bound now, and asks",
                )
        return project, binds

    def record(self, binds: Iterable[ProjectBind]) -> AcceptedProject:
        """Return what is to be kept when it is accepted with binds that lead where they were shown to lead."""
        return AcceptedProject(str(self.path), self.text, {bind.written: str(bind.path) for bind in binds})


def find(cwd: Path, home: Path, state: Path) -> FoundProject | None:
    """Return the nearest project's file from ``cwd`` up to the home, or to the root outside of it.

    InvalidRequestError for a file that somebody else can write, or that is no plain file: it hides what is above it.
    """
    at, top = cwd.resolve(), home.resolve()
    for folder in (at, *at.parents):
        path = folder / PROJECT
        if os.path.lexists(path):
            return FoundProject(path, _text(path), _before(state, path))
        if folder == top:
            break
    return None


def _text(path: Path) -> str:
    check_alone(path.parent, path.parent.stat())
    try:
        return _content(path, MAX_FILE, private=False).decode()
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"`{path}` cannot be read: it is not UTF-8 text") from error


def kept(state: Path, path: Path) -> Path:
    """Return the file of the state that keeps what was accepted of the file at ``path``."""
    return state / "projects" / f"{sha256(os.fsencode(path)).hexdigest()}.json"


def _before(state: Path, path: Path) -> AcceptedProject | None:
    place = kept(state, path)
    if not place.exists():
        return None
    try:
        found = msgspec.json.decode(_content(place, MAX_KEPT, private=True), type=AcceptedProject)
    except msgspec.MsgspecError as error:
        raise InvalidRequestError(
            f"`{place}` is damaged", help="remove it, and accept the project's file anew"
        ) from error
    return found if found.path == str(path) else None


def _content(path: Path, limit: int, *, private: bool) -> bytes:
    """Return the content of a file that is ours alone to write, or to read too; no link is followed to it."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        told = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise InvalidRequestError(f"`{path}` cannot be read: {told}") from error
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise InvalidRequestError(f"`{path}` is not a file")
        check_alone(path, about, stat.S_IRWXG | stat.S_IRWXO if private else stat.S_IWGRP | stat.S_IWOTH)
        content = os.read(handle, limit + 1)
    finally:
        os.close(handle)
    if len(content) > limit:
        raise InvalidRequestError(f"`{path}` has more than {limit} bytes")
    return content


def check_alone(path: Path, about: os.stat_result, others: int = stat.S_IWGRP | stat.S_IWOTH) -> None:
    """Refuse what is not ours, or what somebody else can write; a group that has us alone in it is nobody else."""
    if about.st_uid not in {os.geteuid(), 0} or (stat.S_ISREG(about.st_mode) and about.st_uid != os.geteuid()):
        raise InvalidRequestError(f"`{path}` belongs to somebody else", help=_LOOK)
    open_to = stat.S_IMODE(about.st_mode) & others
    if open_to & stat.S_IRWXO or (open_to & stat.S_IRWXG and not _alone_in(about.st_gid)):
        raise InvalidRequestError(f"others can write `{path}`", help=_LOOK)


def _alone_in(gid: int) -> bool:
    """Whether a group is the private one of this user, by its name and its members."""
    try:
        name, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(gid)
    except KeyError:
        return False
    return group.gr_name == name and {*group.gr_mem} <= {name}
