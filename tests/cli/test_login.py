from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from remit.cli.entry import run
from remit.cli.login import session_token
from remit.errors import DeniedError, GrantTokenError
from remit.run.spec import LaunchSpec
from remit.sdk.login import OpenIDClient, claims_of
from tests.sdk.issuer import URL, FakeIssuer

LOGIN = ["login", "--issuer", URL, "--client-id", "remit"]


@pytest.fixture
def issuer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeIssuer:
    """Stand at a terminal with a browser, beside an issuer."""
    made = FakeIssuer()
    monkeypatch.setenv("REMIT_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("REMIT_GRANT", raising=False)
    monkeypatch.setattr("remit.sdk.login.OpenIDClient", lambda at: OpenIDClient(at, made.transport))
    monkeypatch.setattr("webbrowser.open", made.visit)
    monkeypatch.setattr("remit.compose.embedded.ensure", lambda *_: None)  # there is no broker
    monkeypatch.setattr("remit.cli.login.pause", lambda seconds: wait(made, seconds))
    return made


def wait(issuer: FakeIssuer, seconds: float) -> None:
    """Let time pass at the issuer."""
    issuer.at += round(seconds)


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Run a command that succeeds, and read the JSON it prints."""

    def call(*arguments: str) -> dict[str, Any]:
        capsys.readouterr()
        assert run([*arguments, "--json"]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return call


def test_a_login_by_browser_shows_who_it_is(issuer: FakeIssuer, told: Callable[..., dict[str, Any]]) -> None:
    issuer.claims = {"groups": ["analysts"], "acr": "gold", "auth_time": 1_900_000_000}
    shown = told(*LOGIN)
    assert shown == told("whoami")
    assert shown == {
        "issuer": URL,
        "sub": "alice",
        "groups": ["analysts"],
        "acr": "gold",
        "auth_time": datetime.fromtimestamp(1_900_000_000, UTC).isoformat(),
        "token_until": datetime.fromtimestamp(2_000_000_000, UTC).isoformat(),
        "renewable": True,
    }


def test_no_token_is_ever_printed(issuer: FakeIssuer, capsys: pytest.CaptureFixture[str]) -> None:
    run(LOGIN)
    run(["whoami"])
    run(["logout"])
    assert issuer.codes == 1
    printed = "".join(capsys.readouterr())
    assert "eyJ" not in printed
    assert "r-1" not in printed


@pytest.mark.usefixtures("issuer")
def test_a_login_by_device_shows_where_and_what_to_enter(capsys: pytest.CaptureFixture[str]) -> None:
    FakeIssuer.polls = []
    assert run([*LOGIN, "--device"]) == 0
    shown = capsys.readouterr().err
    assert f"{URL}/enter" in shown
    assert "BCDF" in shown


def test_logging_out_forgets_and_gives_the_refresh_token_back(
    issuer: FakeIssuer, told: Callable[..., dict[str, Any]]
) -> None:
    run(LOGIN)
    assert told("logout") == {
        "forgotten": True,
        "revoked": True,
        "page": f"{URL}/end?client_id=remit&logout_hint=alice",
    }
    assert issuer.forms[-1][0] == "/revoke"
    assert run(["whoami"]) == 1


@pytest.mark.usefixtures("issuer")
def test_logging_out_twice_is_no_failure(told: Callable[..., dict[str, Any]]) -> None:
    assert told("logout") == {"forgotten": True, "revoked": False, "page": None}


def test_a_login_that_others_could_read_is_forgotten_all_the_same(issuer: FakeIssuer, tmp_path: Path) -> None:
    run(LOGIN)
    (tmp_path / "state" / "session").chmod(0o644)
    assert run(["whoami"]) == 1
    assert run(["logout"]) == 0
    assert not (tmp_path / "state" / "session").exists()
    assert issuer.codes == 1


@pytest.mark.parametrize("command", [LOGIN, ["whoami"], ["logout"]])
def test_in_a_run_there_is_no_login(
    issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    monkeypatch.setenv("REMIT_GRANT", "grt_1")
    assert run(command) == 1
    assert "a run has no login" in capsys.readouterr().err
    assert issuer.forms == []


# -- for other commands -----------------------------------------------------------------------------------------------


def test_every_use_takes_a_new_id_token_and_the_refresh_token_that_came_with_the_last(issuer: FakeIssuer) -> None:
    run(LOGIN)
    first = session_token(as_owner=False)
    issuer.at += 1
    second = session_token(as_owner=False)
    assert first is not None
    assert second is not None
    used = [form["refresh_token"] for _, form in issuer.forms if form.get("grant_type") == "refresh_token"]
    assert used == ["r-1", "r-2"]


def test_a_token_that_the_issuer_makes_twice_within_a_second_is_not_used_twice(issuer: FakeIssuer) -> None:
    run(LOGIN)
    began = issuer.at
    tokens = [session_token(as_owner=False) for _ in range(3)]
    assert len(set(tokens)) == 3
    assert issuer.at == began + 2
    issuer.at += 60
    assert session_token(as_owner=False) not in tokens
    assert issuer.at == began + 62  # it did not have to wait


@pytest.mark.usefixtures("issuer")
def test_an_issuer_that_gives_the_same_token_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    run(LOGIN)
    monkeypatch.setattr("remit.cli.login.pause", lambda _: None)
    assert session_token(as_owner=False) is not None
    with pytest.raises(GrantTokenError, match="the same ID token"):
        session_token(as_owner=False)


def test_without_refresh_tokens_a_login_opens_one_task(issuer: FakeIssuer) -> None:
    issuer.token = {"refresh_token": None}
    run(LOGIN)
    assert session_token(as_owner=False) is not None
    with pytest.raises(GrantTokenError, match="opens one task"):
        session_token(as_owner=False)


def test_a_login_that_the_issuer_has_ended_is_no_longer_called_renewable(
    issuer: FakeIssuer, told: Callable[..., dict[str, Any]]
) -> None:
    run(LOGIN)
    assert told("whoami")["renewable"] is True
    issuer.token = {"error": "temporarily_unavailable"}
    with pytest.raises(DeniedError):
        session_token(as_owner=False)
    assert told("whoami")["renewable"] is True
    issuer.token = {"error": "invalid_grant"}
    with pytest.raises(GrantTokenError):
        session_token(as_owner=False)
    assert told("whoami")["renewable"] is False
    asked = len(issuer.forms)
    with pytest.raises(GrantTokenError, match="cannot be renewed any more"):
        session_token(as_owner=False)
    assert len(issuer.forms) == asked
    issuer.token = {}
    assert told(*LOGIN)["renewable"] is True
    assert session_token(as_owner=False) is not None


def test_a_login_that_has_ended_is_said_and_is_not_the_owners_instead(issuer: FakeIssuer) -> None:
    run(LOGIN)
    issuer.token = {"error": "invalid_grant"}
    with pytest.raises(GrantTokenError) as refusal:
        session_token(as_owner=False)
    assert refusal.value.help == "log in again with `remit login`"
    assert refusal.value.__notes__ == ["with --as-owner nobody has to be logged in"]


def test_the_owner_needs_no_login(issuer: FakeIssuer) -> None:
    run(LOGIN)
    assert session_token(as_owner=True) is None
    assert issuer.codes == 1


@pytest.mark.usefixtures("issuer")
def test_where_nobody_is_logged_in_the_owner_is_meant() -> None:
    assert session_token(as_owner=False) is None


def test_a_login_is_not_for_runs(issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    run(LOGIN)
    monkeypatch.setenv("REMIT_GRANT", "grt_1")
    assert session_token(as_owner=False) is None
    assert issuer.codes == 1


# -- which issuer -----------------------------------------------------------------------------------------------------


def test_an_issuer_of_the_brokers_configuration_is_used(
    issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch, told: Callable[..., dict[str, Any]]
) -> None:
    known = {"issuer": URL, "client_id": "remit", "scopes": ["openid", "groups"], "groups_claim": "roles"}
    monkeypatch.setattr("remit.cli.sdk.ask", lambda _: {"humans": [known]})
    issuer.claims = {"roles": ["on-call"]}
    assert told("login")["groups"] == ["on-call"]
    assert issuer.asked["scope"] == "openid groups offline_access"


ONE = {"issuer": URL, "client_id": "remit"}
APP = {"issuer": URL, "client_id": "app"}
ELSEWHERE = {"issuer": "https://b.test", "client_id": "remit"}


@pytest.mark.usefixtures("issuer")
@pytest.mark.parametrize(
    ("known", "options", "said"),
    [
        ([], [], "knows no such client"),
        ([ONE], ["--issuer", "https://other.test"], f"it knows `remit` at {URL}"),
        ([ONE, ELSEWHERE], [], f"several clients: `remit` at {URL}, `remit` at https://b.test"),
        ([ONE, ELSEWHERE], [], "choose with --issuer\n"),
        ([ONE, APP], [], f"several clients: `remit` at {URL}, `app` at {URL}"),
        ([ONE, APP], [], "choose with --client-id\n"),
        ([ONE, APP], ["--issuer", URL], "choose with --client-id\n"),
        ([ONE, APP, ELSEWHERE], [], "choose with --issuer and --client-id\n"),
        ([ONE, APP, ELSEWHERE], ["--client-id", "remit"], "choose with --issuer\n"),
    ],
)
def test_a_client_that_is_not_clear_has_to_be_named(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    known: list[dict[str, str]],
    options: list[str],
    said: str,
) -> None:
    monkeypatch.setattr("remit.cli.sdk.ask", lambda _: {"humans": known})
    assert run(["login", *options]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--client-id", "remit"], ["--issuer", URL, "--client-id", "remit"]])
def test_of_two_clients_at_one_issuer_the_one_that_is_named_is_used_as_configured(
    issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch, told: Callable[..., dict[str, Any]], options: list[str]
) -> None:
    mine = {**ONE, "scopes": ["openid", "groups"], "groups_claim": "roles"}
    monkeypatch.setattr("remit.cli.sdk.ask", lambda _: {"humans": [APP, mine]})
    issuer.claims = {"roles": ["on-call"]}
    assert told("login", *options)["groups"] == ["on-call"]
    assert issuer.asked["client_id"] == "remit"
    assert issuer.asked["scope"] == "openid groups offline_access"


@pytest.mark.parametrize(
    ("claim", "claims", "groups"),
    [
        ("groups", {"groups": ["a"]}, ["a"]),
        ("groups", {"groups": "a"}, ["a"]),
        ("groups", {"groups": []}, []),
        ("/access/roles", {"access": {"roles": ["a"]}}, ["a"]),
    ],
)
def test_groups_are_found_where_they_are_configured_to_be(
    issuer: FakeIssuer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    claim: str,
    claims: dict[str, object],
    groups: list[str],
) -> None:
    monkeypatch.setattr("remit.cli.sdk.ask", lambda _: {"humans": [{**ONE, "groups_claim": claim}]})
    issuer.claims = claims
    assert run(["login", "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["groups"] == groups
    assert "warning" not in told.err


@pytest.mark.parametrize("claim", ["groups", "/access/roles"])
@pytest.mark.usefixtures("issuer")
def test_a_configured_claim_of_groups_that_is_not_there_is_warned_of_at_each_look(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], claim: str
) -> None:
    monkeypatch.setattr("remit.cli.sdk.ask", lambda _: {"humans": [{**ONE, "groups_claim": claim}]})
    for command in ("login", "whoami"):
        assert run([command]) == 0
        told = capsys.readouterr().err
        assert f"warning: the ID token has no claim `{claim}`" in told
        assert "scopes" in told
        assert "log in again" in told


@pytest.mark.usefixtures("issuer")
def test_where_no_claim_of_groups_is_configured_none_is_missed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("remit.cli.sdk.ask", lambda _: {"humans": [ONE]})
    assert run(["login"]) == 0
    assert "warning" not in capsys.readouterr().err


# -- runs -------------------------------------------------------------------------------------------------------------


def test_a_run_is_opened_for_whoever_is_logged_in(issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    specs: list[LaunchSpec] = []

    def main(spec: LaunchSpec, *_: object) -> int:
        specs.append(spec)
        return 0

    monkeypatch.setattr("remit.run.launcher.main", main)
    run(LOGIN)
    monkeypatch.setattr("remit.cli.sdk.ask", lambda _: [{"type": "http", "resource": "search"}])
    run(["run", "-r", "search", "--", "true"])
    run(["run", "-r", "search", "--as-owner", "--", "true"])
    opened: list[Any] = [spec.request["open"] for spec in specs]
    assert claims_of(opened[0]["id_token"])["sub"] == "alice"
    assert "id_token" not in opened[1]
    assert issuer.codes == 2
    assert "session" in {path.name for path in specs[0].apart}
