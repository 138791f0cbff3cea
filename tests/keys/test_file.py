from __future__ import annotations

import hmac
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.errors import IntegrityError, NotFoundError, UnavailableError
from remit.keys import file
from remit.keys.file import FileSealer, load_kek, read_private, write_private

KEK = b"k" * 32


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_key_file_is_made_once_and_read_back(tmp_path: Path) -> None:
    made = load_kek(tmp_path / "kek", create=True)
    assert len(made) == 32
    assert load_kek(tmp_path / "kek", create=True) == made
    assert load_kek(tmp_path / "kek", create=False) == made
    assert [path.name for path in tmp_path.iterdir()] == ["kek"]


def test_two_key_files_differ(tmp_path: Path) -> None:
    assert load_kek(tmp_path / "a", create=True) != load_kek(tmp_path / "b", create=True)


def test_a_missing_key_file_is_not_made_unasked(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        load_kek(tmp_path / "kek", create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_key_file_is_never_written_over(tmp_path: Path) -> None:
    write_private(tmp_path / "kek", KEK)
    write_private(tmp_path / "kek", b"z" * 32)
    assert read_private(tmp_path / "kek") == KEK


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_a_key_file_is_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        load_kek(tmp_path / "kek", create=True)
    finally:
        os.umask(before)
    assert mode(tmp_path / "kek") == 0o600


@pytest.mark.parametrize("loose", [0o640, 0o604, 0o660, 0o620, 0o601, 0o700, 0o4600])
def test_a_looser_mode_is_refused_and_the_chmod_named(tmp_path: Path, loose: int) -> None:
    write_private(tmp_path / "kek", KEK)
    (tmp_path / "kek").chmod(loose)
    with pytest.raises(IntegrityError) as caught:
        load_kek(tmp_path / "kek", create=True)
    assert caught.value.help == f"chmod 600 '{tmp_path}/kek'"
    assert str(tmp_path) not in caught.value.detail


def test_a_tighter_mode_is_fine(tmp_path: Path) -> None:
    write_private(tmp_path / "kek", KEK)
    (tmp_path / "kek").chmod(0o400)
    assert load_kek(tmp_path / "kek", create=False) == KEK


@pytest.mark.parametrize("content", [b"", b"k" * 31, b"k" * 33, b"k" * 32 + b"\n"])
def test_a_key_of_another_length_is_refused(tmp_path: Path, content: bytes) -> None:
    write_private(tmp_path / "kek", content)
    with pytest.raises(IntegrityError, match="32 bytes"):
        load_kek(tmp_path / "kek", create=True)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    write_private(tmp_path / "real", KEK)
    (tmp_path / "kek").symlink_to(tmp_path / "real")
    with pytest.raises(UnavailableError):
        load_kek(tmp_path / "kek", create=True)


def test_a_directory_in_place_of_the_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kek").mkdir(mode=0o600)
    with pytest.raises(IntegrityError, match="not a file"):
        load_kek(tmp_path / "kek", create=True)


def test_a_pipe_in_place_of_the_key_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "kek", 0o600)
    with pytest.raises(IntegrityError, match="not a file"):
        load_kek(tmp_path / "kek", create=True)


def test_a_place_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError) as caught:
        load_kek(tmp_path / "missing" / "kek", create=True)
    assert isinstance(caught.value.__cause__, OSError)


@given(st.binary(max_size=300), st.binary(max_size=60))
def test_what_is_sealed_opens_with_its_associated_data_only(plaintext: bytes, associated: bytes) -> None:
    sealer = FileSealer(KEK)
    sealed = sealer.seal(plaintext, associated)
    assert sealer.open(sealed, associated) == plaintext
    with pytest.raises(IntegrityError):
        sealer.open(sealed, associated + b"\x00")


def test_every_changed_or_missing_byte_is_noticed() -> None:
    sealer = FileSealer(KEK)
    sealed = sealer.seal(b"static secret", b"name")
    for spot in range(len(sealed)):
        for broken in (sealed[:spot] + bytes([sealed[spot] ^ 1]) + sealed[spot + 1 :], sealed[:spot], b""):
            with pytest.raises(IntegrityError):
                sealer.open(broken, b"name")


def test_another_key_opens_nothing() -> None:
    with pytest.raises(IntegrityError):
        FileSealer(b"j" * 32).open(FileSealer(KEK).seal(b"text", b""), b"")


def test_the_same_text_is_sealed_differently_each_time() -> None:
    sealer = FileSealer(KEK)
    assert len({sealer.seal(b"text", b"") for _ in range(1_000)}) == 1_000


def test_a_mac_depends_on_key_and_data_and_is_not_the_key_of_the_seal() -> None:
    sealer = FileSealer(KEK)
    assert len(sealer.mac(b"row")) == 32
    assert sealer.mac(b"row") == FileSealer(KEK).mac(b"row")
    assert len({sealer.mac(b"row"), sealer.mac(b"row2"), FileSealer(b"j" * 32).mac(b"row")}) == 3
    assert file.subkey(KEK, "seal") != file.subkey(KEK, "mac")


def test_a_subkey_is_hkdf_expand_of_rfc_5869() -> None:
    step = hmac.digest(KEK, b"remit/1/seal" + b"\x01", "sha256")  # T(1), RFC 5869 §2.3
    assert file.subkey(KEK, "seal") == step
