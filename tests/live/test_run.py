"""Real runs: what a command meets inside, and what its launcher and its broker see of it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from remit.core.secret import Secret
from remit.ports import Resource
from tests.broker.world import OPERATOR, details
from tests.run.rig import HERE, PATIENCE, READ, House, house, opening

pytestmark = pytest.mark.live
DRIVE = str(HERE / "drive.py")
SELF = [[str(HERE.parents[1] / "tests"), False]]
ASK_CHANNEL = """
import http.client, json, os, socket
channel = http.client.HTTPConnection("localhost")
channel.sock = socket.socket(socket.AF_UNIX)
channel.sock.connect(os.environ["REMIT_SOCKET"])
channel.request("GET", "/v1/self")
print(json.load(channel.getresponse())["grant"])
"""
ASK_GATEWAY = "import socket; print(socket.create_connection(('127.0.0.1', 8471)).recv(100).decode())"


@pytest.fixture
def runs() -> Iterator[House]:
    with house() as built:
        yield built


@pytest.fixture(autouse=True)
def _signals_as_usual() -> Iterator[None]:
    """Undo what ``nohup`` or a shell's background ignores: a command inherits it, and its traps would do nothing."""
    usual = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    before = {n: signal.signal(n, signal.SIG_DFL) for n in usual if signal.getsignal(n) is signal.SIG_IGN}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def line(process: subprocess.Popen[bytes]) -> str:
    """Return the next line that a run writes."""
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


def closed(runs: House) -> bool:
    return all(task.head.closed for task in list(runs.broker._tasks))


def test_the_gateway_of_a_run_stands_for_its_grant(runs: House) -> None:
    done = runs.python(ASK_GATEWAY + "; import os; print(os.environ['REMIT_GRANT'])")
    said, grant = done.stdout.split("\n")[0], done.stdout.split()[-1]
    assert said == f"gateway {grant}"


def test_the_channel_of_a_run_is_where_its_environment_says(runs: House) -> None:
    assert runs.python(ASK_CHANNEL).stdout.startswith("grt_")


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_the_exit_code_is_the_commands(runs: House, code: int) -> None:
    assert runs.run(["sh", "-c", f"exit {code}"]).returncode == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
def test_a_command_that_dies_of_a_signal_exits_as_in_a_shell(runs: House, number: int) -> None:
    assert runs.run(["sh", "-c", f"kill -{number} $$"]).returncode == 128 + number


def test_a_command_that_is_not_there_is_said_to_be_missing(runs: House) -> None:
    done = runs.run(["no-such-command"])
    assert done.returncode == 127
    assert done.stderr.startswith("error: `no-such-command` cannot be executed in the run")


def test_a_command_that_is_no_program_is_said_to_be_none(runs: House) -> None:
    (runs.project / "text").write_text("hello")
    assert runs.run(["./text"]).returncode == 126


def test_the_task_is_closed_when_the_command_ends(runs: House) -> None:
    assert runs.run(["true"]).returncode == 0
    assert closed(runs)  # already, not some time later


def test_a_refused_grant_runs_nothing(runs: House) -> None:
    done = runs.run(["touch", "ran"], opening({**READ, "paths": ["/**"]}))
    assert (done.returncode, done.stderr.split(":")[0]) == (3, "policy")
    assert not (runs.project / "ran").exists()


def test_standard_streams_are_passed_byte_for_byte(runs: House) -> None:
    data = bytes(range(256)) * 1_000
    with runs.start_run(["cat"], stdin=subprocess.PIPE) as process:
        out, err = process.communicate(data, PATIENCE)
    assert (out, err) == (data, b"")


