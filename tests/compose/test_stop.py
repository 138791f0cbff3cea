"""Ending everything: with a broker that answers, with one that does not, and without one."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer

import psutil
import pytest

from remit.cli.entry import run
from remit.compose import stop, wiring
from remit.compose.stop import Stopped, down, stop_all
from remit.compose.wiring import Application
from remit.config.settings import load
from remit.core.secret import Secret
from remit.ports import NotedEnd
from tests.broker.world import OPERATOR, Target, World, details, search, warehouse
from tests.broker.world import TABLE as DETAIL
from tests.cli.test_broker import REMIT


async def filled(app: Application) -> str:
    """Have a task opened and a lease issued, and the broker gone; return the task."""
    await app.broker.start()
    await app.broker.put_resource(OPERATOR, warehouse(), Secret("admin-pw-0123456789"))
    await app.broker.put_resource(OPERATOR, search(), Secret("api-key-0123456789abcdef"))
    root = await World().opened(app.broker)
    await app.broker.issue(OPERATOR, root.id, details(DETAIL)[0])
    task = app.broker._tasks.task_of(root.id).id
    await app.broker.stop()
    return task


def test_without_a_broker_every_task_ends_in_the_state_and_at_its_targets(
    environ: dict[str, str], target: Target
) -> None:
    task = asyncio.run(filled(wiring.build(load(environ))))
    assert len(target.accounts) == 1
    said: list[str] = []
    done = stop_all(environ, said.append)
    assert [(each["task"], each["state"], each["recorded"]) for each in done.tasks] == [(task, "closed", True)]
    assert (done.outstanding, done.killed, target.accounts) == (False, None, {})
    assert said == ["no broker serves this state", f"{task}: closed"]
    assert stop_all(environ, said.append) == Stopped([])


def test_a_target_that_is_down_is_outstanding_until_it_is_back(environ: dict[str, str], target: Target) -> None:
    task = asyncio.run(filled(wiring.build(load(environ))))
    target.fail = {"revoke"}
    done = stop_all(environ, lambda _: None)
    [told] = done.tasks
    assert (told["state"], done.outstanding) == ("unknown", True)
    assert [lease["kind"] for lease in told["outstanding"]] == ["postgres"]
    target.fail.clear()
    again = stop_all(environ, lambda _: None)  # the task is closed by now; what is left of it is visited
    assert target.accounts == {}
    assert not again.outstanding
    assert task not in [each["task"] for each in again.tasks] or again.tasks[0]["state"] == "closed"


def test_what_was_noted_and_never_recorded_is_ended_too(environ: dict[str, str], target: Target) -> None:
    async def noted(app: Application) -> str:
        task = await filled(app)
        app = wiring.build(load(environ))
        await app.broker._store.note_ends([NotedEnd(task)])
        await app.broker.stop()
        return task

    asyncio.run(noted(wiring.build(load(environ))))
    assert not stop_all(environ, lambda _: None).outstanding
    assert target.accounts == {}


def test_where_there_is_no_state_there_is_nothing_to_end(environ: dict[str, str]) -> None:
    assert stop_all(environ, lambda _: None) == Stopped([])
    assert down(environ) is None
    assert not Path(environ["REMIT_STATE_DIR"]).exists()


@pytest.fixture
def up(environ: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Start a broker that has a task; end it if it is still there."""
    broker = subprocess.Popen([REMIT, "up", "--json"], env=environ, stdout=subprocess.PIPE, stderr=-3, text=True)
    assert broker.stdout is not None
    broker.stdout.readline()
    add: list[str | Path] = [
        REMIT,
        "resource",
        "add",
        "search",
        "https://search.test",
        "--bound",
        "actions=GET,paths=/**,args=any",
    ]
    subprocess.run([*add, "--secret"], env=environ, input="sk-0123456789abcdefghij", text=True, check=True, stdout=-3)
    subprocess.run([REMIT, "open", "draft", "-r", "search"], env=environ, check=True, stdout=-3)
    yield broker
    broker.kill()
    broker.wait(20)
    broker.stdout.close()


@pytest.mark.parametrize("hangs", [False, True])
def test_a_broker_is_asked_and_one_that_hangs_is_killed(
    up: subprocess.Popen[str],
    environ: dict[str, str],
    hangs: bool,  # noqa: FBT001 - a test's parameter
    capsys: pytest.CaptureFixture[str],
) -> None:
    for process in psutil.Process(up.pid).children() if hangs else ():
        process.suspend()
    assert run(["stop", "--all", "--json"]) == 0
    told = capsys.readouterr()
    assert '"state":"closed"' in told.out
    assert ("does not answer within 2 seconds" in told.err) is hangs
    assert (up.poll() is not None) is hangs
    if not hangs:
        assert down(environ) == up.pid
        assert up.wait(20) == 0
    done = subprocess.run([REMIT, "stop", "--all"], env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "no task is open, and nothing is left at a target\n")


