from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from remit.cli.entry import PLAIN_UP, run
from remit.compose.embedded import answers, ensure
from remit.compose.up import embedded
from remit.config.settings import places
from remit.errors import UnavailableError
from remit.stores import private
from tests.identity.spire import Authority, server
from tests.support.postgres_server import free_port

EMBEDDED = "import os; from remit.compose.embedded import ensure; ensure(os.environ)"
WAITING = """
import os, sys
from remit.compose import embedded
embedded.time.sleep = lambda _: (print("waits", flush=True), sys.stdin.readline())
embedded.ensure(os.environ)
"""
REMIT = Path(sys.executable).with_name("remit")


@pytest.fixture
def short() -> Iterator[Path]:
    """Return a folder whose name leaves room for those of sockets (unix(7): 107 bytes), however long pytest's is."""
    with tempfile.TemporaryDirectory(prefix="remit-") as folder:
        yield Path(folder)


@pytest.fixture
def environ(short: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return the environment of a broker that listens on sockets alone."""
    config = short / "config" / "remit"
    config.mkdir(parents=True)
    (config / "config.toml").write_text('[listen]\napi = "off"\ngateway = "off"\n', "utf-8")
    names = {"XDG_CONFIG_HOME": str(config.parent), "REMIT_STATE_DIR": str(short / "state")}
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    return {**os.environ, **names}


@pytest.fixture
def up(environ: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Start a broker; end it."""
    broker = subprocess.Popen([REMIT, "up", "--json"], env=environ, stdout=subprocess.PIPE, stderr=-3, text=True)
    yield broker
    broker.send_signal(signal.SIGTERM)
    assert broker.wait(20) == 0
    assert broker.stdout is not None
    broker.stdout.close()


def test_a_broker_says_when_it_listens_and_ends_when_told(
    up: subprocess.Popen[str], environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert up.stdout is not None
    told = json.loads(up.stdout.readline())
    control = f"{environ['REMIT_STATE_DIR']}/run/control.sock"
    log = f"{environ['REMIT_STATE_DIR']}/log"
    assert told == {"api": None, "control": control, "gateway": None, "log": log, "tls": None}
    assert Path(log).exists()
    assert run(["tree"]) == 0
    assert "no task is open" in capsys.readouterr().out


def test_the_status_of_a_broker_names_its_processes(
    up: subprocess.Popen[str], environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert up.stdout is not None
    up.stdout.readline()
    assert run(["status", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in told["processes"]] == ["supervisor", "authority", "edge"]
    assert [one["pid"] for one in told["processes"]][:1] == [up.pid]
    assert all(psutil.Process(one["pid"]).ppid() == up.pid for one in told["processes"][1:])
    assert (told["supervised"], told["tasks"], told["runs"]) == (True, 0, 0)
    control = f"{environ['REMIT_STATE_DIR']}/run/control.sock"
    assert told["listens"] == {"control": control, "api": None, "gateway": None, "tls": None}
    assert run(["status"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown[:4]] == ["process", "supervisor", "authority", "edge"]
    assert "open tasks: 0; runs: 0" in shown


def answered(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as web:
        web.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % port)
        return web.recv(12)


def test_all_edges_answer_at_the_port_of_the_gateway(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    config = Path(environ["XDG_CONFIG_HOME"]) / "remit" / "config.toml"
    config.write_text(f'[listen]\napi = "off"\ngateway = "127.0.0.1:{port}"\n', "utf-8")
    broker = subprocess.Popen([REMIT, "up", "--edges", "2", "--json"], env=environ, stdout=subprocess.PIPE, text=True)
    assert broker.stdout is not None
    broker.stdout.readline()
    assert run(["status", "--json"]) == 0
    pids = {one["name"]: one["pid"] for one in json.loads(capsys.readouterr().out)["processes"]}
    assert list(pids) == ["supervisor", "authority", "edge", "edge.2"]
    for stopped in (pids["edge"], pids["edge.2"]):
        os.kill(stopped, signal.SIGSTOP)
        assert answered(port) == b"HTTP/1.1 401"  # by the other
        os.kill(stopped, signal.SIGCONT)
    broker.send_signal(signal.SIGTERM)
    assert broker.wait(20) == 0
    broker.stdout.close()


def test_who_needs_a_broker_waits_for_one_that_ends_and_then_starts_one(environ: dict[str, str]) -> None:
    subprocess.run([sys.executable, "-c", EMBEDDED], env=environ, check=True)
    assert run(["down"]) == 0
    held = private.hold(places(environ).database, os.O_RDWR)  # as by a broker that answers nobody any more
    command = [sys.executable, "-c", WAITING]
    with subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        private.release([held])
        process.communicate(timeout=60)
    assert (process.returncode, answers(environ)) == (0, True)
    assert run(["down"]) == 0


def test_a_broker_that_keeps_the_state_and_answers_nobody_is_named(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run([sys.executable, "-c", EMBEDDED], env=environ, check=True)
    assert run(["down"]) == 0
    held = private.hold(places(environ).database, os.O_RDWR)
    monkeypatch.setattr("remit.compose.embedded.PATIENCE", 0.0)
    with pytest.raises(UnavailableError, match=f"process {os.getpid()} has the state"):
        ensure(environ)
    private.release([held])


def test_the_health_of_a_broker_is_that_of_its_authority(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    config = Path(environ["XDG_CONFIG_HOME"]) / "remit" / "config.toml"
    config.write_text(f'[listen]\napi = "127.0.0.1:{port}"\ngateway = "off"\n', "utf-8")
    with subprocess.Popen([REMIT, "up", "--json"], env=environ, stdout=subprocess.PIPE, text=True) as broker:
        assert broker.stdout is not None
        broker.stdout.readline()
        assert run(["status", "--json"]) == 0
        [authority] = [
            one["pid"] for one in json.loads(capsys.readouterr().out)["processes"] if one["name"] == "authority"
        ]
        for number, status in ((signal.SIGSTOP, 503), (signal.SIGCONT, 200)):
            os.kill(authority, number)
            deadline = time.monotonic() + 20
            while (found := httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=20).status_code) != status:
                assert time.monotonic() < deadline, found
        broker.send_signal(signal.SIGTERM)
        assert broker.wait(20) == 0


def test_what_keeps_a_broker_from_starting_is_said_with_its_remedy(environ: dict[str, str]) -> None:
    where = places(environ)
    where.state.mkdir(mode=0o755)
    where.state.chmod(0o755)
    done = subprocess.run([REMIT, "tree"], env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        f"error: others may open the state\nhelp: chmod 700 '{where.state}'\n",
    )


@pytest.mark.parametrize("count", ["0", "9", "x"])
def test_a_number_of_edges_that_cannot_be_is_a_misuse(
    environ: dict[str, str], count: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["up", "--edges", count]) == 2
    assert "--edges" in capsys.readouterr().err
    assert not Path(environ["REMIT_STATE_DIR"]).exists()


@pytest.mark.parametrize(
    ("line", "edges"),
    [
        ("up", None),
        ("up --json", None),
        ("up --edges 2", "2"),
        ("up --edges=8 --json", "8"),
        ("up --json --edges 3", "3"),
    ],
)
def test_a_plain_up_needs_no_reader_of_command_lines(line: str, edges: str | None) -> None:
    found = PLAIN_UP.fullmatch(line)
    assert found is not None
    assert found[1] == edges


@pytest.mark.parametrize("line", ["up --edges", "up --edges 9", "up --edges 12", "up --help", "up x", "update"])
def test_any_other_is_read_as_all_commands_are(line: str) -> None:
    assert PLAIN_UP.fullmatch(line) is None


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_broker_says_where_other_hosts_reach_it(environ: dict[str, str], options: list[str]) -> None:
    url = f"https://127.0.0.1:{free_port()}"
    state = Path(environ["REMIT_STATE_DIR"])
    state.mkdir(mode=0o700)
    pair = Path(environ["XDG_CONFIG_HOME"]) / "remit" / "tls.pem"
    pair.touch(0o600)
    pair.write_bytes(server(Authority.root("the web"), "127.0.0.1").pem)
    config = Path(environ["XDG_CONFIG_HOME"]) / "remit" / "config.toml"
    with config.open("a") as file:
        file.write(f'[tls]\nlisten = "{url[8:]}"\nnames = ["127.0.0.1"]\ncertificate = "{pair}"\nkey = "{pair}"\n')
    broker = subprocess.Popen([REMIT, "up", *options], env=environ, stdout=-1, stderr=subprocess.STDOUT, text=True)
    assert broker.stdout is not None
    told = broker.stdout.readline() + ("" if options else broker.stdout.readline())
    broker.send_signal(signal.SIGTERM)
    assert broker.wait(20) == 0
    broker.stdout.close()
    assert url in told


def test_a_broker_starts_without_those_it_trusts_and_says_who_is_loaded(environ: dict[str, str]) -> None:
    state = Path(environ["REMIT_STATE_DIR"])
    config = Path(environ["XDG_CONFIG_HOME"]) / "remit" / "config.toml"
    with config.open("a") as file:
        file.write('[[trust_domains]]\nname = "prod.test"\nallow = ["spiffe://prod.test/*"]\n')
        file.write(f'bundle_file = "{state}/nothing.json"\n')
    broker = subprocess.Popen([REMIT, "up"], env=environ, stderr=subprocess.PIPE, text=True)
    assert broker.stderr is not None
    told = next(line for line in broker.stderr if "trust domain" in line)
    broker.send_signal(signal.SIGTERM)
    assert broker.wait(20) == 0
    broker.stderr.close()
    assert told.startswith("  trust domain prod.test: not yet, and nobody of it is let in before: the bundle file ")


def test_the_log_of_a_broker_is_verified_with_the_key_beside_its_state(
    up: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert up.stdout is not None
    up.stdout.readline()
    assert run(["audit", "verify", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["signed"] is True


@pytest.mark.slow
def test_a_broker_is_found_from_anywhere(short: Path, environ: dict[str, str]) -> None:
    home = {"HOME": str(short), "PATH": os.environ["PATH"]}
    told = home | {"XDG_RUNTIME_DIR": str(short / "runtime"), "XDG_CONFIG_HOME": environ["XDG_CONFIG_HOME"]}
    (short / "work").mkdir()
    with subprocess.Popen([REMIT, "up", "--json"], env=told, stdout=subprocess.PIPE, stderr=-3, text=True) as broker:
        assert broker.stdout is not None
        assert json.loads(broker.stdout.readline())["control"] == f"{short}/runtime/remit/control.sock"

        def asked(*command: str, **more: str) -> subprocess.CompletedProcess[str]:
            line = [str(REMIT), *command]
            done = subprocess.run(
                line, env=home | more, cwd=short / "work", capture_output=True, text=True, check=False, timeout=60
            )
            assert done.returncode == 0, done.stderr
            return done

        bound = ["-b", "actions=GET,paths=/v1/**,args=any"]
        asked("resource", "add", "search", "http://127.0.0.1:9", *bound)
        assert asked("run", "-q", "-r", "search", "--net", "host", "--", "echo", "hello").stdout == "hello\n"
        elsewhere = asked("status", "--json", XDG_RUNTIME_DIR=str(short / "other"))
        assert json.loads(elsewhere.stdout)["processes"][0]["pid"] == broker.pid
        note = short / ".local/state/remit/broker"
        assert note.stat().st_mode & 0o777 == 0o600
        broker.send_signal(signal.SIGTERM)
        assert broker.wait(20) == 0
    assert not note.exists()


@pytest.mark.slow
def test_a_command_that_needs_a_broker_starts_one(environ: dict[str, str]) -> None:
    def asked(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([REMIT, *command], env=environ, capture_output=True, text=True, check=False, timeout=60)

    assert asked("status").stderr.startswith("error: no broker answers")
    listed = asked("resource", "list", "--json")
    assert (listed.returncode, json.loads(listed.stdout)) == (0, {"resources": []}), listed.stderr
    assert embedded(private.holder(places(environ).lock))
    assert asked("down").returncode == 0


def test_the_death_of_a_worker_is_in_the_log(up: subprocess.Popen[str], environ: dict[str, str]) -> None:
    assert up.stdout is not None
    told = json.loads(up.stdout.readline())
    [edge] = [each for each in psutil.Process(up.pid).children() if each.name() == "remit edge"]
    edge.kill()
    edge.wait(30)
    assert run(["status"]) == 0  # of the supervisor, which has told of the death before
    assert "ERROR remit the edge died (-9) and is started again" in Path(told["log"]).read_text("utf-8")
    assert environ["REMIT_STATE_DIR"] in told["log"]


def test_a_second_broker_on_the_same_state_is_refused(up: subprocess.Popen[str], environ: dict[str, str]) -> None:
    assert up.stdout is not None
    up.stdout.readline()
    second = subprocess.run([REMIT, "up"], env=environ, capture_output=True, text=True, check=False, timeout=30)
    assert second.returncode == 1
    [authority] = [each for each in psutil.Process(up.pid).children() if each.name() == "remit authority"]
    assert second.stderr.startswith(f"error: another broker serves this state: process {authority.pid}\n")
    assert "`remit down`" in second.stderr  # who kills that process has the supervisor start it again


def test_a_port_that_another_process_has_is_one_clear_error(environ: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        config = Path(environ["XDG_CONFIG_HOME"]) / "remit" / "config.toml"
        config.write_text(f'[listen]\napi = "off"\ngateway = "127.0.0.1:{port}"\n', "utf-8")
        done = subprocess.run([REMIT, "up"], env=environ, capture_output=True, text=True, check=False, timeout=30)
    help_ = 'help: set `listen.gateway` to another, or to "off"'
    assert (done.returncode, done.stderr.splitlines()) == (1, [f"error: 127.0.0.1:{port} is in use", help_])


@pytest.mark.parametrize("place", ["/proc/x", "/dev/null/state"])
def test_a_state_directory_that_cannot_be_made_is_one_clear_error(environ: dict[str, str], place: str) -> None:
    names = environ | {"REMIT_STATE_DIR": place}
    done = subprocess.run([REMIT, "up"], env=names, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    assert first.startswith("error: the state directory cannot be used: ")
    assert second.startswith(f"help: look at `{place}`")


@pytest.mark.slow
def test_an_idle_broker_that_a_run_started_is_outwaited(
    environ: dict[str, str], request: pytest.FixtureRequest
) -> None:
    where = places(environ)
    subprocess.run([sys.executable, "-c", EMBEDDED], env=environ, check=True, timeout=30)
    idle = private.holder(where.state / "lock")
    assert embedded(idle)
    up = request.getfixturevalue("up")
    assert json.loads(up.stdout.readline())["control"] == str(where.control)
    assert not embedded(idle)
    serving = private.holder(where.state / "lock")
    assert serving in {each.pid for each in psutil.Process(up.pid).children()}


def test_what_no_run_started_is_not_waited_for() -> None:
    assert not embedded(os.getpid())
    assert not embedded(None)


def test_the_demo_is_told_how_to_print(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("examples.demo.main", lambda as_json: 3 if as_json else 4)
    assert run(["demo", "--json"]) == 3
    assert run(["demo"]) == 4
