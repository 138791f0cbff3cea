"""The second place for checkpoints: a file in a directory under another custody.

Point it at a mount that whoever can write the state cannot roll back with it. The directory must exist: one made on
the way would hide that the mount is missing, and with it every rollback.

Whoever has custody of it is not trusted with the broker's time: what lies there may be anything, and a call may take
for ever. So a file is opened without waiting and read up to a bound, and all of it happens in one thread.

The log's name (origin) is sealed in a file when the log is begun: its verifier key and checkpoints are evidence, and
count for one name. What the name was taken from, the trust domain, may be changed later; the log stays the same.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TypeVar

from remit.core.audit import MAX_NOTE, Checkpoint, read_checkpoint
from remit.errors import IntegrityError, NotFoundError, UnavailableError
from remit.keys.file import private_directory, read_private, read_regular, write_new, write_private
from remit.ports import Sealer

NAME = "checkpoint"
ORIGIN_FILE = "audit.origin"  # the file, and what is authenticated with its content

T = TypeVar("T")


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

        UnavailableError when the directory is missing, or holds what cannot be read or was not signed here.
        """
        with self._opened() as place:
            return self._last(place)

    def keep(self, checkpoint: Checkpoint, known: Checkpoint | None = None) -> Checkpoint:
        """Keep a checkpoint durably in place of ``known``; return what is kept now.

        That is another one when something else than ``known`` was there: the caller has to look at it first.
        """
        read_checkpoint(checkpoint.text, self._origin, self._publics)
        with self._opened() as place:
            last = self._last(place)
            if last is not None and last != known:
                return last
            if checkpoint != last:
                fresh = f".{NAME}.{os.getpid()}"
                with suppress(FileNotFoundError):
                    os.unlink(fresh, dir_fd=place)
                write_new(fresh, checkpoint.text.encode(), place)
                os.replace(fresh, NAME, src_dir_fd=place, dst_dir_fd=place)
                os.fsync(place)
        return checkpoint

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """Lend the directory, locked where its file system can: two brokers do not write over each other unseen."""
        try:
            place = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise UnavailableError(
                "the second place for checkpoints is missing", help=f"mount or create `{self._directory}`"
            ) from error
        try:
            with suppress(OSError):
                fcntl.flock(place, fcntl.LOCK_EX)
            yield place
        except OSError as error:
            raise UnavailableError(
                f"the second place for checkpoints cannot be read or written: {error.strerror}",
                help=f"look at `{self._directory / NAME}`",
            ) from error
        finally:
            os.close(place)

    def _last(self, place: int) -> Checkpoint | None:
        try:
            return read_checkpoint(read_regular(NAME, MAX_NOTE, place).decode(), self._origin, self._publics)
        except FileNotFoundError:
            return None
        except (IntegrityError, UnicodeDecodeError) as error:
            why = error.detail if isinstance(error, IntegrityError) else "it is not text"
            where = self._directory / NAME
            raise UnavailableError(
                f"what the second place keeps is not believed: {why}",
                help=f"find out who wrote `{where}`, then remove it: it is of another log, or by a revoked key",
            ) from error


class WitnessThread:
    """A file witness as the broker's loop sees it: the file work is done elsewhere."""

    def __init__(self, witness: FileWitness, sign: Callable[[int, bytes, int], Checkpoint]) -> None:
        """Do the work of ``witness``; ``sign`` makes a checkpoint of size, root and epoch."""
        self._witness, self._sign, self._aside = witness, sign, Aside()

    async def last(self) -> Checkpoint | None:
        return await self._aside.do(self._witness.last)

    async def keep(self, size: int, root: bytes, epoch: int, known: Checkpoint | None) -> tuple[Checkpoint, bool]:
        mine = self._sign(size, root, epoch)
        kept = await self._aside.do(partial(self._witness.keep, mine, known))
        return kept, kept is mine  # a broker on a copy of this state may have signed one that is the same


class Aside:
    """Does what may hang in a thread, one call at a time.

    A call that hangs holds a thread that nothing waits for; until it returns, others are refused at once.
    """

    def __init__(self) -> None:
        self._busy = False

    async def do(self, work: Callable[[], T]) -> T:
        """Return or raise what ``work`` does; UnavailableError while another call hangs."""
        if self._busy:
            raise UnavailableError("the second place for checkpoints does not answer")
        self._busy = True
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        try:
            Thread(target=self._done, args=(work, answer), name="remit-witness", daemon=True).start()
        except RuntimeError as error:
            self._busy = False
            raise UnavailableError("the second place cannot be asked: there is no thread for it") from error
        return await answer

    def _done(self, work: Callable[[], T], answer: asyncio.Future[T]) -> None:
        try:
            settle = partial(answer.set_result, work())
        except Exception as error:  # noqa: BLE001 - whoever asked is told
            settle = partial(answer.set_exception, error)
        self._busy = False
        with suppress(RuntimeError):  # the loop has ended, and with it whoever waited
            answer.get_loop().call_soon_threadsafe(lambda: None if answer.done() else settle())


def log_origin(directory: Path, sealer: Sealer, begun: str) -> str:
    """Return the origin that ``directory`` (mode 0700) keeps; the first time it is ``begun``, and is kept.

    IntegrityError when the file was changed, or was sealed under another key.
    """
    private_directory(directory)
    path = directory / ORIGIN_FILE
    try:
        sealed = read_private(path)
    except NotFoundError:
        write_private(path, sealer.seal(begun.encode(), ORIGIN_FILE.encode()))
        sealed = read_private(path)
    try:
        return sealer.open(sealed, ORIGIN_FILE.encode()).decode()
    except IntegrityError as error:
        raise IntegrityError("the name of the audit log does not open", help=f"restore `{path}`") from error
