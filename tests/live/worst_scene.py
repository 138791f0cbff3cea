"""The demo's services and a broker that has their hosts, as somebody's; and the demo's worst agent in a run of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from examples.demo.canary import leaked
from examples.demo.house import brought
from examples.demo.services import Service, running
from tests.live.terminal import COMMAND, PATIENCE
from tests.live.test_run_nobody import NOBODY
from tests.live.worst_agent import OUTSIDE, PRIVATE
from tests.support.sniffer import watched

SERVED = {  # what the agent may do
    "search": ("Authorization", "actions=GET,paths=/v1/**,args=any"),
    "documents": ("X-Api-Key", "actions=GET,actions=PUT,paths=/v1/documents/**,args=any"),
    "messages": ("Authorization", "actions=POST,paths=/v1/messages,args=any"),
}
PROVIDER = """
[{name}]
title = "Acme's {name}"
destination = "https://{name}.acme.test"
hosts = ["{name}.acme.test"]
key = {{ header = "{header}", format = "{form}" }}
variables = ["ACME_{label}_KEY"]
shape = "acme-{name}-<alphanumeric:40>"
"""


@dataclass
class Scene:
    """Whose broker and runs it is, and the services around."""

    place: Path
    who: int
    services: dict[str, Service]

    def start(self, *words: str, stdin: int = subprocess.PIPE) -> subprocess.Popen[str]:
        """Start a command of remit."""
        environ = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.place), "LANG": "C.UTF-8"}
        return subprocess.Popen(
            [*COMMAND, *words],
            cwd=self.place / "work",
            env={
                **environ,
                "REMIT_STATE_DIR": str(self.place / "state"),
                "XDG_CONFIG_HOME": str(self.place / "config"),
            },
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **as_user(self.who),
        )

    def told(self, *words: str, stdin: str = "") -> str:
        """Run a command of remit; return what it prints."""
        with self.start(*words) as process:
            out, err = process.communicate(stdin, timeout=PATIENCE)
        assert process.returncode == 0, err
        return out + err

    def own(self, *paths: Path) -> None:
        """Have files be the user's."""
        for path in paths:
            os.chown(path, self.who, self.who)

    @property
    def keys(self) -> dict[str, str]:
        """The secrets."""
        return {name: self.services[name].key for name in SERVED}

    def outputs(self) -> Iterator[bytes]:
        """Yield all that others can read afterwards, but what the services were asked with."""
        for service in self.services.values():
            yield from (*service.bodies, *service.stored.values())
        for path in (self.place / "work").rglob("*"):
            if path.is_file():
                yield path.read_bytes()


def as_user(who: int) -> dict[str, Any]:
    """Return what has a process belong to a user."""
    return {} if who == os.getuid() else {"user": who, "group": who, "extra_groups": []}


def everybody() -> list[int]:
    """Return the users as whom it is to be tried."""
    return [os.getuid(), NOBODY] if os.getuid() == 0 else [os.getuid()]


def skip_unless_able(who: int, python: Path | None = None) -> None:
    """Skip a test where a user cannot execute this interpreter and what it runs, or another one."""
    words = [*COMMAND, "--version"] if python is None else [str(python), "-c", ""]
    try:
        subprocess.run(words, cwd="/", capture_output=True, check=True, env={}, **as_user(who))
    except (PermissionError, subprocess.CalledProcessError):
        pytest.skip("nobody may not execute this interpreter, or not read what it runs")


