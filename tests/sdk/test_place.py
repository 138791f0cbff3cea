from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from remit.config.settings import places
from remit.errors import InvalidRequestError, UnavailableError
from remit.sdk.place import Place, control, find, state

ENVIRONMENTS: list[Mapping[str, str]] = [
    {"HOME": "/home/ada"},
    {"HOME": "/home/ada", "XDG_RUNTIME_DIR": "/run/user/1000"},
    {"HOME": "/home/ada", "XDG_STATE_HOME": "/var/ada"},
    {"HOME": "/home/ada", "XDG_RUNTIME_DIR": "/run/user/1000", "REMIT_STATE_DIR": "/srv/remit"},
    {"REMIT_STATE_DIR": "relative"},
    {},
]


@pytest.mark.parametrize("environ", ENVIRONMENTS)
def test_the_client_looks_where_the_broker_listens(environ: Mapping[str, str]) -> None:
    assert control(environ) == places(environ).control
    assert state(environ) == places(environ).state


def test_a_run_names_its_channel_and_its_grant() -> None:
    run = {"REMIT_SOCKET": "/run/remit/channel.sock", "REMIT_GRANT": "grt_1", "REMIT_GATEWAY": "http://127.0.0.1:8471"}
    place = find({**run, "HOME": "/home/ada"})
    assert place == Place(Path("/run/remit/channel.sock"), "grt_1", "http://127.0.0.1:8471")
    assert place.in_run


def test_outside_a_run_there_is_no_grant() -> None:
    assert not find({"HOME": "/home/ada", "REMIT_GRANT": ""}).in_run


@pytest.mark.parametrize("url", ["https://remit.test:8443", "http://127.0.0.1:8470", "tcp:remit.test:1"])
def test_a_url_is_not_taken_for_a_socket(url: str) -> None:
    with pytest.raises(InvalidRequestError, match="not a URL") as refusal:
        find({"REMIT_SOCKET": url})
    assert "OAuth" in (refusal.value.help or "")


def test_a_socket_may_be_named_as_a_url_of_its_own_kind() -> None:
    assert find({"REMIT_SOCKET": "unix:///run/remit/control.sock"}).socket == Path("/run/remit/control.sock")


def test_a_socket_that_is_not_there_is_no_broker(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="no broker answers"):
        Place(tmp_path / "control.sock").check()


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Path]:
    """Return a socket on which this process listens."""
    path = tmp_path / "elsewhere.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        yield path


def noted(tmp_path: Path, told: object, mode: int = 0o600) -> Path:
    note = tmp_path / "broker"
    note.write_text(json.dumps(told))
    note.chmod(mode)
    return control({"REMIT_STATE_DIR": str(tmp_path)})


def test_a_broker_is_where_its_note_says(tmp_path: Path, listening: Path) -> None:
    assert noted(tmp_path, {"control": str(listening), "pid": os.getpid()}) == listening


def test_a_note_of_one_who_does_not_listen_there_misleads_nobody(tmp_path: Path, listening: Path) -> None:
    own = tmp_path / "run" / "control.sock"
    assert noted(tmp_path, {"control": str(listening), "pid": os.getpid() + 1}) == own
    assert noted(tmp_path, {"control": str(tmp_path / "gone.sock"), "pid": os.getpid()}) == own


@pytest.mark.parametrize("told", [None, [], {}, {"control": 7, "pid": 7}, {"control": "a\0b", "pid": 7}])
def test_a_note_that_says_nothing_misleads_nobody(tmp_path: Path, told: object) -> None:
    assert noted(tmp_path, told) == tmp_path / "run" / "control.sock"


def test_a_note_that_others_could_have_written_misleads_nobody(tmp_path: Path, listening: Path) -> None:
    told = {"control": str(listening), "pid": os.getpid()}
    own = tmp_path / "run" / "control.sock"
    assert noted(tmp_path, told, 0o620) == own
    (tmp_path / "broker").rename(tmp_path / "planted")
    (tmp_path / "planted").chmod(0o600)
    (tmp_path / "broker").symlink_to(tmp_path / "planted")
    assert control({"REMIT_STATE_DIR": str(tmp_path)}) == own
    if os.geteuid() == 0:
        (tmp_path / "broker").unlink()
        (tmp_path / "planted").rename(tmp_path / "broker")
        os.chown(tmp_path / "broker", 65_534, -1)
        assert control({"REMIT_STATE_DIR": str(tmp_path)}) == own
