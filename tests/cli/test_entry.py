from __future__ import annotations

import io
import os
import pwd
import random
import re
import resource
import signal
import subprocess
import sys
import sysconfig
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import pytest
import typer

from remit.cli.app import app
from remit.cli.entry import FAILED, INTERRUPTED, run, settle, trusted

REMIT = Path(sys.executable).with_name("remit")


def worked() -> float:
    """Return the processor's seconds of our children: what a busy machine does not stretch."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_is_printed_in_less_than_three_tenths_of_a_second() -> None:
    took = []
    for _ in range(5):
        begun = worked()
        subprocess.run([REMIT, "--help"], check=True, capture_output=True)
        took.append(worked() - begun)
    assert min(took) < 0.3


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"remit {version('remit')}\n"


def test_help_imports_neither_the_server_nor_the_client() -> None:
    code = "import sys; from remit.cli.entry import run; run(['--help']); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = done.stdout.rpartition("[")[2]
    for heavy in ("httpx", "uvicorn", "starlette", "cryptography", "asyncpg", "remit.broker", "rich.console"):
        assert f"'{heavy}'" not in loaded


def test_importing_remit_imports_nothing_of_it() -> None:
    code = "import sys, remit; print([name for name in sys.modules if name.startswith(('remit.', 'httpx'))])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_what_lies_in_the_current_directory_is_not_imported(tmp_path: Path) -> None:
    for name in ("typer", "httpx", "rich", "json", "msgspec"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('hijacked')\n", "utf-8")
    environ = {**os.environ, "PYTHONPATH": os.pathsep, "REMIT_STATE_DIR": str(tmp_path / "state")}
    done = subprocess.run([REMIT, "tree"], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, "hijacked" in done.stderr + done.stdout) == (0, False), (
        done.stderr
    )  # of the broker either, which this starts


def test_the_current_directory_leaves_the_path_however_it_is_written(tmp_path: Path) -> None:
    here = str(tmp_path)
    path = ["", ".", "relative", here, f"{here}/../{tmp_path.name}", "/elsewhere"]
    assert trusted(path, here) == ["/elsewhere"]


def test_where_remit_itself_is_installed_stays_on_the_path() -> None:
    site = sysconfig.get_paths()["purelib"]
    library = sysconfig.get_paths()["stdlib"]
    assert trusted([site], site) == [site]
    assert trusted([library], library) == [library]


@pytest.mark.parametrize("arguments", [[], ["resource"], ["audit"], ["secret"]])
def test_a_command_that_needs_another_prints_its_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    told = capsys.readouterr().err
    assert told.splitlines()[0].lower().startswith(" ".join(["usage: remit", *arguments]))
    assert ("\nCommands:\n" in told) is bool(arguments)
    assert "\\x0a" not in told


def test_the_help_has_all_commands_in_groups_and_no_type_of_python(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    told = capsys.readouterr().out
    assert set(re.findall(r"^  ([a-z]+)  ", told, re.MULTILINE)) == set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert "..." not in told.partition("Run agents:")[2]
    for command in (["run"], ["resource", "add"], ["audit", "tail"], ["open"]):
        assert run([*command, "--help"]) == 0
        assert not re.search(r"<[a-z]", capsys.readouterr().out)


def test_an_error_of_ours_is_said_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("remit.cli.sdk.ask", broken)
    assert run(["tree"]) == 1
    error, help_ = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"error: this is a fault of remit's own: ZeroDivisionError at test_entry.py:\d+: ", error)
    assert help_.startswith("help: the broker's log may say more: /")


def test_an_interrupt_is_no_error_message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Interrupting:
        def isatty(self) -> bool:
            raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdin", Interrupting())
    assert run(["secret", "set", "search"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_what_the_machine_refuses_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("remit.cli.sdk.ask", lambda *_: (tmp_path / "absent" / "x").read_bytes())
    assert run(["tree"]) == 1
    assert capsys.readouterr().err.startswith(f"error: No such file or directory: `{tmp_path}/absent/x`\n")


def test_a_reader_that_has_enough_is_no_failure_to_talk_about(tmp_path: Path) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    line = [str(REMIT), "--help"]
    done = subprocess.run(line, stdout=writes, stderr=subprocess.PIPE, cwd=tmp_path, check=False)
    os.close(writes)
    assert done.stderr == b""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_how_to_complete(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    assert "_REMIT_COMPLETE" in capsys.readouterr().out


def test_commands_are_completed() -> None:
    asked = {"_REMIT_COMPLETE": "complete_bash", "COMP_WORDS": "remit re", "COMP_CWORD": "1"}
    done = subprocess.run([REMIT], env={**os.environ, **asked}, capture_output=True, text=True, check=False)
    assert set(done.stdout.split()) == {"renew", "revoke", "resource"}, done.stderr


def ran(command: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line of the shell, in which `"$0" "$@"` is remit with arguments."""
    line = ["sh", "-c", command, str(REMIT), *arguments]
    environ = {name: os.environ[name] for name in ("PATH", "HOME")} | more
    return subprocess.run(line, env=environ, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("streams", "arguments", "code"),
    [
        ("<&-", ["secret", "set", "x"], 2),
        (">&-", ["completion", "bash"], 0),
        (">&-", ["frob"], 2),
        ("<&- >&- 2>&-", ["--help"], 0),
        ("2>&-", ["frob"], 2),
        (">/dev/full", ["--help"], FAILED),
        ("2>/dev/full", ["frob"], 2),
        ("| head -c1 >&2; exit 0", ["completion", "zsh"], 0),
    ],
)
def test_streams_that_are_closed_or_full_are_no_fault_of_ours(streams: str, arguments: list[str], code: int) -> None:
    done = ran(f'"$0" "$@" {streams}', *arguments)
    assert done.returncode == code
    assert b"fault" not in done.stderr
    assert b"Traceback" not in done.stderr
    assert b"Exception" not in done.stderr