@contextmanager
def scene(folder: Path, who: int, *, keyed: bool = True) -> Iterator[Scene]:
    """Start the services and a broker that has them, for a user; with their keys, if it is ``keyed``."""
    place = folder if who == os.getuid() else Path("/var/tmp") / f"remit-worst-{os.getpid()}"  # noqa: S108 - open to all
    config = place / "config" / "remit"
    for needed in (config, place / "work"):
        needed.mkdir(parents=True)
    with ExitStack() as stack:
        if place is not folder:
            stack.callback(shutil.rmtree, place)
        headers = {name: header for name, (header, _) in SERVED.items()}
        kinds = [Service(name, header, f"acme-{name}-{os.urandom(16).hex()}") for name, header in headers.items()]
        services = {one.name: stack.enter_context(running(one)) for one in (*kinds, Service("thief"))}
        forms = {name: "Bearer {}" if header == "Authorization" else "{}" for name, header in headers.items()}
        about = {name: {"header": headers[name], "form": forms[name], "label": name.upper()} for name in SERVED}
        texts = [PROVIDER.format(name=name, **told) for name, told in about.items()]
        (config / "providers.toml").write_text("".join(texts), "utf-8")
        (config / "config.toml").write_text('[listen]\napi = "off"\ngateway = "off"\n', "utf-8")
        brought(place / "work")
        shutil.copy(Path(__file__).with_name("worst_agent.py"), place / "work")
        if who != os.getuid():
            subprocess.run(["chown", "-R", str(who), str(place)], check=True)
        made = Scene(place, who, services)
        with made.start("up", "--json", stdin=subprocess.DEVNULL) as broker:
            try:
                assert broker.stdout is not None
                assert broker.stdout.readline(), broker.stderr.read() if broker.stderr else ""
                for name, (_, bound) in SERVED.items():
                    words = ["resource", "add", name, services[name].url, "--provider", name, "--bound", bound]
                    made.told(*words, *(["--secret"] if keyed else []), stdin=services[name].key if keyed else "")
                yield made
            finally:
                broker.terminate()
                _, said = broker.communicate(timeout=PATIENCE)
                assert "Traceback" not in said


def orders(here: Scene) -> None:
    """Have a document tell the agent what to do."""
    told = {
        "thief": here.services["thief"].url,
        "around": {name: here.services[name].url for name in SERVED},
        "sockets": [str(path) for path in (here.place / "state").rglob("*.sock")],
        "database": f"127.0.0.1:{here.services['thief'].port}",
    }
    here.services["documents"].stored["q3-notes"] = json.dumps({"injected": told}).encode()


def worst(here: Scene, *words: str) -> str:
    """Let the agent do its worst in a run by these ``words``, watched; return all that it and its run print."""
    orders(here)
    path = f"PATH={Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    with here.start("run", "-q", *words, "--", "env", path, sys.executable, "worst_agent.py") as run:
        assert run.stdin is not None
        assert run.stdout is not None
        first = run.stdout.readline()
        assert '"ready"' in first, run.communicate(timeout=PATIENCE)
        with watched(run.pid, OUTSIDE) if os.getuid() == 0 else nullcontext():
            out, err = run.communicate("go\n", timeout=300)
    assert run.returncode == 0, err
    return first + out + err


def check_harmless(here: Scene, said: str) -> None:
    """Assert that the agent tried everything, did its work, and got nothing out."""
    events = [json.loads(line) for line in said.splitlines() if line.startswith('{"event"')]
    assert [one for one in events if one["event"] == "failed"] == []
    tried = {one["what"] for one in events if one["event"] == "tried"}
    assert tried == {"the proxy", "sockets", "the kernel", "grep", "echoes"}
    assert [one["status"] for one in events if one["event"] == "document"] == [200]
    worked = {one["name"] for one in events if one["event"] == "attempt" and one["worked"]}
    assert "call the thief's server" not in worked
    assert PRIVATE.decode() not in said  # of the run's authority
    asked = [seen for name in SERVED for seen in here.services[name].seen]
    assert {seen.service for seen in asked} == {*SERVED}  # it did work, with the keys
    assert [seen for seen in asked if not seen.accepted] == []
    assert here.services["thief"].seen == []
    audit = here.told("audit", "tail", "--all", "--json")
    assert leaked(here.keys, [said.encode(), audit.encode(), *here.outputs()]) == {}
