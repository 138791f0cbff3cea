from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import Certificate
from msgspec import structs

from remit.cli.entry import run
from remit.compose import doctor
from remit.compose.doctor import CheckResult
from remit.config.settings import Places, Settings, read
from remit.core.audit import Event
from remit.core.secret import Secret
from remit.errors import EngineRefusedError
from remit.identity.fetch import HttpFetch
from remit.keys.file import FileSealer
from remit.ports import Finding as TargetFinding
from remit.run import sandbox
from remit.stores.sqlite import SqliteStore
from tests.broker.world import OPERATOR, FullEngine, warehouse
from tests.compose.test_probe import KEY, certificate, written
from tests.identity.issuing import URL, Site, public
from tests.identity.issuing import ec as key_of
from tests.sdk.plane import Served, served


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return the settings of a state with a database and a key."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    for name in ("remit.db", "kek"):
        (state / name).touch(mode=0o600)
    return read(Places(tmp_path / "config.toml", state, state / "run"), {})


def only(findings: Iterable[CheckResult]) -> CheckResult:
    [finding] = findings
    return finding


def test_a_private_state_is_good(settings: Settings) -> None:
    assert only(doctor.modes(settings)).level == "good"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_file_that_others_may_touch_is_wrong(settings: Settings, mode: int) -> None:
    path = settings.places.state / "kek"
    path.chmod(mode)
    finding = only(doctor.modes(settings))
    assert (finding.level, str(path) in finding.text) == ("wrong", True)


def test_the_public_key_of_the_log_may_be_read_by_all(settings: Settings) -> None:
    path = settings.places.state / "audit.vkey"
    path.touch()
    path.chmod(0o644)
    assert only(doctor.modes(settings)).level == "good"


def test_no_state_yet_is_good(tmp_path: Path) -> None:
    nothing = read(Places(tmp_path / "c", tmp_path / "none", tmp_path / "run"), {})
    for check in (doctor.modes, doctor.custody, doctor.clock):
        assert only(check(nothing)).level == "good"


def test_a_key_beside_its_database_protects_copies_alone(settings: Settings) -> None:
    assert only(doctor.custody(settings)).level == "warning"


def test_a_key_on_another_disk_is_good(settings: Settings) -> None:
    elsewhere = next(path for path in (Path("/dev/null"), Path("/proc/version")) if path.exists())
    assert only(doctor.custody(read(settings.places, {"keys": {"kek": str(elsewhere)}}))).level == "good"


def test_without_policies_it_is_said_who_decides(settings: Settings) -> None:
    finding = only(doctor.policies(settings))
    assert (finding.level, finding.text) == (
        "good",
        "none are configured: the owner of this state alone may open tasks",
    )


def test_policies_are_read_as_the_broker_would(settings: Settings, tmp_path: Path) -> None:
    directory = tmp_path / "policies"
    directory.mkdir(mode=0o755)
    made = read(settings.places, {"policy": {"directory": str(directory)}})
    assert only(doctor.policies(made)).level == "wrong"
    (directory / "main.cedar").write_text('@id("all")\npermit (principal, action, resource);\n')
    assert only(doctor.policies(made)).text.startswith("1 are good: cedar-")
    (directory / "main.cedar").write_text(
        '@id("all")\npermit (principal, action, resource)\nwhen { context.nonsense };\n'
    )
    finding = only(doctor.policies(made))
    assert (finding.level, finding.text) == ("wrong", "main.cedar:3: attribute `nonsense` in context not found")


def test_nothing_is_asked_where_nobody_is_trusted(settings: Settings) -> None:
    assert [*doctor.certificate(settings), *doctor.issuers(settings), *doctor.bundles(settings)] == []