def test_a_stdio_server_answers_line_by_line(runs: House) -> None:
    with runs.start_run(["cat"], stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for number in range(3):
            process.stdin.write(f'{{"id": {number}}}\n'.encode())
            process.stdin.flush()
            assert json.loads(line(process)) == {"id": number}
        process.stdin.close()
        assert process.wait(PATIENCE) == 0


def test_a_closed_standard_input_stays_closed(runs: House) -> None:
    assert runs.run(["cat"], input="").returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_to_the_launcher_reaches_the_command(runs: House, number: signal.Signals) -> None:
    script = f"trap 'echo got; exit 9' {number.value}; echo ready; while :; do read -t 1 x <> /dev/null; done"
    with runs.start_run(["bash", "-c", script]) as process:
        assert line(process) == "ready"
        process.send_signal(number)
        assert line(process) == "got"
        assert process.wait(PATIENCE) == 9


def test_an_interrupt_reaches_what_the_command_is_waiting_for(runs: House) -> None:
    with runs.start_run(["bash", "-c", "echo ready; cat <> /dev/zero > /dev/null; exit 3"]) as process:
        assert line(process) == "ready"
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130


def test_killing_the_launcher_ends_the_sandbox_and_the_task(runs: House) -> None:
    with runs.start_run(["sh", "-c", "echo ready; exec tail -f /dev/null"]) as process:
        assert line(process) == "ready"
        process.kill()
        assert process.stdout is not None
        assert process.stdout.read() == b""  # nobody holds the pipe any more: everything inside has gone
    runs.until(lambda: closed(runs))
    runs.until(lambda: not runs.services.open)


def said(process: subprocess.Popen[bytes]) -> str:
    """Return the next line that a launcher says."""
    assert process.stderr is not None
    return process.stderr.readline().decode()


HEAR = "import sys; print('ready', flush=True); sys.stdin.readline(); " + ASK_GATEWAY


@pytest.mark.parametrize("going", ["restart", "next_edge"])
def test_a_run_goes_on_when_the_process_that_serves_it_is_replaced(runs: House, going: str) -> None:
    with runs.start_run([sys.executable, "-c", HEAR], stdin=subprocess.PIPE) as process:
        assert line(process) == "ready"
        for _ in range(2):
            runs.call(runs.restart() if going == "restart" else runs.next_edge())
            assert "what served this run has gone; for 30 seconds" in said(process)
            assert "this run goes on" in said(process)
        (task,) = list(runs.broker._tasks)
        out, err = process.communicate(b"\n", PATIENCE)
    assert (process.returncode, out.decode().strip(), err) == (0, f"gateway {task.head.root}", b"")
    assert closed(runs)


def test_a_run_inside_a_run_goes_on_too(runs: House) -> None:
    with runs.start_run(inside([sys.executable, "-c", HEAR], CHILD), stdin=subprocess.PIPE, binds=SELF) as process:
        assert line(process) == "ready"
        runs.call(runs.restart())
        assert sorted(said(process).split(";")[0] for _ in range(4)) == [
            *["remit: it is served again"] * 2,
            *["remit: what served this run has gone"] * 2,
        ]
        (task,) = list(runs.broker._tasks)
        (child,) = (grant.id for grant in task.grants.values() if grant.parent == task.head.root)
        out, _ = process.communicate(b"\n", PATIENCE)
    assert out.decode().strip() == f"gateway {child}"


def test_a_run_that_ended_meanwhile_is_told_and_the_command_goes_on(runs: House) -> None:
    with runs.start_run(["sh", "-c", "echo ready; read x; exit 5"], stdin=subprocess.PIPE) as process:
        assert line(process) == "ready"
        (task,) = list(runs.broker._tasks)
        runs.call(runs.kill_edge())
        runs.world.later(30)
        runs.call(runs.runs.sweep())
        runs.until(lambda: not runs.runs.count)
        runs.call(runs.start_edge())
        assert "for 30 seconds" in said(process)
        assert "no authority any more" in said(process)
        process.communicate(b"\n", PATIENCE)
        assert process.returncode == 5
    assert runs.broker._tasks.task(task.id).head.closed


def test_a_command_that_ends_while_nobody_serves_it_ends_its_launcher(runs: House) -> None:
    with runs.start_run(["sh", "-c", "echo ready; read x; exit 5"], stdin=subprocess.PIPE) as process:
        assert line(process) == "ready"
        runs.call(runs.kill_edge())
        assert "for 30 seconds" in said(process)
        process.communicate(b"\n", PATIENCE)
        assert process.returncode == 5


def test_what_a_run_listens_on_refuses_once_its_authority_is_over(runs: House) -> None:
    code = (
        "import sys, socket; print('ready', flush=True); sys.stdin.readline();"
        " print(socket.socket().connect_ex(('127.0.0.1', 8471)))"
    )
    with runs.start_run([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
        assert line(process) == "ready"
        runs.call(runs.kill_edge())
        runs.world.later(30)
        runs.call(runs.runs.sweep())
        runs.until(lambda: not runs.runs.count)
        runs.call(runs.start_edge())
        said(process)
        assert "no authority any more" in said(process)
        out, _ = process.communicate(b"\n", PATIENCE)
    assert int(out) == errno.ECONNREFUSED


def test_no_broker_is_a_clear_error(runs: House) -> None:
    told = json.loads(runs.told(["true"]))
    told["socket"] = str(runs.folder / "absent.sock")
    done = subprocess.run(
        [sys.executable, DRIVE, json.dumps(told)], cwd=runs.project, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.split("\n")[0]) == (3, "unavailable: no broker listens for runs")


def test_the_working_directory_is_writable_and_nothing_else_is(runs: House) -> None:
    script = "echo yes > made; for d in / /usr /etc /proc/sys/kernel; do touch $d/x 2>/dev/null && echo $d; done; pwd"
    assert runs.run(["sh", "-c", script]).stdout.strip() == str(runs.project)
    assert (runs.project / "made").read_text() == "yes\n"


def test_a_bound_folder_is_read_only_unless_said_otherwise(runs: House, tmp_path: Path) -> None:
    for name in ("read", "write"):
        (tmp_path / name).mkdir()
    script = f"touch {tmp_path}/read/x || touch {tmp_path}/write/x"
    binds = [[str(tmp_path / "read"), False], [str(tmp_path / "write"), True]]
    assert runs.run(["sh", "-c", script], binds=binds).returncode == 0
    assert (tmp_path / "write" / "x").exists()
    assert not (tmp_path / "read" / "x").exists()


def test_a_run_from_home_is_refused_with_a_way_out(runs: House) -> None:
    done = runs.run(["true"], cwd=runs.folder / "home")
    assert (done.returncode, "--bind" in done.stderr) == (3, True)


def test_a_python_of_a_virtual_environment_works_inside(runs: House) -> None:
    done = runs.python("import sys, httpx, remit.sdk; print(sys.prefix)")
    assert (done.stdout.strip(), done.stderr) == (sys.prefix, "")


# -- terminals ----------------------------------------------------------------------------------------------------


class Screen:
    """A terminal with somebody in front of it."""

    def __init__(self, runs: House, command: list[str], rows: int = 33, columns: int = 101) -> None:
        self.end, theirs = pty.openpty()
        self.size(rows, columns)
        self.name = os.ttyname(theirs)
        self.before = termios.tcgetattr(theirs)
        self.process = runs.start_run(
            command, stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=self._control, environ={"TERM": "xterm"}
        )
        os.close(theirs)
        self.seen = b""

    @staticmethod
    def _control() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def size(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.end, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.end, text.encode())

    def until(self, text: str) -> str:
        """Read until some text is on the screen; return what was there, without it."""
        while text.encode() not in self.seen:
            self.seen += os.read(self.end, 65_536)
        before, _, self.seen = self.seen.partition(text.encode())
        return before.decode()


@contextmanager
def screen_of(runs: House, command: list[str]) -> Iterator[Screen]:
    """Run a command in front of somebody."""
    screen = Screen(runs, command)
    try:
        yield screen
        screen.process.wait(PATIENCE)
    finally:
        screen.process.kill()
        screen.process.wait()
        os.close(screen.end)


def test_an_interactive_program_has_a_terminal_of_its_own(runs: House) -> None:
    with screen_of(runs, ["sh", "-c", "tty; stty size; echo end"]) as screen:
        said = screen.until("end").split()
        assert said == ["/dev/pts/0", "33", "101"]
        assert screen.process.wait(PATIENCE) == 0


def test_the_terminal_of_the_operator_is_nowhere_inside(runs: House) -> None:
    script = "ls -l /proc/*/fd 2>/dev/null | grep -o '/dev/pts/.*' | sort -u; ls /dev/pts; echo end"
    with screen_of(runs, ["sh", "-c", script]) as screen:
        assert screen.until("end").split() == ["/dev/pts/0", "0", "ptmx"]


def test_keys_reach_the_command_and_control_c_interrupts_it(runs: House) -> None:
    with screen_of(
        runs, ["bash", "-c", "trap 'echo interrupted' INT; echo ready; read x; read y; echo got $y"]
    ) as screen:
        screen.until("ready")
        screen.type("\x03")
        screen.until("interrupted")
        screen.type("a\n")
        screen.type("b\n")
        assert screen.process.wait(PATIENCE) == 0


def test_a_window_that_changes_changes_inside(runs: House) -> None:
    with screen_of(
        runs, ["bash", "-c", "trap 'stty size; exit 0' WINCH; echo ready; while :; do read -t 1 x; done"]
    ) as screen:
        screen.until("ready")
        screen.size(50, 150)
        screen.until("50 150")
        assert screen.process.wait(PATIENCE) == 0


def test_job_control_works_inside(runs: House) -> None:
    with screen_of(runs, ["bash", "--norc", "-i"]) as screen:
        screen.until("$ ")
        screen.type("sh -c 'echo be''gun; read x'\n")
        screen.until("begun")  # written by the command; what was typed has quotes in it
        screen.type("\x1a")
        screen.until("Stopped")
        screen.process.kill()


def test_an_operator_who_hangs_up_ends_the_command_as_a_shell_would(runs: House) -> None:
    screen = Screen(runs, ["bash", "-c", "trap 'touch hung-up; exit 1' HUP; echo ready; while :; do read -t 1 x; done"])
    screen.until("ready")
    os.close(screen.end)
    screen.process.wait(PATIENCE)
    assert (runs.project / "hung-up").exists()
    runs.until(lambda: closed(runs))


def test_the_terminal_is_left_as_it_was(runs: House) -> None:
    with screen_of(runs, ["true"]) as screen:
        screen.process.wait(PATIENCE)
        assert termios.tcgetattr(screen.end)[:4] == screen.before[:4]


# -- runs inside runs -----------------------------------------------------------------------------------------------


def inside(command: list[str], wish: Mapping[str, object], **more: object) -> list[str]:
    """Return the command that launches ``command`` from inside a run."""
    told = {"command": command, "socket": "/run/remit/channel.sock", "request": {"delegate": wish}, **more}
    return [sys.executable, DRIVE, json.dumps(told)]


CHILD: dict[str, object] = {"authorization_details": [READ]}


def test_a_run_inside_a_run_has_a_grant_of_its_own(runs: House) -> None:
    done = runs.run(inside([sys.executable, "-c", ASK_GATEWAY], CHILD), binds=SELF)
    (task,) = list(runs.broker._tasks)
    (child,) = (grant.id for grant in task.grants.values() if grant.parent == task.head.root)
    assert done.stdout.strip() == f"gateway {child}"


def test_runs_can_be_nested_as_deep_as_they_may_delegate(runs: House) -> None:
    innermost = inside(["sh", "-c", "echo deep; exit 6"], CHILD)
    middle = inside(innermost, {**CHILD, "depth": 1, "fan_out": 1}, binds=SELF)
    done = runs.run(middle, binds=SELF)
    assert (done.stdout, done.returncode) == ("deep\n", 6)


def test_a_wider_run_inside_a_run_is_refused(runs: House) -> None:
    wide = {"authorization_details": [{**READ, "actions": ["GET", "POST"]}]}
    done = runs.run(inside(["true"], wide), binds=SELF)
    assert (done.returncode, done.stderr.split(":")[0]) == (3, "attenuation")


def test_the_grant_of_an_inner_run_ends_with_it(runs: House) -> None:
    script = f"{' '.join(map(_quoted, inside(['true'], CHILD)))}; echo over; read x"
    with runs.start_run(["sh", "-c", script], stdin=subprocess.PIPE, binds=SELF) as process:
        assert line(process) == "over"
        (task,) = list(runs.broker._tasks)
        states = {grant.level: grant.revoked for grant in task.grants.values()}
        assert states == {0: False, 1: True}
        process.communicate(b"\n", PATIENCE)


def _quoted(word: str) -> str:
    return "'" + word.replace("'", "'\\''") + "'"


def test_killing_the_outer_launcher_ends_the_inner_run_too(runs: House) -> None:
    with runs.start_run(inside(["sh", "-c", "echo ready; exec tail -f /dev/null"], CHILD), binds=SELF) as process:
        assert line(process) == "ready"
        process.kill()
        assert process.stdout is not None
        assert process.stdout.read() == b""
    runs.until(lambda: closed(runs) and not runs.services.open)


# -- less than a sandbox, said aloud ----------------------------------------------------------------------------------


def test_a_shared_network_is_said_and_recorded_and_still_works(runs: House) -> None:
    code = "import os, urllib.parse as u, socket; p = u.urlsplit(os.environ['REMIT_GATEWAY']).port; "
    code += "print(socket.create_connection(('127.0.0.1', p)).recv(99).decode())"
    done = runs.python(code, host_net=True)
    (task,) = list(runs.broker._tasks)
    assert done.stdout.startswith("gateway grt_")
    assert "any user" in done.stderr
    assert task.grant(task.head.root).posture.isolation == "host-net"


def test_without_a_sandbox_is_said_and_recorded_and_still_works(runs: House) -> None:
    done = runs.python(ASK_CHANNEL, unsandboxed=True)
    (task,) = list(runs.broker._tasks)
    assert done.stdout.startswith("grt_")
    assert "runs as you" in done.stderr
    assert task.grant(task.head.root).posture.isolation == "unsandboxed"
    assert set(runs.control.parent.iterdir()) == {runs.control, runs.handover}  # its own are gone again


def test_killing_the_launcher_ends_a_command_without_a_sandbox(runs: House) -> None:
    with runs.start_run(["sh", "-c", "echo ready; exec tail -f /dev/null"], unsandboxed=True) as process:
        assert line(process) == "ready"
        process.kill()
        assert process.stdout is not None
        assert process.stdout.read() == b""
    runs.until(lambda: closed(runs))


def test_a_run_says_that_its_time_is_up_while_the_command_goes_on(runs: House) -> None:
    with runs.start_run(["sh", "-c", "read x; echo went on"], opening(ttl=1), stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        assert process.stderr.readline().startswith(b"remit: this run's authority has expired")
        process.stdin.write(b"\n")
        process.stdin.close()
        assert line(process) == "went on"


def test_quiet_says_nothing(runs: House) -> None:
    assert runs.run(["true"], host_net=True, quiet=True).stderr == ""


def test_which_of_two_resources_of_a_provider_its_variables_name_is_said(runs: House) -> None:
    wish = {"type": "http", "actions": ["POST"], "paths": ["/v1/**"], "args": "any"}
    of = ("office", "home")  # in another order than that of the alphabet
    for name in of:
        bound = details({**wish, "resource": name})
        made = Resource(name, "http", f"http://127.0.0.1:9/{name}", bound, None, {"provider": "openai"})
        runs.call(runs.broker.put_resource(OPERATOR, made, Secret("sk-0123456789abcdefghij")))
    request, command = opening(*({**wish, "resource": name} for name in of)), ["sh", "-c", "echo $OPENAI_BASE_URL"]
    done = runs.run(command, request)
    assert done.stdout == "http://127.0.0.1:8471/office/v1\n"
    [told] = [each for each in done.stderr.splitlines() if "OPENAI" in each]
    assert told.startswith("remit: OPENAI_API_KEY and OPENAI_BASE_URL are those of `office`")
    assert told.endswith("`home` is at REMIT_URL_HOME with REMIT_KEY_HOME")
    chosen = {"OPENAI_API_KEY": "placeholder:home", "OPENAI_BASE_URL": "url:home/v1"}
    done = runs.run(command, request, named=chosen)
    assert (done.stdout, "OPENAI" in done.stderr) == ("http://127.0.0.1:8471/home/v1\n", False)
    assert "OPENAI" not in runs.run(command, request, quiet=True).stderr


def test_without_namespaces_it_refuses_and_opens_nothing(runs: House) -> None:
    # A user namespace in which no further one may be made stands for a machine that allows none.
    limited = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", limited, "sh", sys.executable, DRIVE]
    if subprocess.run([*command[:5], "echo 0 > /proc/sys/user/max_user_namespaces"], check=False).returncode:
        pytest.skip("this machine does not let a namespace limit itself")
    told = runs.told(["touch", "ran"])
    done = subprocess.run([*command, told], cwd=runs.project, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr.split(":")[0]) == (3, "unavailable")
    assert "--unsandboxed" in done.stderr
    assert list(runs.broker._tasks) == []
    assert not (runs.project / "ran").exists()
