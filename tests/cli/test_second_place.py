"""A log that was rolled back, as the doctor and the verifier of the log tell it."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from remit.cli.entry import run
from tests.cli.test_broker import REMIT, environ, short

__all__ = ["environ", "short"]


@contextmanager
def up(names: dict[str, str]) -> Iterator[None]:
    """Serve a state while the block runs."""
    with subprocess.Popen([REMIT, "up", "--json"], env=names, stdout=subprocess.PIPE, stderr=-3) as broker:
        assert broker.stdout is not None
        assert broker.stdout.readline()
        try:
            yield
        finally:
            broker.send_signal(signal.SIGTERM)
    assert broker.returncode == 0


@pytest.mark.attack("AUD-05")
def test_a_rollback_is_named_by_the_doctor_and_fails_the_verification(
    environ: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "second").mkdir()
    config = Path(environ["XDG_CONFIG_HOME"], "remit", "config.toml")
    config.write_text(config.read_text() + f'[audit]\nwitness = "{tmp_path / "second"}"\n')
    state = Path(environ["REMIT_STATE_DIR"])
    with up(environ):
        assert run(["keys", "rotate", "token"]) == 0
        assert run(["audit", "verify"]) == 0
    shutil.copytree(state, tmp_path / "backup")
    with up(environ):
        assert run(["keys", "rotate", "spiffe"]) == 0
        run(["doctor"])
        assert "rollback" not in [line.split()[1] for line in capsys.readouterr().out.splitlines()[1:] if line.split()]
    shutil.rmtree(state)
    shutil.copytree(tmp_path / "backup", state)
    with up(environ):
        assert run(["doctor"]) == 1
        assert "the audit log was rolled back" in capsys.readouterr().out
        assert run(["audit", "verify"]) == 1
        assert "rolled back or cut" in capsys.readouterr().err
