"""What `remit init` or `remit mcp install` changed, as it was before: sealed in the state, to be taken back.

It is written before a key goes anywhere, and holds no file any more when every file is as it was.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec

from remit.config.folder import Folder
from remit.errors import RemitError
from remit.keys.file import DIRECTORY_MODE, read_regular, sync_directory, write_private
from remit.ports import Sealer

MAX_BACKUP = 268_435_456  # bytes


class KeptFile(msgspec.Struct, frozen=True):
    """A file before and after: in the home or in the project; None: there was none."""

    in_home: bool
    name: str
    before: str | None
    after: str | None
    mode: int

    @property
    def shown(self) -> str:
        return f"~/{self.name}" if self.in_home else self.name

    def __repr__(self) -> str:
        return f"KeptFile({self.shown})"


TakenOut = Callable[[KeptFile, str], str | None]  # a file as it was kept, and as it is now


class Backup(msgspec.Struct, frozen=True):
    """One change of a project's files."""

    project: str
    files: tuple[KeptFile, ...]
    keys: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Backups:
    """The backups of all projects, in files of mode 0600; those of what each command changes are apart."""

    state: Path
    sealer: Sealer
    command: str = "init"

    def keep(self, project: str, files: Iterable[KeptFile]) -> Path:
        """Keep files as they are before a change; return where."""
        folder = self.state / self.command
        folder.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        taken = [number for number, _ in self._numbered(_digest(project))]
        path = folder / f"{_digest(project)}.{max(taken, default=0) + 1}.sealed"
        self._write(path, Backup(project, tuple(files)))
        sync_directory(self.state)
        return path

    def note(self, path: Path, keys: Mapping[str, str]) -> None:
        """Note in a backup which resources have which keys, now that they have them."""
        macs = {name: self._mac(key) for name, key in keys.items()}
        self._write(path, msgspec.structs.replace(self._read(path), keys=macs))

    def resource_of(self, key: str) -> str | None:
        """Return the resource that a key went to before, from whichever project."""
        mac = self._mac(key)
        kept = (self._read(path) for _, path in sorted(self._numbered("*")))
        return next((name for backup in kept for name, each in backup.keys.items() if each == mac), None)

    def undo(
        self, project: Folder, home: Folder, of: str = "", taken_out: TakenOut = lambda _file, _now: None
    ) -> Iterator[tuple[str, str]]:
        """Put files back as they were, the newest change first; yield each with why it was not, if so.

        ``of`` is what stands after the project's path in the name under which they were kept; ``taken_out`` says what a
        file that somebody else has changed since is without the change, if it can be told.

        A file that is not as it was left stays, and so does its backup.
        """
        for _, path in sorted(self._numbered(_digest(f"{project.path}{of}")), reverse=True):
            backup, refused = self._read(path), ""
            for file in reversed(backup.files):
                why = _put_back(home if file.in_home else project, file, taken_out)
                refused = refused or why
                yield file.shown, why
            if backup.files and not refused:
                self._write(path, msgspec.structs.replace(backup, files=()))

    def _mac(self, key: str) -> str:
        return self.sealer.mac(b"init\n" + key.encode()).hex()

    def _read(self, path: Path) -> Backup:
        sealed = read_regular(path, MAX_BACKUP)
        return msgspec.json.decode(self.sealer.open(sealed, os.fsencode(path.name)), type=Backup)

    def _write(self, path: Path, backup: Backup) -> None:
        write_private(path, self.sealer.seal(msgspec.json.encode(backup), os.fsencode(path.name)), over=True)

    def _numbered(self, digest: str) -> list[tuple[int, Path]]:
        found = (self.state / self.command).glob(f"{digest}.*.sealed")
        return [(int(number), path) for path in found if (number := path.name.split(".")[1]).isdigit()]


def _digest(project: str) -> str:
    return sha256(os.fsencode(project)).hexdigest()[:32]


def _put_back(folder: Folder, file: KeptFile, taken_out: TakenOut) -> str:
    try:
        found = folder.read(file.name)
        now = None if found is None else found.text
        if now == file.before:
            return ""
        if now is not None and now != file.after and (without := taken_out(file, now)) is not None:
            folder.replace(file.name, now, without, file.mode)
            return ""
        if now != file.after:
            made = "remove it yourself" if file.before is None else "bring it to what was made of it first"
            return f"it has changed since: {made}"
        folder.replace(file.name, file.after, file.before, file.mode)
    except (OSError, RemitError) as error:
        return str(error)
    return ""
