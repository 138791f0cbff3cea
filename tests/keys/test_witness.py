from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from threading import Event, active_count
from threading import enumerate as enumerate_threads

import pytest

from remit.core.audit import Checkpoint, checkpoint, public_bytes
from remit.core.tree import leaf_hash
from remit.errors import IntegrityError, UnavailableError
from remit.keys import witness
from remit.keys.file import FileSealer
from remit.keys.signers import FileKeyring
from remit.keys.witness import ORIGIN_FILE, FileWitness, WitnessThread, log_origin

ORIGIN = "remit.example/log"


class Log:
    """A signing key, and checkpoints under it."""

    def __init__(self, place: Path) -> None:
        self.ring = FileKeyring(place / "keys", FileSealer(b"k" * 32), "audit", "Ed25519")

    def note(self, size: int, fork: bytes = b"") -> Checkpoint:
        return checkpoint(ORIGIN, size, leaf_hash(b"%d" % size + fork), self.ring.signer)

    def witness(self, place: Path) -> FileWitness:
        return FileWitness(place, ORIGIN, [public_bytes(jwk) for jwk in self.ring.public_jwks()])


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "second").mkdir()
    return tmp_path / "second"


def test_there_is_no_checkpoint_at_first(log: Log, place: Path) -> None:
    assert log.witness(place).last() is None


def test_the_newest_checkpoint_is_kept_and_nothing_else(log: Log, place: Path) -> None:
    known = None
    for size in (1, 5, 9):
        known = log.witness(place).keep(log.note(size), known)
        assert log.witness(place).last() == log.note(size) == known
    assert [path.name for path in place.iterdir()] == ["checkpoint"]


def test_keeping_the_same_checkpoint_again_is_fine(log: Log, place: Path) -> None:
    log.witness(place).keep(log.note(5))
    log.witness(place).keep(log.note(5))


def test_a_checkpoint_that_the_caller_does_not_know_of_is_told_and_left(log: Log, place: Path) -> None:
    log.witness(place).keep(log.note(5))
    for other in (log.note(4), log.note(5, b"fork"), log.note(6)):
        for known in (None, log.note(3)):
            assert log.witness(place).keep(other, known) == log.note(5)
    assert log.witness(place).last() == log.note(5)


def test_a_missing_place_is_an_error_and_is_not_made(log: Log, place: Path) -> None:
    with pytest.raises(UnavailableError) as caught:
        log.witness(place / "unmounted").last()
    assert str(place) in str(caught.value.help)
    assert not (place / "unmounted").exists()


def test_a_checkpoint_kept_under_the_key_before_still_holds(log: Log, place: Path) -> None:
    note = log.note(5)
    log.witness(place).keep(note)
    log.ring.rotate()
    assert log.witness(place).last() == note


