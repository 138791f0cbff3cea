from __future__ import annotations

from pathlib import Path

import pytest

from remit.errors import IntegrityError
from remit.keys.file import FileSealer
from remit.keys.origin import NAME, log_origin

SEALER = FileSealer(b"k" * 32)


def test_the_name_stays_what_it_was_when_the_log_was_begun(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    assert log_origin(keys, SEALER, "first.test/audit") == "first.test/audit"
    assert log_origin(keys, SEALER, "second.test/audit") == "first.test/audit"
    assert (keys / NAME).stat().st_mode & 0o777 == 0o600


def test_a_name_that_was_changed_is_refused_with_the_file_that_helps(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    log_origin(keys, SEALER, "first.test/audit")
    *start, last = (keys / NAME).read_bytes()
    (keys / NAME).write_bytes(bytes([*start, last ^ 1]))
    with pytest.raises(IntegrityError) as refused:
        log_origin(keys, SEALER, "first.test/audit")
    assert str(keys / NAME) in (refused.value.help or "")


def test_a_name_that_another_key_sealed_is_refused(tmp_path: Path) -> None:
    log_origin(tmp_path / "keys", FileSealer(b"o" * 32), "first.test/audit")
    with pytest.raises(IntegrityError):
        log_origin(tmp_path / "keys", SEALER, "first.test/audit")
