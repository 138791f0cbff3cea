"""Configuration: places by XDG, unknown keys refused, nothing that would weaken security."""

from __future__ import annotations

from pathlib import Path

import pytest

from remit.config import settings
from remit.errors import InvalidRequestError


def test_places_follow_xdg(tmp_path: Path) -> None:
    where = settings.places({"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "rt")})
    assert where.state == tmp_path / ".local/state/remit"
    assert where.control == tmp_path / "rt/remit/control.sock"
    assert where.handover("1") == tmp_path / "rt/remit/handover-1.sock"
    assert where.config == tmp_path / ".config/remit/config.toml"


def test_a_state_directory_of_its_own_holds_its_sockets_too(tmp_path: Path) -> None:
    where = settings.places({"REMIT_STATE_DIR": str(tmp_path / "s"), "XDG_RUNTIME_DIR": "/run/user/1"})
    assert (where.state, where.runtime) == (tmp_path / "s", tmp_path / "s/run")


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    found = settings.load({"HOME": str(tmp_path)})
    assert (found.api, found.gateway, found.issuer) == (
        ("127.0.0.1", 8470),
        ("127.0.0.1", 8471),
        "http://127.0.0.1:8470",
    )


def test_a_file_is_read(tmp_path: Path) -> None:
    config = tmp_path / "remit/config.toml"
    config.parent.mkdir()
    config.write_text(
        '[listen]\napi = "off"\ngateway = "[::1]:9000"\n[audit]\nwitness = "/second"\n[keys]\nkek = "/k"\n'
        '[identity]\ntrust_domain = "acme"\n'
    )
    found = settings.load({"XDG_CONFIG_HOME": str(tmp_path), "HOME": "/"})
    assert (found.api, found.gateway, found.audit.witness, found.keys.kek) == (
        None,
        ("::1", 9000),
        Path("/second"),
        Path("/k"),
    )
    assert (found.identity.trust_domain, found.issuer) == ("acme", "http://127.0.0.1:8470")


@pytest.mark.parametrize(
    "text",
    [
        "[listen",
        "[listen]\nport = 1",
        "[unknown]\n",
        "listen = 3",
        '[listen]\napi = "0.0.0.0:8470"',
        '[listen]\napi = "127.0.0.1"',
        '[listen]\napi = "127.0.0.1:0"',
        '[listen]\napi = "localhost:80"',
        "[listen]\napi = 8470",
        '[audit]\nwitness = "relative"',
    ],
)
def test_what_is_wrong_is_refused(tmp_path: Path, text: str) -> None:
    config = tmp_path / "remit/config.toml"
    config.parent.mkdir()
    config.write_text(text)
    with pytest.raises(InvalidRequestError):
        settings.load({"XDG_CONFIG_HOME": str(tmp_path)})


def test_bytes_that_are_not_text_are_refused(tmp_path: Path) -> None:
    config = tmp_path / "remit/config.toml"
    config.parent.mkdir()
    config.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidRequestError, match="UTF-8"):
        settings.load({"XDG_CONFIG_HOME": str(tmp_path)})


def test_what_was_read_is_plain_text_that_anything_can_encode() -> None:
    human = {"issuer": "https://a.test", "client_id": "remit", "groups_claim": "/a", "acr": "phr", "name": "Work"}
    rule = {"issuer": "https://b.test", "match": {"sub": "job"}, "claims": ["ref"]}
    where = settings.places({"REMIT_STATE_DIR": "/nowhere"})
    found = settings.read(where, {"humans": [human], "workloads": [rule], "kinds": {"toy": "1.0"}})
    (person,), (job,) = found.humans, found.workloads
    values = (person.issuer, person.client_id, person.groups_claim, person.name, found.kinds["toy"])
    assert {type(value) for value in (*values, found.identity.trust_domain)} == {str}
    assert {type(value) for value in (person.scopes, person.acr, job.match["sub"], job.claims)} == {tuple}
