from __future__ import annotations

import stat
from pathlib import Path

import pytest

from remit.errors import DeniedError, UnauthenticatedError, UnavailableError
from remit.sdk.login import ClientRegistration, OpenIDClient
from remit.sdk.session import LoginSession, SessionFile
from tests.sdk.issuer import URL, jwt


def here(tmp_path: Path) -> SessionFile:
    return SessionFile({"REMIT_STATE_DIR": str(tmp_path / "state")})


def kept(sub: str = "alice") -> LoginSession:
    token = jwt({"iss": URL, "sub": sub})
    return LoginSession(URL, "remit", ("openid",), "groups", token, refresh_token="r-1")


def test_a_login_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    here(tmp_path).save(kept())
    mode = (tmp_path / "state" / "session").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    assert here(tmp_path).need() == kept()
    assert here(tmp_path).need().tokens.claims["sub"] == "alice"


def test_a_login_takes_the_place_of_the_last(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "session.new").write_text("half of it")
    here(tmp_path).save(kept("alice"))
    here(tmp_path).save(kept("bob"))
    assert here(tmp_path).need().tokens.claims["sub"] == "bob"
    assert not (tmp_path / "state" / "session.new").exists()


def test_without_a_login_there_is_none(tmp_path: Path) -> None:
    assert here(tmp_path).load() is None
    with pytest.raises(UnauthenticatedError, match="nobody is logged in"):
        here(tmp_path).need()


def away(_: ClientRegistration) -> OpenIDClient:
    raise UnavailableError


def test_a_forgotten_login_is_gone_whether_or_not_the_issuer_answers(tmp_path: Path) -> None:
    here(tmp_path).save(kept())
    with pytest.raises(UnavailableError):
        here(tmp_path).log_out(away)
    assert here(tmp_path).log_out(away) == (False, None)
    assert here(tmp_path).load() is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_login_that_others_could_read_is_not_used(tmp_path: Path, mode: int) -> None:
    here(tmp_path).save(kept())
    (tmp_path / "state" / "session").chmod(mode)
    with pytest.raises(DeniedError, match="others have had access"):
        here(tmp_path).load()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    here(tmp_path).save(kept())
    file = tmp_path / "state" / "session"
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnavailableError):
        here(tmp_path).load()


@pytest.mark.parametrize("raw", ["", "[]", "{}", '{"issuer": 1}'])
def test_a_damaged_login_is_not_used(tmp_path: Path, raw: str) -> None:
    here(tmp_path).save(kept())
    (tmp_path / "state" / "session").write_text(raw)
    with pytest.raises(UnavailableError, match="damaged"):
        here(tmp_path).load()


def test_a_run_has_no_login(tmp_path: Path) -> None:
    here(tmp_path).save(kept())
    with pytest.raises(DeniedError, match="a run has no login"):
        SessionFile({"REMIT_STATE_DIR": str(tmp_path / "state"), "REMIT_GRANT": "grt_1"})


def test_a_login_does_not_print_its_tokens() -> None:
    shown = repr(kept())
    assert "r-1" not in shown
    assert kept().claims_token not in shown
