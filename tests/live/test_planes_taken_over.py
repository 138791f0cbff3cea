"""Chosen code in each worker of a real broker: what it cannot do, by table, and what it can."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from remit.core.grant import LOCAL, Subject
from remit.core.principal import Holder, Operator, Principal, Workload
from remit.core.request import Binding, Bounds, GrantRequest
from remit.core.scope import parse
from remit.link import roles
from remit.link.messages import PROTOCOLS, method
from remit.link.values import codec
from remit.ports.broker import Opener
from tests.live.fleet import SEARCH
from tests.live.terminal import PATIENCE, ROOT, Terminal, configure
from tests.support.postgres_server import free_port

pytestmark = pytest.mark.live
SECRET = "k-0123456789abcdef"
NAMES = ("edge", "web", "targets")
METHODS = sorted(
    {name for one in PROTOCOLS for name, each in vars(one).items() if name[0] != "_" and callable(each)}
    - {"notices"}  # no call: a stream
)
OPEN = """
import errno
found = []
for path in {paths!r}:
    try:
        with open(path, "rb") as file:
            found.append(path)
    except OSError as error:
        assert error.errno in (errno.ENOENT, errno.EACCES), (path, error)
"""
ACT = {
    "a unix socket": "import socket; socket.socket(socket.AF_UNIX).connect({control!r})",
    "a fork": "import os; os.fork() or os._exit(0)",
    "a program": "import os; os.execv('/bin/true', ['true'])",
    "a spawned program": "import os; os.posix_spawn('/bin/true', ['true'], {{}})",
    "a signal": "import os; os.kill(os.getppid(), 9)",
    "a signal to the authority": "import os; os.kill({authority}, 9)",
    "memory of the authority": "open('/proc/{authority}/mem', 'rb')",
    "a file of its own": "open('/tmp/of-its-own', 'w')",
    "a change of the configuration": "open({config!r}, 'w')",
}


@dataclass
class TakenOver:
    terminal: Terminal
    up: subprocess.Popen[str]
    control: httpx.Client
    sockets: dict[str, socket.socket]
    given: Path  # what web alone was given

    def run(self, role: str, code: str) -> Any:
        """Run code in a worker; return what it found."""
        self.send(role, code)
        with self.sockets[role].makefile("r") as file:
            return json.loads(file.readline())

    def send(self, role: str, code: str) -> None:
        """Have a worker run code."""
        self.sockets[role].sendall(json.dumps(code).encode() + b"\n")

    def opened(self) -> dict[str, Any]:
        """Open a task for a run, whose ticket nobody has redeemed yet."""
        wanted = {"authorization_details": [SEARCH], "purpose": "look", "ttl": 600}
        asked = {"open": wanted, "isolation": "unsandboxed", "folder": "/run/x"}
        answer = self.control.post("/v1/runs", json=asked)
        assert answer.is_success, answer.text
        return dict(answer.json())

    def revoke(self, run: dict[str, Any]) -> str:
        answer = self.control.post(f"/v1/tasks/{run['task']}/close")
        assert answer.is_success, answer.text
        return str(answer.json()["state"])

    def redeem(self, run: dict[str, Any]) -> None:
        found = self.run("edge", f"found = raw.call('redeem_run', {{'': {run['ticket'].encode()!r}}})")
        assert found[0] == "answer", found


@pytest.fixture(scope="module")
def over(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TakenOver]:
    home = tmp_path_factory.mktemp("home")
    given = home / "client-secret"
    given.touch(0o600)
    given.write_text("of-the-client-0123456789")
    human = ["[[humans]]", 'issuer = "http://127.0.0.1:1"', 'client_id = "remit"', f'client_secret_file = "{given}"']
    listen = ["[listen]", f'api = "127.0.0.1:{free_port()}"', f'gateway = "127.0.0.1:{free_port()}"']
    configure(home, [*listen, *human])
    terminal = Terminal(home, "http://127.0.0.1:1")
    pairs = {name: socket.socketpair() for name in NAMES}
    numbers = [theirs.fileno() for _, theirs in pairs.values()]
    up = subprocess.Popen(
        [sys.executable, "-m", "tests.live.taken_over", *map(str, numbers)],
        cwd=ROOT,
        env={**os.environ, **terminal.environ()},
        text=True,
        stdout=subprocess.PIPE,
        pass_fds=numbers,
    )
    try:
        for ours, theirs in pairs.values():
            theirs.close()
            ours.settimeout(PATIENCE)
        assert up.stdout is not None
        control = json.loads(up.stdout.readline())["ready"]
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=control), base_url="http://control", timeout=PATIENCE
        ) as client:
            target = {"kind": "http", "destination": "http://127.0.0.1:1", "bound": [SEARCH], "settings": {}}
            put = client.put("/v1/resources/search", json={**target, "secret": SECRET})
            assert put.is_success, put.text
            yield TakenOver(terminal, up, client, {name: ours for name, (ours, _) in pairs.items()}, given)
    finally:
        up.terminate()
        up.communicate(timeout=PATIENCE)
        for ours, _ in pairs.values():
            ours.close()


@pytest.mark.parametrize("role", NAMES)
def test_it_opens_nothing_of_the_state_and_no_key_but_one_that_it_was_given(over: TakenOver, role: str) -> None:
    over.opened()
    inside = [path for path in over.terminal.state.rglob("*") if path.is_file()]
    assert {"remit.db", "kek", "ends"} <= {path.name for path in inside}
    config = over.terminal.home / "config" / "remit" / "config.toml"
    paths = [str(path) for path in (*inside, config, over.given, "/etc/shadow")]
    readable = over.run(role, OPEN.format(paths=paths))
    assert readable == ([str(over.given)] if role == "web" else [])


@pytest.mark.parametrize("act", ACT)
@pytest.mark.parametrize("role", NAMES)
def test_it_starts_nothing_and_reaches_no_other_process(over: TakenOver, role: str, act: str) -> None:
    authority = int(json.loads((over.terminal.state / "lock").read_text() or "0"))
    config = str(over.terminal.home / "config" / "remit" / "config.toml")
    control = str(over.terminal.state / "run" / "control.sock")
    found = over.run(role, ACT[act].format(control=control, authority=authority, config=config))
    assert found is not None, found
    assert found["error"] in {"EPERM", "EACCES", "ENOENT", "ENOSYS", "ESRCH", "EROFS", "EAFNOSUPPORT"}, found
    assert over.run(role, "found = context.name").startswith(role)


@pytest.mark.parametrize("role", [roles.EDGE, roles.WEB], ids=lambda role: role.name)
def test_it_calls_no_method_that_is_not_its_role_s(over: TakenOver, role: roles.WorkerRole) -> None:
    forbidden = [name for name in METHODS if name not in role.methods]
    assert {"put_resource", "put_secret", "delete_resource", "entries", "checkpoint", "fetch"} <= set(forbidden)
    counts = {name: len(method(name).parameters) for name in forbidden}
    code = f"found = {{name: raw.call(name, *[None] * count) for name, count in {counts!r}.items()}}"
    assert over.run(role.name, code) == {name: ["refusal", "DeniedError"] for name in forbidden}


def sent(value: object, kind: Any = Principal) -> object:
    """Return a value as a call has it, a principal unless another ``kind`` is said."""
    return msgspec.json.decode(msgspec.json.encode(codec(kind).write(value)))


@pytest.mark.parametrize("role", ["edge", "web"])
def test_it_speaks_for_nobody_whom_it_was_not_shown(over: TakenOver, role: str) -> None:
    run = over.opened()
    operator, holder = sent(Operator(Subject("unix://h#0", LOCAL))), sent(Holder(run["task"], run["grant"]))
    workload = Workload("spiffe://prod.test/pay", "jwt-svid", datetime(2100, 1, 1, tzinfo=UTC))
    asked = GrantRequest(parse([SEARCH]), Bounds(timedelta(minutes=1)), purpose="look")
    of_workload = replace(asked, binding=Binding("k" * 43, identity=workload.id))
    calls = {
        "a task of a workload": ("open", sent(workload, Opener), sent(of_workload, GrantRequest), None),
        "a credential of one": ("spend", sent(workload, Workload)),
        "tasks": ("tasks", operator),
        "end a task": ("close", operator, run["task"]),
        "a foreign task": ("tasks", holder),
        "end it": ("revoke", holder, run["grant"]),
        "a foreign grant": ("grant", run["grant"]),
        "its token": ("mint", run["grant"], [None] * len(method("mint").parameters)),
        "a secret": ("credential", "search", 1),
    }
    found = over.run(role, f"found = {{name: raw.call(*call) for name, call in {calls!r}.items()}}")
    hidden, denied = ["refusal", "NotFoundError"], ["refusal", "DeniedError"]
    assert [found["tasks"], found["end a task"]] == [denied, denied]
    assert [found["a foreign task"], found["end it"], found["a foreign grant"]] == [hidden] * 3
    assert found["a secret"] == (hidden if role == "edge" else denied)
    assert found["its token"][0] == "refusal"
    assert [found["a task of a workload"], found["a credential of one"]] == [denied, denied]
    if role == "edge":
        assert over.run(role, f"found = raw.use({run['grant']!r}, 'req_foreign')") == "NotFoundError"
    assert over.control.get(f"/v1/tasks/{run['task']}").json()["closed"] is False


def test_an_edge_uses_what_it_redeemed_and_sees_that_secret_until_it_ends(over: TakenOver) -> None:
    run = over.opened()
    over.redeem(run)
    assert over.run("edge", f"found = raw.use({run['grant']!r}, 'req_live')") == "permitted"
    seen = over.run("edge", "found = raw.call('credential', 'search', 1)")
    assert seen[0] == "answer"
    assert SECRET in seen[1]
    assert over.revoke(run) == "closed"
    assert over.run("edge", f"found = raw.use({run['grant']!r}, 'req_late')") == "RevokedError"


def test_an_edge_that_does_not_act_on_an_end_is_gone_when_that_is_closed(over: TakenOver) -> None:
    run = over.opened()
    over.redeem(run)
    held = f"raw.use({run['grant']!r}, 'req_held'); raw.acts = False; found = raw.call('token_keys')"
    assert over.run("edge", held)[0] == "answer"
    assert over.revoke(run) == "closed"
    assert over.run("edge", "found = raw.acts") is True  # it is another one
    assert over.run("edge", f"found = raw.use({run['grant']!r}, 'req_late')") in {"RevokedError", "NotFoundError"}


def test_targets_that_call_anything_are_cut_off_and_replaced(over: TakenOver) -> None:
    assert over.run("targets", "found = raw.call('logged', [])")[0] == "answer"
    forbidden = "raw.asks.sendall(sent(Call(99, 'resources', [])))"
    names = "from remit.link.messages import Call; from tests.support.link import sent"
    code = f"import threading; {names}; {forbidden}; threading.Event().wait()"
    over.send("targets", code)  # and it is killed meanwhile
    assert over.run("targets", "found = raw.call('logged', [])")[0] == "answer"
