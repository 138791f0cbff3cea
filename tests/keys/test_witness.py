from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from remit.core.audit import Checkpoint, checkpoint, public_bytes
from remit.core.tree import leaf_hash
from remit.errors import IntegrityError, UnavailableError
from remit.keys.file import FileSealer
from remit.keys.signers import FileKeyring
from remit.keys.witness import FileWitness

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
    for size in (1, 5, 9):
        log.witness(place).keep(log.note(size))
        assert log.witness(place).last() == log.note(size)
    assert [path.name for path in place.iterdir()] == ["checkpoint"]


def test_keeping_the_same_checkpoint_again_is_fine(log: Log, place: Path) -> None:
    log.witness(place).keep(log.note(5))
    log.witness(place).keep(log.note(5))


def test_a_checkpoint_never_goes_back(log: Log, place: Path) -> None:
    log.witness(place).keep(log.note(5))
    for older in (log.note(4), log.note(5, b"fork")):
        with pytest.raises(IntegrityError):
            log.witness(place).keep(older)
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
    with pytest.raises(IntegrityError) as refused:
        log.witness(place).last()
    assert str(place / "checkpoint") in (refused.value.help or "")


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff\xfe\x00", b"a\n1\nAAAA\n\n"])
def test_a_damaged_checkpoint_is_an_error_and_not_none(log: Log, place: Path, content: bytes) -> None:
    (place / "checkpoint").write_bytes(content)
    with pytest.raises(IntegrityError):
        log.witness(place).last()


def test_what_cannot_be_read_or_written_is_reported(log: Log, place: Path) -> None:
    (place / "checkpoint").mkdir()
    with pytest.raises(UnavailableError):
        log.witness(place).last()
    (place / "checkpoint").rmdir()
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
