"""Runs for days, with days of a few seconds: the launcher renews them, and the run works on; or it says why not."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from remit.core.policy import Decision, Question
from remit.core.principal import Human
from remit.core.task import Subject
from remit.errors import ExpiredError
from tests.broker.asking import everybody
from tests.broker.world import START
from tests.live.test_run_leased import NAMED, DsnEngine, serve
from tests.run.rig import PATIENCE, READ, TABLE, House, house, opening

pytestmark = pytest.mark.live
STEP = 3  # seconds: what eight hours stand for here
LASTING = {"seconds": 600, "step": STEP, "retry": 0.1}
# asks on its channel for itself whenever it is told to, and says what the answer was
ASKS = """if True:
    import http.client, os, socket, sys
    for _ in sys.stdin:
        channel = http.client.HTTPConnection("localhost")
        channel.sock = socket.socket(socket.AF_UNIX)
        channel.sock.connect(os.environ["REMIT_SOCKET"])
        channel.request("GET", "/v1/self")
        print(channel.getresponse().status, flush=True)
"""


@pytest.fixture
def runs() -> Iterator[House]:
    with house() as built:
        yield built


def started(runs: House, request: dict[str, object], **more: object) -> subprocess.Popen[bytes]:
    return runs.start_run([sys.executable, "-c", ASKS], request, stdin=subprocess.PIPE, lasting=LASTING, **more)


def asks(process: subprocess.Popen[bytes]) -> bytes:
    """Have the run ask; return the status of its answer."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def root(runs: House) -> str:
    """Return the root grant of the one task there is, once there is one."""
    runs.until(lambda: len(list(runs.broker._tasks)) == 1)
    return next(iter(runs.broker._tasks)).head.root


async def _swept(runs: House) -> None:
    runs.world.now = datetime.now(UTC)
    await runs.broker.sweep()


def wait(condition: Callable[[], bool]) -> None:
    """Wait until something holds; the broker's thread is free meanwhile."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end


def until(runs: House, ends: datetime) -> None:
    """Let real time pass, with its sweeps, until then."""

    def passed() -> bool:
        runs.call(_swept(runs))
        return runs.world.now > ends

    wait(passed)


def test_a_run_works_on_after_the_end_that_it_began_with_and_nothing_is_said(runs: House) -> None:
    with started(runs, opening(READ, ttl=STEP)) as process:
        assert asks(process) == b"200"
        first = runs.broker._tasks.task_of(root(runs)).head.expires_at
        until(runs, first + timedelta(seconds=2 * STEP))
        assert asks(process) == b"200"
        assert runs.broker._tasks.task_of(root(runs)).head.expires_at > runs.world.now
        _, said = process.communicate(b"", PATIENCE)
    assert process.returncode == 0
    assert b"renewed" not in said
    assert b"expired" not in said
    assert b"ends in" not in said


def test_it_goes_on_in_a_broker_that_was_started_anew_after_that_end(runs: House) -> None:
    with started(runs, opening(READ, ttl=STEP)) as process:
        assert asks(process) == b"200"
        until(runs, runs.broker._tasks.task_of(root(runs)).head.expires_at + timedelta(seconds=1))
        runs.call(runs.restart())
        wait(lambda: asks(process) == b"200")
        until(runs, runs.broker._tasks.task_of(root(runs)).head.expires_at)
        assert asks(process) == b"200"
        _, said = process.communicate(b"", PATIENCE)
    assert process.returncode == 0
    assert b"this run goes on" in said


def test_a_run_whose_renewal_a_policy_forbids_ends_when_it_would_have_and_the_launcher_says_why(runs: House) -> None:
    def short(question: Question) -> Decision:
        if question.bounds.ttl is not None and question.bounds.ttl > timedelta(seconds=2 * STEP):
            return Decision(allowed=False, reasons=("`short` forbids it",), version="test-1")
        return everybody(question)

    runs.broker.policy.deciding = short
    with started(runs, opening(READ, ttl=STEP)) as process:
        assert asks(process) == b"200"
        grant = root(runs)
        first = runs.broker._tasks.task_of(grant).head.opened_at
        until(runs, first + timedelta(seconds=2 * STEP + 1))
        with pytest.raises(ExpiredError):
            runs.call(runs.broker.grant(grant))
        assert asks(process) != b"200"
        _, said = process.communicate(b"", PATIENCE)
    assert b"remit: this run's authority has expired; it is not renewed: `short` forbids it" in said


def test_a_lease_in_a_variable_is_renewed_with_the_run(runs: House) -> None:
    serve(runs, DsnEngine)
    wanted = {name: value for name, value in TABLE.items() if name != "ttl"}
    with started(runs, opening(wanted, ttl=STEP), named=NAMED) as process:
        accounts = runs.world.target.accounts
        runs.until(lambda: len(accounts) == 1)
        [(name, first)] = accounts.items()
        until(runs, first + timedelta(seconds=STEP))
        assert accounts[name] > runs.world.now
        process.communicate(b"", PATIENCE)
    assert accounts == {}


def test_a_human_is_shown_to_be_logged_in_each_time_and_who_logs_out_ends_it(runs: House) -> None:
    runs.broker.policy.deciding = everybody
    ann = Subject("https://idp.test#ann", "pwd", START, sid="s-1")
    now = datetime.now(UTC)
    for number in range(3):
        until_then = now + timedelta(minutes=5)
        runs.humans[f"ann-{number}"] = Human(ann, f"digest-{number}", now, until_then, "remit")

    class Humans:
        async def id_token(self, token: str) -> Human:
            return runs.humans[token]

    runs.runs._humans = Humans()  # type: ignore[assignment]  # no more than the registry asks
    runs.humans["first"] = Human(ann, "digest", now, now + timedelta(minutes=5), "remit")
    lasting = {**LASTING, "token": "ann"}
    request = opening(READ, ttl=STEP, id_token="first")
    with runs.start_run([sys.executable, "-c", ASKS], request, stdin=subprocess.PIPE, lasting=lasting) as process:
        assert asks(process) == b"200"
        grant = root(runs)
        first = runs.broker._tasks.task_of(grant).head.expires_at
        until(runs, first + timedelta(seconds=1))
        assert asks(process) == b"200"

        def over() -> bool:
            runs.call(_swept(runs))
            return asks(process) != b"200"

        wait(over)  # after three tokens nobody has another
        _, said = process.communicate(b"", PATIENCE)
    assert b"has expired; it is not renewed: it is not one of these tests" in said