def test_what_is_opened_has_not_the_number_of_a_stream_that_was_closed() -> None:
    code = "import os; from remit.cli.entry import open_streams; open_streams(); print(os.open('/', os.O_RDONLY) > 2)"
    done = subprocess.run(["sh", "-c", '"$0" -c "$1" <&- 2>&-', sys.executable, code], capture_output=True, check=False)
    assert done.stdout == b"True\n"


def test_what_a_terminal_cannot_show_is_escaped() -> None:
    code = "from remit.cli.entry import open_streams; open_streams(); print(chr(183))"
    environ = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, check=False)
    assert done.stdout == b"\\xb7\n"


def test_a_working_directory_that_is_gone_is_said(tmp_path: Path) -> None:
    command = f'mkdir {tmp_path}/gone; cd {tmp_path}/gone; rmdir {tmp_path}/gone; exec "$0" "$@"'
    assert ran(command, "--version").returncode == 0
    done = ran(command, "allow")
    assert done.returncode == FAILED
    assert done.stderr.splitlines()[0] == b"error: the working directory is gone"


@pytest.mark.parametrize("home", [{}, {"HOME": ""}, {"HOME": "here"}])
def test_folders_mean_the_same_to_us_and_to_a_broker_elsewhere(home: dict[str, str]) -> None:
    environ = {**home, "REMIT_STATE_DIR": "state", "XDG_STATE_HOME": "here", "XDG_CONFIG_HOME": "/there"}
    settle(environ)
    assert environ == {
        "HOME": pwd.getpwuid(os.geteuid()).pw_dir,
        "REMIT_STATE_DIR": str(Path("state").absolute()),
        "XDG_CONFIG_HOME": "/there",
    }
    settle(environ | {"HOME": "/mine"})
    assert environ["XDG_CONFIG_HOME"] == "/there"


def test_an_interrupt_is_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("remit.cli.sdk.ask", interrupted)
    assert run(["tree"]) == INTERRUPTED
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("loaded", ["remit.cli.entry", "typer", "remit.cli.app"])
def test_an_interrupt_while_it_is_loaded_ends_it_in_silence(loaded: str) -> None:
    code = f"""
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where whoever tests ignores it
class Here:
    def find_spec(self, name, path=None, target=None):
        if name == "{loaded}":
            os.kill(os.getpid(), signal.SIGINT)
from remit.cli import main
sys.meta_path.insert(0, Here())
sys.argv = ["remit", "--help"]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")


def test_an_interrupt_after_a_command_ends_it_in_silence() -> None:
    code = """
import atexit, os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
atexit.register(os.kill, os.getpid(), signal.SIGINT)
from remit.cli import main
sys.argv = ["remit", "--version"]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")


@pytest.mark.parametrize("seed", range(4))
def test_an_interrupt_at_any_time_shows_no_line_of_ours(seed: int) -> None:
    """Python itself, before it has found us, makes a traceback of one; we are found in some ten milliseconds."""
    drawn = random.Random(seed)  # noqa: S311 - the same again
    for _ in range(10):
        with subprocess.Popen([REMIT, "--version"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            with suppress(subprocess.TimeoutExpired):
                process.wait(drawn.uniform(0, 0.2))
            process.send_signal(signal.SIGINT)
            _, told = process.communicate()
        named = re.findall(rb'src/remit/([^"]+)"', told)
        assert set(named) <= {b"__init__.py", b"cli/__init__.py"}, told.decode()


def test_what_ignores_interrupts_goes_on_ignoring_them() -> None:
    code = """
import signal
from remit.cli import interrupted_in_silence
for handler in (signal.SIG_IGN, print, signal.default_int_handler):
    signal.signal(signal.SIGINT, handler)
    interrupted_in_silence()
    print(signal.getsignal(signal.SIGINT) is handler)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "False"]


HOSTILE = (
    *(
        "",
        "-",
        "--",
        "\udcff",
        "a\x1b[31mb",
        "../../etc/passwd",
        "/dev/full",
        "x" * 5_000,
        "n\u00e9",
        "\u202e",
        "'",
        "{}",
    ),
    *("[1", '{"a":', "-1", "1e999", "9" * 20, "@", "%00", "task_", "grt_" + "a" * 22, "lse_\n", "NaN", "--json", "-r"),
    *(
        "search",
        "search:paths=/x",
        "search:",
        "search:=",
        "search:a=b=c",
        ",",
        ":",
        "search:ttl=x",
        "--ttl",
        "-g",
        "--help",
    ),
)
COMMANDS = (
    *("tree", "show", "explain", "resource show", "resource add", "resource remove", "resource test", "resource check"),
    *("secret set", "secret remove", "policy explain", "policy check", "policy test", "open", "delegate", "issue"),
    *("renew", "revoke", "close", "ask", "approve", "deny", "approvals", "audit tail", "audit verify", "keys list"),
    *("keys rotate", "keys revoke", "completion", "status", "resource list", "whoami", "logout", "stop"),
)


@pytest.mark.usefixtures("plane")
@pytest.mark.parametrize("seed", range(40))
def test_no_arguments_make_a_traceback(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REMIT_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    drawn = random.Random(seed)  # noqa: S311 - the same again
    for _ in range(10):
        arguments = [*drawn.choice(COMMANDS).split(), *drawn.choices(HOSTILE, k=drawn.randrange(4))]
        assert run(arguments) in {0, 1, 2}, arguments
        told = capsys.readouterr()
        assert "fault of remit" not in told.err, (arguments, told.err)
        assert "\x1b" not in told.err + told.out, arguments