@pytest.mark.parametrize(
    ("made", "key", "level", "said"),
    [
        (certificate("remit.test"), KEY, "good", "the certificate is for remit.test, until "),
        (certificate("other.test"), KEY, "wrong", "the certificate is not for `remit.test`"),
        (certificate("remit.test"), ec.generate_private_key(ec.SECP256R1()), "wrong", "cannot be used"),
        (certificate("remit.test", days=-0.5), KEY, "wrong", "the certificate is good from "),
        (certificate("remit.test", begun=-1), KEY, "wrong", "the certificate is good from "),
        (certificate("remit.test", days=6), KEY, "warning", "the certificate ends at "),
    ],
)
def test_a_certificate_is_looked_at_as_clients_will(
    settings: Settings, tmp_path: Path, made: Certificate, key: ec.EllipticCurvePrivateKey, level: str, said: str
) -> None:
    finding = only(doctor.certificate(structs.replace(settings, tls=written(tmp_path, made, key))))
    assert (finding.name, finding.level) == ("tls", level)
    assert said in finding.text


def test_a_key_that_others_can_read_or_a_certificate_that_is_gone_is_wrong(settings: Settings, tmp_path: Path) -> None:
    tls = written(tmp_path, certificate("remit.test"))
    tls.key.chmod(0o644)
    assert only(doctor.certificate(structs.replace(settings, tls=tls))).help == "chmod 600 tls.key"
    tls.key.chmod(0o600)
    tls.certificate.unlink()
    assert only(doctor.certificate(structs.replace(settings, tls=tls))).level == "wrong"


