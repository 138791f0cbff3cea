"""A command whose standard input and output are led through the edge."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import IO, Any

import pytest

from remit.core import scope
from remit.ports import Resource
from tests.broker.world import OPERATOR
from tests.run.rig import PATIENCE, READ, House, opening

SERVER = {"type": "mcp", "resource": "server", "actions": ["tools/call"], "tools": "any"}
LOUD = """
import sys
for line in sys.stdin:
    print(line.strip().upper(), flush=True)
print("over", flush=True)
sys.exit(3)
"""
DEAF = "import signal, time\nprint('here', flush=True)\nwhile True: time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{DEAF}"
NAMES = "import os\nprint(sorted(os.listdir('/run/remit')), flush=True)"


def said(stream: IO[bytes] | None) -> bytes:
    assert stream is not None
    return stream.readline()


@pytest.fixture
def runs(runs: House) -> House:
    """Return a broker with a resource that is a command."""
    bound = scope.parse([SERVER])
    runs.call(runs.broker.put_resource(OPERATOR, Resource("server", "mcp", "mcp+stdio:server", bound, None, {})))
    return runs


def started(runs: House, code: str, **more: Any) -> subprocess.Popen[bytes]:
    given = {"stdio": "server", "stdin": subprocess.PIPE, "stderr": subprocess.DEVNULL, **more}
    return runs.start_run([sys.executable, "-c", code], opening(SERVER, READ), **given)


def until_both_are_there(runs: House) -> None:
    runs.until(lambda: [len(relay.ends) for relay in runs.services.relays] == [2])


def test_what_is_said_on_both_sides_goes_through_the_edge_until_there_is_no_more(runs: House) -> None:
    with started(runs, LOUD) as process:
        out, err = process.communicate(b"one\ntwo\n", PATIENCE)
    assert (out, process.returncode) == (b"ONE\nTWO\nover\n", 3), err
    [relay] = runs.services.relays
    assert relay.asked == [b"one\n", b"two\n"]
    assert relay.answered == [b"ONE\n", b"TWO\n", b"over\n"]


def test_what_a_command_says_that_nobody_spoke_to_comes_out_whole(runs: House) -> None:
    with started(runs, "print('x' * 1_000); print('y' * 1_000)") as process:
        out, _ = process.communicate(None, PATIENCE)
    assert out == b"x" * 1_000 + b"\n" + b"y" * 1_000 + b"\n"


@pytest.mark.parametrize(("code", "number"), [(DEAF, signal.SIGTERM), (STUBBORN, signal.SIGKILL)])
def test_a_command_whose_session_is_over_ends(runs: House, code: str, number: signal.Signals) -> None:
    with started(runs, code, grace=0.1) as process:
        assert said(process.stdout) == b"here\n"
        runs.loop.call_soon_threadsafe(runs.services.relays[-1].cut)
        process.communicate(None, PATIENCE)
    assert process.returncode == 128 + number


def test_there_is_no_name_in_the_run_for_the_session(runs: House) -> None:
    with started(runs, NAMES) as process:
        out, _ = process.communicate(None, PATIENCE)
    assert out == b"['channel.sock', 'launch.sock', 'roots.pem']\n"


def say(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(data)
    process.stdin.flush()


def test_a_session_goes_on_at_the_next_edge_and_says_nothing_twice(runs: House) -> None:
    with started(runs, LOUD) as process:
        for n in range(3):
            say(process, b"line %d\n" % n)
            assert said(process.stdout) == b"LINE %d\n" % n
            runs.call(runs.next_edge())
            until_both_are_there(runs)
        say(process, b"last\n")
        out, _ = process.communicate(None, PATIENCE)
    assert (out, process.returncode) == (b"LAST\nover\n", 3)
    assert runs.services.relays[-1].asked == [b"last\n"]


def test_half_a_line_that_an_edge_took_with_it_is_no_half_of_another(runs: House) -> None:
    with started(runs, LOUD) as process:
        say(process, b"one\ntw")
        assert said(process.stdout) == b"ONE\n"
        runs.call(runs.next_edge())
        until_both_are_there(runs)
        say(process, b"o and what follows\nthree\n")
        assert said(process.stdout) == b"THREE\n"
        assert runs.services.relays[0].asked == [b"three\n"]
        process.communicate(None, PATIENCE)


def test_a_client_that_had_no_more_to_say_has_none_at_the_next_edge(runs: House) -> None:
    waits = "import sys, time\nprint(len(sys.stdin.read()), flush=True)\ntime.sleep(60)"
    with started(runs, waits) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert said(process.stdout) == b"0\n"
        runs.call(runs.next_edge())
        until_both_are_there(runs)
        runs.until(runs.services.relays[0].ends[0][0].at_eof)
        process.terminate()
        process.wait(PATIENCE)


@pytest.mark.parametrize(
    ("stdio", "code"),
    [("search", "invalid-request"), ("warehouse", "scope"), ("nowhere", "scope"), ("", "invalid-request")],
)
def test_a_command_is_a_resource_of_its_grant_that_is_one(runs: House, stdio: str, code: str) -> None:
    with started(runs, LOUD, stdio=stdio, stderr=subprocess.PIPE) as process:
        out, err = process.communicate(None, PATIENCE)
    assert (out, process.returncode) == (b"", 3)
    assert err.decode().startswith(f"{code}: ")
