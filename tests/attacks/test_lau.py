"""Launch hygiene: what an agent with code execution in a run can see and touch of its launcher, and of other runs."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.run.rig import READ, House, house, opening

HERE = Path(__file__).parent
PROBE = str(HERE / "probe.py")
BIND = [[PROBE, False]]
DRIVE = str(HERE.parent / "run" / "drive.py")
NAMES = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "OPENAI_API_KEY", "ANTHROPIC_API_KEY"),
    *("GEMINI_API_KEY", "GITHUB_TOKEN", "GH_TOKEN", "SLACK_BOT_TOKEN", "DATABASE_URL", "PGPASSWORD", "NPM_TOKEN"),
    *("PYPI_TOKEN", "STRIPE_API_KEY", "AZURE_CLIENT_SECRET", "GOOGLE_APPLICATION_CREDENTIALS", "DOCKER_AUTH_CONFIG"),
    *("VAULT_TOKEN", "HF_TOKEN", "SENTRY_DSN"),
)
ALLOWED = {
    *("PATH", "HOME", "USER", "LC_CTYPE"),  # Python sets LC_CTYPE itself in the C locale
    *("REMIT_GRANT", "REMIT_SOCKET", "REMIT_GATEWAY", "REMIT_URL_SEARCH", "REMIT_KEY_SEARCH", "REMIT_PORT_WAREHOUSE"),
}
HIJACKS = {
    *("LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONSTARTUP", "NODE_OPTIONS", "BASH_ENV", "ENV", "DYLD_INSERT_LIBRARIES"),
    *("GIT_SSH_COMMAND", "GIT_DIR", "PERL5OPT", "RUBYOPT", "JAVA_TOOL_OPTIONS"),
}


def canary(number: int = 0) -> str:
    """Return a fresh value to look for."""
    return f"CANARY-{number}-{secrets.token_hex(8)}"


def operator() -> dict[str, str]:
    """Return an operator's environment with twenty keys in it."""
    return {name: canary(number) for number, name in enumerate(NAMES)}


def probe(runs: House, name: str, *arguments: object, **more: object) -> dict[str, object]:
    """Run one probe in a sandbox and return what it found."""
    command = [sys.executable, PROBE, name, *map(str, arguments)]
    done = runs.run(command, None, **{"environ": operator(), "binds": BIND, **more})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


@pytest.fixture
def runs() -> Iterator[House]:
    with house() as built:
        yield built


@pytest.mark.live
@pytest.mark.attack("LAU-01")
def test_no_key_of_the_operator_is_in_what_a_command_is_given(runs: House) -> None:
    found = probe(runs, "itself")
    assert found["canaries"] == []
    assert set(found["names"]) - {"LC_CTYPE"} == ALLOWED - {"LC_CTYPE"}  # type: ignore[call-overload]  # a list of names


@pytest.mark.live
@pytest.mark.attack("LAU-01")
def test_the_probe_finds_the_keys_where_they_are(runs: House) -> None:
    found = probe(runs, "itself", env=[f"{name}" for name in NAMES])
    assert len(found["canaries"]) == len(NAMES)  # type: ignore[arg-type]  # a list


@pytest.mark.live
@pytest.mark.attack("LAU-02")
def test_no_ancestor_can_be_read_or_held(runs: House) -> None:
    found = probe(runs, "processes", os.getpid(), os.getppid())
    assert (found["canaries"], found["held"]) == ([], [])
    assert found["pids"] == [1, 2]  # bubblewrap's init, and the probe