def test_issuers_are_asked_and_quietly(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(said={"acr_values_supported": ["1"]})
    monkeypatch.setattr(HttpFetch, "__call__", lambda _, url: site(url))
    made = read(settings.places, {"humans": [{"issuer": URL, "client_id": "remit"}]})
    mute = only(doctor.issuers(made))
    assert (mute.level, "nobody there can decide" in mute.text) == ("warning", True)
    assert "client_secret_file" in str(mute.help)
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text("s")
    web = {"issuer": URL, "client_id": "web", "client_secret_file": str(secret)}
    assert only(doctor.issuers(read(settings.places, {"humans": [web]}))).level == "good"
    weak = read(settings.places, {"humans": [{"issuer": URL, "client_id": "remit", "acr": ["phr"]}]})
    finding = only(doctor.issuers(weak))
    assert (finding.level, finding.name) == ("warning", f"issuer {URL}")
    assert "proves none of `phr`" in finding.text
    site.down = True
    assert only(doctor.issuers(made)).level == "wrong"
    bad = read(settings.places, {"humans": [web | {"client_secret_file": str(tmp_path / "absent")}]})
    assert only(doctor.issuers(bad)).text == "`humans.client_secret_file` cannot be read"
    assert capsys.readouterr().err == ""


def test_bundles_are_fetched(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "bundle.json"
    row = {"name": "prod.test", "bundle_file": str(path), "allow": ["spiffe://prod.test/*"]}
    made = read(settings.places, {"trust_domains": [row]})
    finding = only(doctor.bundles(made))
    assert (finding.name, finding.level) == ("trust domain prod.test", "wrong")
    path.write_text(json.dumps({"keys": [public(key_of(), use="jwt-svid")]}))
    assert only(doctor.bundles(made)).level == "good"


def test_without_a_second_place_a_rollback_cannot_be_seen(settings: Settings) -> None:
    finding = only(doctor.second_place(settings))
    assert finding.level == "warning"
    assert "rollback" in finding.text


def test_a_second_place_that_is_missing_is_wrong(settings: Settings, tmp_path: Path) -> None:
    assert (
        only(doctor.second_place(read(settings.places, {"audit": {"witness": str(tmp_path / "unmounted")}}))).level
        == "wrong"
    )


@pytest.mark.parametrize("put", [os.mkfifo, Path.mkdir, Path.touch])
def test_a_second_place_with_what_is_no_checkpoint_is_wrong(
    settings: Settings, tmp_path: Path, put: Callable[[Path], None]
) -> None:
    put(tmp_path / "checkpoint")
    finding = only(doctor.second_place(read(settings.places, {"audit": {"witness": str(tmp_path)}})))
    assert finding.level == "wrong"


def test_a_second_place_on_the_same_disk_is_a_warning(settings: Settings, tmp_path: Path) -> None:
    assert only(doctor.second_place(read(settings.places, {"audit": {"witness": str(tmp_path)}}))).level == "warning"


def test_a_second_place_elsewhere_is_good(settings: Settings) -> None:
    assert only(doctor.second_place(read(settings.places, {"audit": {"witness": str(Path("/proc"))}}))).level == "good"


def test_a_clock_behind_the_database_is_wrong(settings: Settings) -> None:
    later = (datetime.now(UTC) + timedelta(days=1)).timestamp()
    os.utime(settings.places.state / "remit.db", (later, later))
    finding = only(doctor.clock(settings))
    assert (finding.level, finding.help) == ("wrong", "set the clock")


@pytest.mark.attack("CLK-03")
@pytest.mark.parametrize("served", [False, True])
def test_a_clock_behind_the_last_entry_of_the_log_is_wrong_though_the_file_is_of_now(
    tmp_path: Path,
    served: bool,  # noqa: FBT001 - a parameter
) -> None:
    """As after a jump ahead and back: what is on record is of a time that has not come."""
    made = read(Places(tmp_path / "config.toml", tmp_path / "state", tmp_path / "run"), {})

    async def scene() -> None:
        store = SqliteStore(made.places.state, FileSealer(bytes(32)))
        assert only(doctor.clock(made)).level == "good"
        await store.commit([], [Event("task.open", datetime.now(UTC) + timedelta(days=1), "allow")])
        if not served:
            await store.close()
        finding = only(doctor.clock(made))
        assert (finding.level, finding.text.count("the log's last entry")) == ("wrong", 1)
        assert "`remit clock accept`" in finding.help
        if served:
            await store.commit([], [Event("task.open", datetime.now(UTC), "allow")])
            assert only(doctor.clock(made)).level == "good"
            await store.close()

    asyncio.run(scene())


def test_where_the_log_is_is_said_with_the_last_warning_in_it(settings: Settings) -> None:
    path = settings.places.log
    assert only(doctor.log(settings)).text == f"no broker has written `{path}` yet"
    path.write_text("2026-01-01 00:00:00,000 INFO remit.api all is well\n")
    assert only(doctor.log(settings)).text == f"`{path}`"
    warnings = [f"2026-01-01 00:00:0{second},000 WARNING remit.identity {second}" for second in (1, 2)]
    path.write_text("\n".join([*warnings, "2026-01-01 00:00:03,000 INFO remit.api WARNING is a word", "Traceback"]))
    assert only(doctor.log(settings)) == doctor.good("log", f"`{path}`, the last warning in it: {warnings[1]}")


def test_a_namespace_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'No permissions to create new namespace' >&2\nexit 1\n", "utf-8")
    broken.chmod(0o700)
    assert doctor._try([str(broken)]) == "No permissions to create new namespace"
    assert doctor._try([str(tmp_path / "absent")])
    assert doctor._try(["/bin/true"]) == ""


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("listen = 7\n", 1, "`listen` must be a section: [listen]"),
        ('[policy]\ndirectory = "relative"\n', 2, "`policy.directory` must be an absolute path"),
        ('[[humans]]\nissuer = "https://login.test"\n', None, "`humans.client_id` is missing"),
        ("[[trust_domains]]\n", None, "`trust_domains.name` is missing"),
    ],
)
def test_a_configuration_that_cannot_be_meant_is_the_only_finding(
    tmp_path: Path, text: str, line: int | None, said: str
) -> None:
    config = tmp_path / "remit" / "config.toml"
    config.parent.mkdir()
    config.write_text(text, "utf-8")
    finding = only(doctor.examine({"XDG_CONFIG_HOME": str(tmp_path), "REMIT_STATE_DIR": str(tmp_path / "s")}))
    assert (finding.name, finding.level) == ("configuration", "wrong")
    assert finding.text == (f"{config}: {said}" if line is None else f"{config}:{line}: {said}")


def test_no_broker_is_a_warning(settings: Settings) -> None:
    assert only(doctor.broker(settings)).level == "warning"


@pytest.fixture
def plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """Serve a broker that commands find."""
    with served(tmp_path) as found:
        monkeypatch.setenv("REMIT_SOCKET", str(found.control))
        yield found


def resource(plane: Served, name: str = "postgres warehouse") -> CheckResult:
    places = Places(plane.directory / "c", plane.directory / "state", plane.directory)
    findings = {finding.name: finding for finding in doctor.broker(read(places, {}))}
    assert findings["broker"].level == "good"
    return findings[name]