def test_a_broker_that_is_refused_takes_no_socket_from_the_one_that_serves(
    up: subprocess.Popen[str], environ: dict[str, str]
) -> None:
    handover = load(environ).places.handover("edge")
    assert handover.is_socket()
    done = subprocess.run([REMIT, "up"], env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, "another broker serves this state" in done.stderr) == (1, True)
    assert handover.is_socket()
    assert down(environ) == up.pid
    assert up.wait(20) == 0
    assert not handover.exists()


def test_stop_without_all_is_a_misuse_that_names_what_ends_one_task(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["stop"]) == 2
    assert "remit revoke TASK" in capsys.readouterr().err


def test_down_ends_a_broker_and_says_when_there_is_none(
    up: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["down", "--json"]) == 0
    assert capsys.readouterr().out == f'{{"stopped":{up.pid}}}\n'
    assert up.wait(1) == 0
    assert run(["down"]) == 0
    assert "no broker" in capsys.readouterr().out


@dataclass
class SlowBroker:
    """What a control socket says of a broker with a task that waits for its target, and one that does not.

    ``ends`` is whether the first has ended when it is asked for once more; ``asked`` are the tasks that were to end.
    """

    ends: bool
    asked: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def answer(self, path: str) -> dict[str, object]:
        if not path.endswith("/close"):
            closed = {"task_a": bool(self.asked) and self.ends, "task_b": bool(self.asked)}
            return {"tasks": [{"task": task, "closed": done} for task, done in closed.items()]}
        self.asked.append(task := path.split("/")[3])
        if task == "task_a":
            self.over.wait()
        return {"state": "closed", "revoked": 1, "outstanding": [], "residue": 0, "recorded": True}


class Spoken(BaseHTTPRequestHandler):
    """One connection to it."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        broker: SlowBroker = self.server.broker  # type: ignore[attr-defined]  # see ``slow``
        body = json.dumps(broker.answer(self.path)).encode()
        with suppress(OSError):  # nobody waits any more
            self.wfile.write(b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n" + body)

    do_POST = do_GET  # noqa: N815 - the name that the library looks for


@pytest.fixture
def slow(environ: dict[str, str]) -> Iterator[Callable[[SlowBroker], None]]:
    """Serve a control socket in threads until the test is over."""
    with ExitStack() as stack:

        def serve(broker: SlowBroker) -> None:
            control = load(environ).places.control
            control.parent.mkdir(mode=0o700, parents=True)
            server = stack.enter_context(ThreadingUnixStreamServer(str(control), Spoken))
            server.broker = broker  # type: ignore[attr-defined]  # its handlers find it there
            threading.Thread(target=server.serve_forever, args=(0.05,)).start()
            stack.callback(server.shutdown)
            stack.callback(broker.over.set)

        yield serve


@pytest.mark.parametrize("ends", [True, False])
def test_a_task_that_waits_for_its_target_holds_up_the_end_of_no_other(
    environ: dict[str, str],
    slow: Callable[[SlowBroker], None],
    ends: bool,  # noqa: FBT001 - a test's parameter
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stop, "EACH", 0.3)
    broker, said = SlowBroker(ends), list[str]()
    slow(broker)
    done = stop_all(environ, said.append)
    assert sorted(broker.asked) == ["task_a", "task_b"]
    assert said[0] == "task_b: closed"
    if ends:  # it is no sign of a broker that hangs
        assert [(each["task"], each["state"]) for each in done.tasks] == [("task_b", "closed"), ("task_a", "unknown")]
        assert (done.outstanding, done.killed) == (True, None)
    else:
        assert said[1] == "the broker does not do it: it does not answer within 0.3 seconds"


def test_without_a_broker_a_target_that_hangs_holds_up_the_end_of_no_other_task(
    environ: dict[str, str], target: Target
) -> None:
    async def both(app: Application) -> list[str]:
        await app.broker.start()
        await app.broker.put_resource(OPERATOR, warehouse(), Secret("admin-pw-0123456789"))
        await app.broker.put_resource(OPERATOR, search(), Secret("api-key-0123456789abcdef"))
        roots = [await World().opened(app.broker) for _ in range(2)]
        await app.broker.issue(OPERATOR, roots[0].id, details(DETAIL)[0])
        await app.broker.issue(OPERATOR, roots[1].id, details(DETAIL)[0])
        return [app.broker._tasks.task_of(root.id).id for root in roots]

    async def run() -> None:
        app = wiring.build(load(environ))
        hung, other = await both(app)
        first = next(iter(target.accounts))
        said, over = asyncio.Event(), asyncio.Event()

        async def hangs(name: str) -> None:
            if name == first:
                await over.wait()

        target.during_revoke = hangs
        ending = asyncio.create_task(stop.ended(app, lambda line: said.set() if line == f"{other}: closed" else None))
        async with asyncio.timeout(5):
            await said.wait()
        over.set()
        assert {each["task"]: each["state"] for each in await ending} == {hung: "closed", other: "closed"}
        await app.broker.stop()

    asyncio.run(run())