def test_a_checkpoint_of_another_key_is_not_believed(log: Log, place: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(IntegrityError):
        log.witness(place).keep(Log(tmp_path / "other").note(7))
    log.witness(place).keep(log.note(5))
    (place / "checkpoint").write_text(Log(tmp_path / "other").note(7).text)
    with pytest.raises(UnavailableError) as refused:
        log.witness(place).last()
    assert str(place / "checkpoint") in (refused.value.help or "")


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff\xfe\x00", b"a\n1\nAAAA\n\n"])
def test_a_damaged_checkpoint_is_an_error_and_is_not_written_over(log: Log, place: Path, content: bytes) -> None:
    (place / "checkpoint").write_bytes(content)
    with pytest.raises(UnavailableError):
        log.witness(place).last()
    with pytest.raises(UnavailableError):
        log.witness(place).keep(log.note(5))
    assert (place / "checkpoint").read_bytes() == content


def link(path: Path) -> None:
    path.symlink_to(path.parent.parent / "elsewhere")


def linked(path: Path) -> None:
    (path.parent / "real").write_text("x")
    path.symlink_to("real")


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def bound(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


def gigabyte(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 30)


@pytest.mark.parametrize("put", [os.mkfifo, Path.mkdir, link, linked, device, bound, gigabyte])
def test_what_is_no_checkpoint_is_neither_waited_for_nor_read_nor_followed(
    log: Log, place: Path, put: Callable[[Path], None]
) -> None:
    put(place / "checkpoint")
    for call in (log.witness(place).last, lambda: log.witness(place).keep(log.note(1))):
        with pytest.raises(UnavailableError):
            call()
    assert not (place.parent / "elsewhere").exists()


def test_what_was_put_in_the_place_of_the_one_file_is_not_written_through(log: Log, place: Path) -> None:
    (place / f".checkpoint.{os.getpid()}").symlink_to(place.parent / "elsewhere")
    log.witness(place).keep(log.note(1))
    assert log.witness(place).last() == log.note(1)
    assert not (place.parent / "elsewhere").exists()


def test_a_call_that_hangs_holds_one_thread_and_others_are_refused(log: Log, place: Path) -> None:
    released, hanging = Event(), Event()

    class Stalled(FileWitness):
        def last(self) -> Checkpoint | None:
            hanging.set()
            released.wait(10)
            return super().last()

    async def body() -> None:
        before = active_count()
        witness = WitnessThread(Stalled(place, ORIGIN, ()), lambda size, *_: log.note(size))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(witness.last(), 0.01)
        assert hanging.is_set()
        for _ in range(20):
            with pytest.raises(UnavailableError):
                await witness.last()
        assert active_count() == before + 1
        released.set()
        for thread in enumerate_threads():
            if thread.name == "remit-witness":
                thread.join(10)
        assert await witness.last() is None

    asyncio.run(body())


def test_what_cannot_be_read_or_written_is_reported(log: Log, place: Path) -> None:
    (place / f".checkpoint.{os.getpid()}").mkdir()
    with pytest.raises(UnavailableError):
        log.witness(place).keep(log.note(1))


def test_the_file_is_private_whatever_the_umask(log: Log, place: Path) -> None:
    before = os.umask(0)
    try:
        log.witness(place).keep(log.note(1))
    finally:
        os.umask(before)
    assert stat.S_IMODE((place / "checkpoint").stat().st_mode) == 0o600


def test_a_place_that_there_was_no_thread_for_is_asked_again(
    log: Log, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refused:
        def __init__(self, **_: object) -> None:
            pass

        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    async def body() -> None:
        made = WitnessThread(FileWitness(place, ORIGIN, ()), lambda size, *_: log.note(size))
        with monkeypatch.context() as patched:
            patched.setattr(witness, "Thread", Refused)
            for _ in range(2):
                with pytest.raises(UnavailableError, match="no thread"):
                    await made.last()
        assert await made.last() is None

    asyncio.run(body())


# -- the log's name ---------------------------------------------------------------------------------------------------

SEALER = FileSealer(b"k" * 32)


def test_the_name_stays_what_it_was_when_the_log_was_begun(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    assert log_origin(keys, SEALER, "first.test/audit") == "first.test/audit"
    assert log_origin(keys, SEALER, "second.test/audit") == "first.test/audit"
    assert (keys / ORIGIN_FILE).stat().st_mode & 0o777 == 0o600


def test_a_name_that_was_changed_is_refused_with_the_file_that_helps(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    log_origin(keys, SEALER, "first.test/audit")
    *start, last = (keys / ORIGIN_FILE).read_bytes()
    (keys / ORIGIN_FILE).write_bytes(bytes([*start, last ^ 1]))
    with pytest.raises(IntegrityError) as refused:
        log_origin(keys, SEALER, "first.test/audit")
    assert str(keys / ORIGIN_FILE) in (refused.value.help or "")


def test_a_name_that_another_key_sealed_is_refused(tmp_path: Path) -> None:
    log_origin(tmp_path / "keys", FileSealer(b"o" * 32), "first.test/audit")
    with pytest.raises(IntegrityError):
        log_origin(tmp_path / "keys", SEALER, "first.test/audit")