def test_a_database_that_the_broker_can_log_in_to_is_good(plane: Served) -> None:
    assert resource(plane).level == "good"


def test_a_database_whose_login_became_too_strong_is_wrong(plane: Served) -> None:
    plane.world.target.findings = [TargetFinding("login-superuser", "the login is a superuser", acceptable=False)]
    finding = resource(plane)
    assert (finding.level, finding.text) == ("wrong", "login-superuser: the login is a superuser")


def test_a_database_of_which_something_loud_was_accepted_is_a_warning_for_as_long_as_it_stands(plane: Served) -> None:
    loud = TargetFinding("trust", "anybody gets in", acceptable=True, loud=True)
    plane.world.target.findings = [loud]
    plane.call(plane.broker.put_resource(OPERATOR, warehouse(accept=["trust"]), Secret("admin-pw")))
    finding = resource(plane)
    assert (finding.level, finding.text) == ("warning", "accepted, and it stands: trust: anybody gets in")


def test_a_database_that_refuses_the_login_is_wrong_though_it_answers(
    plane: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refusing(*_: object) -> object:
        raise EngineRefusedError("the database refused the login (SQLSTATE 28P01)", help="set the login's password")

    monkeypatch.setattr(FullEngine, "inspect", refusing)
    finding = resource(plane)
    assert (finding.level, finding.help) == ("wrong", "set the login's password")


def test_a_key_that_is_too_short_to_be_used_is_wrong(plane: Served) -> None:
    assert resource(plane, "http search").level == "good"
    plane.broker._registry._opened["search"] = Secret("short")
    finding = resource(plane, "http search")
    assert (finding.level, "16 characters or more" in finding.text) == ("wrong", True)


def test_the_doctor_prints_all_findings_and_exits_with_one_when_something_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = [CheckResult("clock", "wrong", "it is 1970", "set the clock"), CheckResult("files", "good", "fine")]
    monkeypatch.setattr("remit.compose.doctor.examine", lambda _: wrong)
    assert run(["doctor", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["healthy"] is False
    assert run(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert "clock: set the clock" in printed
    assert printed.startswith("level")
    monkeypatch.setattr("remit.compose.doctor.examine", lambda _: wrong[1:])
    assert run(["doctor"]) == 0


def test_in_a_run_its_own_channel_is_asked_and_nothing_of_the_operators(plane: Served) -> None:
    run(["open", "t", "-r", "search"])
    place = plane.channel("grt_1")
    findings = doctor.examine({"REMIT_SOCKET": str(place.socket), "REMIT_GRANT": "grt_1"})
    assert {finding.name for finding in findings} <= {"bubblewrap", "namespaces", "channel"}
    assert findings[-1] == CheckResult("channel", "good", "the broker answers: this run holds grt_1")


def test_the_doctor_tries_the_very_namespaces_that_a_run_has(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[list[str]] = []

    def tries(command: list[str]) -> str:
        tried.append(command)
        return ""

    monkeypatch.setattr(doctor, "_try", tries)
    findings = list(doctor.nested())
    wanted = list(sandbox.namespaces(sandbox.MachineFacts(os.getuid(), os.getgid(), {})))
    assert tried[0][1 : 1 + len(wanted)] == wanted
    assert "--uid" in wanted
    assert findings[-1].level == "good"


@pytest.mark.parametrize("lacks", [[], ["no autogroup"], ["no autogroup", "no control group"]])
def test_what_this_machine_does_not_bound_of_runs_is_one_line(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, lacks: list[str]
) -> None:
    monkeypatch.setattr(doctor, "unbounded", lambda: lacks)
    found = [finding for finding in doctor.namespaces(settings) if finding.name == "runs"]
    assert [finding.level for finding in found] == ["warning"] * bool(lacks)
    assert all(finding.text.endswith("; ".join(lacks)) for finding in found)


def test_in_a_run_whose_channel_is_gone_the_channel_is_wrong(tmp_path: Path) -> None:
    finding = doctor.channel({"REMIT_SOCKET": str(tmp_path / "none"), "REMIT_GRANT": "grt_1"})
    assert finding.level == "wrong"
