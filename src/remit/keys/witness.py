"""The second place for checkpoints: a file in a directory under another custody.

Point it at a mount that whoever can write the state cannot roll back with it. The directory must exist: one made on
the way would hide that the mount is missing, and with it every rollback.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from remit.core.audit import Checkpoint, read_checkpoint
from remit.errors import IntegrityError, UnavailableError
from remit.keys.file import FILE_MODE, sync_directory

NAME = "checkpoint"


class FileWitness:
    """Keeps the newest checkpoint of one log."""

    def __init__(self, directory: Path, origin: str, publics: Sequence[bytes]) -> None:
        """Keep it in ``directory``; only checkpoints of ``origin`` signed by one of the Ed25519 keys are taken."""
        self._directory, self._origin, self._publics = directory, origin, tuple(publics)

    def trust(self, publics: Sequence[bytes]) -> None:
        """Take checkpoints that one of these keys signed, and no others, from now on."""
        self._publics = tuple(publics)

    def last(self) -> Checkpoint | None:
        """Return the newest checkpoint kept, or None when there is none yet.

        UnavailableError when the directory is missing; IntegrityError when what is kept was not signed here.
        """
        if not self._directory.is_dir():
            raise UnavailableError(
                "the second place for checkpoints is missing", help=f"mount or create `{self._directory}`"
            )
        try:
            text = (self._directory / NAME).read_text("utf-8")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UnavailableError("the kept checkpoint cannot be read") from error
        except UnicodeDecodeError as error:
            raise IntegrityError("the kept checkpoint is damaged") from error
        return self._read(text)

    def _read(self, text: str) -> Checkpoint:
        try:
            return read_checkpoint(text, self._origin, self._publics)
        except IntegrityError as error:
            where = self._directory / NAME
            hint = f"find out who wrote `{where}`: it is of another log, or signed by a key that was revoked"
            raise IntegrityError(f"what the second place keeps is not believed: {error.detail}", help=hint) from error

    def keep(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint durably, in place of an older one; IntegrityError for one that goes back or disagrees."""
        read_checkpoint(checkpoint.text, self._origin, self._publics)
        last = self.last()
        if last is not None and checkpoint.text == last.text:
            return
        same = last is not None and (checkpoint.size, checkpoint.root) == (last.size, last.root)  # by another key
        if last is not None and checkpoint.size <= last.size and not same:
            raise IntegrityError(f"a checkpoint of {last.size} entries is kept already, and this one is not newer")
        try:
            self._replace(checkpoint.text.encode())
        except OSError as error:
            raise UnavailableError("the checkpoint cannot be kept in the second place") from error

    def _replace(self, content: bytes) -> None:
        fresh = self._directory / f".{NAME}.{os.getpid()}"
        fresh.unlink(missing_ok=True)
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(os.open(fresh, flags, FILE_MODE), "wb") as file:  # noqa: PTH123 - by descriptor, for the flags
            os.fchmod(file.fileno(), FILE_MODE)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._directory / NAME)
        sync_directory(self._directory)