@pytest.mark.live
@pytest.mark.attack("LAU-02")
def test_the_launcher_is_unreadable_to_others_of_its_user_before_it_does_anything(tmp_path: Path) -> None:
    launch = """
import ctypes, sys
from pathlib import Path
from remit.errors import UnavailableError
from remit.run import launcher
from remit.run.spec import LaunchSpec
try:
    launcher.main(LaunchSpec(("true",), Path(sys.argv[1]), {}, Path("/"), {}))
except UnavailableError:
    print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))  # PR_GET_DUMPABLE
"""
    command = [sys.executable, "-c", launch, str(tmp_path / "absent")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "0\n"


def _home(folder: Path) -> None:
    for number, name in enumerate(
        (".env", ".netrc", ".aws/credentials", ".npmrc", ".docker/config.json", ".git-credentials", ".ssh/id_ed25519")
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(canary(number))
    path = folder / ".config/gcloud/application_default_credentials.json"
    path.parent.mkdir(parents=True)
    path.write_text(canary(99))


@contextmanager
def agent(path: Path) -> Iterator[None]:
    """Listen as a key agent does."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        yield


@pytest.mark.live
@pytest.mark.attack("LAU-03")
def test_no_file_or_socket_of_the_operator_is_there(runs: House) -> None:
    _home(runs.folder / "home")
    (runs.folder / "beside").write_text(canary())
    with agent(runs.folder / "home" / "agent.sock"):
        extra = {"SSH_AUTH_SOCK": str(runs.folder / "home" / "agent.sock"), "XDG_RUNTIME_DIR": str(runs.folder)}
        found = probe(runs, "files", environ={**operator(), **extra})
    assert found["found"] == {}
    assert found["sockets"] == ["/run/remit/channel.sock", "/run/remit/launch.sock"]


@pytest.mark.live
@pytest.mark.attack("LAU-03")
def test_credential_files_of_the_working_directory_are_empty_and_named(runs: House) -> None:
    for name in (".env", ".env.local", ".netrc"):
        (runs.project / name).write_text(canary())
    done = runs.run([sys.executable, PROBE, "files"], binds=BIND)
    assert json.loads(done.stdout)["found"] == {}
    assert done.stderr.count("holds credentials and is empty in this run") == 3
    assert runs.run(["cat", ".env"]).stdout == ""
    assert runs.run(["sh", "-c", "cat .env"], quiet=True).returncode == 0


INSIDE = """
import json, os, subprocess, sys
asked = {"socket": os.environ["REMIT_SOCKET"], "request": {"grant": os.environ["REMIT_GRANT"]}}
told = {"command": ["cat", ".env"], "quiet": True, **asked}
done = subprocess.run([sys.executable, sys.argv[1], json.dumps(told)], capture_output=True, text=True)
print(json.dumps([done.returncode, done.stdout]))
"""


@pytest.mark.live
@pytest.mark.attack("LAU-03")
def test_a_run_inside_a_run_covers_the_same_files(runs: House) -> None:
    (runs.project / ".env").write_text(canary())
    done = runs.python(INSIDE, DRIVE, binds=[[DRIVE, False]])
    assert json.loads(done.stdout) == [0, ""]


LEFT = {
    ".env.\nremit: approved by the operator": "\\x0aremit: approved",
    ".env.\x1b]0;owned\x07\x1b[2K\x1b[1A": "\\x1b]0;owned\\x07\\x1b[2K",
    ".env.\rwarning: none": "\\x0dwarning: none",
    ".env.\u202etxt": "\\u202etxt",
    ".env.\x9b2J": "\\u009b2J",
}


@pytest.mark.live
@pytest.mark.attack("LAU-13")
@pytest.mark.parametrize("unsandboxed", [False, True])
def test_names_that_a_run_left_do_not_drive_the_terminal_of_the_next(
    runs: House,
    unsandboxed: bool,  # noqa: FBT001 - a parameter
) -> None:
    for name in LEFT:
        (runs.project / name).write_text(canary())
    done = runs.run(["true"], unsandboxed=unsandboxed)
    assert all(shown in done.stderr for shown in LEFT.values())
    assert all(line.startswith(("note: ", "warning: ")) and line.isprintable() for line in done.stderr.split("\n")[:-1])


@pytest.mark.live
@pytest.mark.attack("LAU-13")
def test_names_that_are_no_text_keep_no_run_from_starting(runs: House) -> None:
    folder = runs.project / os.fsdecode(b"\xff")
    folder.mkdir()
    (folder / os.fsdecode(b".env.\xfe")).write_text(canary())
    done = runs.run(["sh", "-c", 'cat .env.*; basename "$PWD" | od -An -tx1'], cwd=folder)
    assert (done.returncode, done.stdout) == (0, " ff 0a\n")
    assert ".env.\\udcfe holds" in done.stderr


@pytest.mark.live
@pytest.mark.attack("LAU-13")
def test_a_command_that_cannot_be_executed_is_named_in_one_line(runs: House) -> None:
    done = runs.run(["./no\nremit: approved\x1b[2K"])
    assert done.stderr.startswith("error: `./no\\x0aremit: approved\\x1b[2K` cannot be executed")


@pytest.mark.live
@pytest.mark.slow
@pytest.mark.attack("LAU-13")
def test_many_credential_files_are_all_covered(runs: House) -> None:
    few, hard = 64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for number in range(4 * few):
        (runs.project / f".env.{number}").write_text(canary())
    done = runs.run(
        ["sh", "-c", "cat .env.*"], preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.live
@pytest.mark.attack("LAU-03")
def test_without_a_sandbox_it_says_which_credential_files_can_be_read(runs: House) -> None:
    _home(runs.folder / "home")
    done = runs.run(["true"], unsandboxed=True)
    readable = [line for line in done.stderr.splitlines() if line.startswith("warning: it can read")]
    assert len(readable) == 8


@pytest.mark.live
@pytest.mark.attack("LAU-03")
def test_the_probe_finds_a_file_that_is_there(runs: House) -> None:
    (runs.project / "mine").write_text(canary())
    assert list(probe(runs, "files")["found"]) == [str(runs.project / "mine")]  # type: ignore[call-overload]  # a dict


@pytest.mark.live
@pytest.mark.attack("LAU-03")
def test_no_key_of_the_operators_keyrings_can_be_reached(runs: House) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    add, control = {"x86_64": (248, 250), "aarch64": (217, 219)}[os.uname().machine]
    value = canary().encode()
    key = libc.syscall(add, b"user", b"remit-probe", value, len(value), -4)  # in the user's own keyring
    if key < 0:
        pytest.skip("this kernel has no keyrings")
    ring = libc.syscall(control, 0, -4, 0)  # its number, by which anybody of the same uid can name it
    try:
        found = probe(runs, "keyrings", key, ring)
    finally:
        libc.syscall(control, 9, key, -4)
    assert found == {"canaries": [], "worked": []}


@pytest.mark.live
@pytest.mark.attack("LAU-04")
def test_no_descriptor_of_the_launcher_is_inherited(runs: House) -> None:
    with (runs.folder / "secret").open("w+") as file, socket.socket() as sock:
        found = probe(runs, "itself", pass_fds=(file.fileno(), sock.fileno()))
    assert found["opened"] == []


@pytest.mark.live
@pytest.mark.attack("LAU-04")
def test_nothing_that_listens_outside_can_be_reached(runs: House) -> None:
    name = secrets.token_hex(8)
    with socket.socket(socket.AF_UNIX) as abstract, socket.create_server(("127.0.0.1", 0)) as port:
        abstract.bind(f"\0{name}")
        abstract.listen()
        found = probe(runs, "doors", name, port.getsockname()[1])
    assert found == {"reached": [], "vsock": "refused", "terminals": ["ptmx"]}


@pytest.mark.live
@pytest.mark.attack("LAU-05")
def test_nothing_in_the_working_directory_runs_with_the_launchers_authority(runs: House) -> None:
    witness = runs.folder / "hijacked"
    strike = f"open({str(witness)!r}, 'a').write(__name__ + chr(10))\n"
    modules = ("sitecustomize", "usercustomize", "json", "socket", "struct", "ctypes", "encodings", "remit", "typing")
    for name in modules:
        (runs.project / f"{name}.py").write_text(strike)
    (runs.project / "evil.pth").write_text(f"import os; {strike}")
    site = runs.folder / f"home/.local/lib/python3.{sys.version_info.minor}/site-packages"
    site.mkdir(parents=True)
    (site / "evil.pth").write_text(f"import os; {strike}")
    for name in ("bwrap", "sh", "python3"):
        (runs.project / name).write_text(f"#!/bin/sh\necho {name} >> {witness}\n")
        (runs.project / name).chmod(0o755)
    path = f"{runs.project}:{os.environ['PATH']}"
    assert runs.run(["/bin/true"], environ={"PATH": path}).returncode == 0
    assert not witness.exists()


@pytest.mark.live
@pytest.mark.attack("LAU-05")
def test_variables_that_make_programs_load_code_are_dropped(runs: House) -> None:
    found = probe(runs, "itself", environ=dict.fromkeys(HIJACKS, ""))
    assert set(found["names"]) & HIJACKS == set()  # type: ignore[call-overload]  # a list of names


@pytest.mark.live
@pytest.mark.attack("LAU-05")
def test_an_agent_cannot_leave_code_in_the_launchers_interpreter(runs: House) -> None:
    place = Path(sys.prefix)
    planted = (place / "planted", place / "lib" / "planted")
    try:
        done = runs.run(["sh", "-c", f"touch {planted[0]} {planted[1]}; true"], cwd=place.parent)
        assert done.stderr.count("Read-only file system") == 2
        assert not any(path.exists() for path in planted)
    finally:
        for path in planted:
            path.unlink(missing_ok=True)


ARGUMENTS = [
    "; touch pwned",
    "$(touch pwned)",
    "`touch pwned`",
    "a && b",
    "a\nb",
    "--config=x",
    "-c",
    "%0a",
    "",
    "'\"\\",
    "*",
]


@pytest.mark.live
@pytest.mark.attack("LAU-06")
def test_arguments_arrive_exactly_as_they_were_given(runs: House) -> None:
    done = runs.python("import json, sys; print(json.dumps(sys.argv[1:]))", *ARGUMENTS)
    assert json.loads(done.stdout) == ARGUMENTS
    assert list(runs.project.iterdir()) == []


@pytest.mark.live
@pytest.mark.attack("LAU-06")
@pytest.mark.parametrize("command", ["--help", "--bind", "-c", "../project/none", "true;true", "true true"])
def test_a_command_is_a_program_and_never_an_option_or_a_line(runs: House, command: str) -> None:
    assert runs.run([command, "/", "/"]).returncode == 127


ASK = """
import http.client, json, os, socket, sys
def greet(family, address):
    with socket.socket(family) as sock:
        try:
            sock.connect(address)
        except OSError as error:
            return type(error).__name__
        return sock.recv(99).decode().strip()
copied = json.loads(sys.argv[1])
port = int(copied["REMIT_GATEWAY"].rpartition(":")[2])
def ask(method, path, body=None):
    channel = http.client.HTTPConnection("localhost")
    channel.sock = socket.socket(socket.AF_UNIX)
    channel.sock.connect(copied["REMIT_SOCKET"])
    channel.request(method, path, body, {"content-type": "application/json"})
    return json.loads(channel.getresponse().read())
wish = {"grant": copied["REMIT_GRANT"], "isolation": "namespace", "folder": "/run/remit"}
print(json.dumps({
    "gateway": greet(socket.AF_INET, ("127.0.0.1", port)),
    "channel": ask("GET", "/v1/self")["grant"],
    "asked": ask("POST", "/v1/runs", json.dumps(wish))["code"],
    "own": os.environ["REMIT_GRANT"],
}))
"""
DUMP = "import json, os; print(json.dumps(dict(os.environ)), flush=True); input()"


@contextmanager
def victim(runs: House) -> Iterator[dict[str, str]]:
    """Run something as long as the block lasts; give everything that it was told."""
    with runs.start_run([sys.executable, "-c", DUMP], opening(READ), stdin=-1) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
        process.communicate(b"\n")


@pytest.mark.live
@pytest.mark.attack("LAU-07")
@pytest.mark.attack("POP-07")
def test_what_was_copied_from_a_run_is_worth_nothing_in_another(runs: House) -> None:
    with victim(runs) as copied:
        done = runs.python(ASK, json.dumps(copied))
    found = json.loads(done.stdout)
    assert found["own"] != copied["REMIT_GRANT"]
    assert found["gateway"] == f"gateway {found['own']}"
    assert found["channel"] == found["own"]
    assert found["asked"] == "not-found"


@pytest.mark.slow
@pytest.mark.live
@pytest.mark.attack("POP-07")
def test_what_was_copied_from_a_run_is_worth_nothing_outside(runs: House) -> None:
    with victim(runs) as copied:
        assert not Path(copied["REMIT_SOCKET"]).exists()
        with socket.socket() as sock:
            port = int(copied["REMIT_GATEWAY"].rpartition(":")[2])
            heard = b"" if sock.connect_ex(("127.0.0.1", port)) else sock.recv(99)
    assert copied["REMIT_GRANT"].encode() not in heard


@pytest.mark.live
@pytest.mark.attack("LAU-07")
def test_the_sockets_of_the_broker_are_in_no_run(runs: House) -> None:
    script = f"ls {runs.control} {runs.control.parent} 2>&1; true"
    done = runs.run(["sh", "-c", script])
    assert done.stdout.count("No such file or directory") == 2


@pytest.mark.live
@pytest.mark.attack("LAU-07")
def test_the_sockets_of_the_broker_stay_out_when_what_is_around_them_is_bound(runs: House) -> None:
    done = runs.run(["ls", "-A", str(runs.control.parent)], binds=[[str(runs.folder), True]])
    assert (done.stdout, done.returncode) == ("", 0)


@pytest.mark.live
@pytest.mark.attack("LAU-07")
def test_covers_cannot_be_taken_away_from_inside(runs: House) -> None:
    place = runs.control.parent
    steps = ("umount P", "mv P P2", "unshare -Urm umount P", "unshare -Urm umount -l P", "ls -A P")
    script = "; ".join(steps).replace(" P", f" {place}")
    done = runs.run(["sh", "-c", script], binds=[[str(runs.folder), True]])
    assert (done.stdout, done.returncode) == ("", 0)
    assert runs.control.exists()
