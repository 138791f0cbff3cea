"""The worst agent behind its run's proxy, as root and as nobody: no secret comes out, no packet leaves its network."""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from examples.demo.canary import leaked
from examples.demo.house import brought
from examples.demo.services import Service, running
from tests.live.terminal import COMMAND, PATIENCE
from tests.live.test_run_nobody import NOBODY
from tests.live.worst_agent import OUTSIDE, PRIVATE
from tests.support.sniffer import sniffing

pytestmark = pytest.mark.live
SEEN = f"127.99.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"  # nobody else sends there
SERVED = {  # what the agent may do
    "search": ("Authorization", "actions=GET,paths=/v1/**,args=any"),
    "documents": ("X-Api-Key", "actions=GET,actions=PUT,paths=/v1/documents/**,args=any"),
    "messages": ("Authorization", "actions=POST,paths=/v1/messages,args=any"),
}
PROVIDER = """
[acme-{name}]
title = "Acme's {name}"
destination = "https://{name}.acme.test"
hosts = ["{name}.acme.test"]
key = {{ header = "{header}", format = "{form}" }}
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


@contextmanager
def scene(folder: Path, who: int) -> Iterator[Scene]:
    """Start the services and a broker that has them, for a user."""
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
        texts = [PROVIDER.format(name=name, header=headers[name], form=forms[name]) for name in SERVED]
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
                    words = ["resource", "add", name, services[name].url, "--provider", f"acme-{name}"]
                    made.told(*words, "--bound", bound, "--secret", stdin=services[name].key)
                yield made
            finally:
                broker.terminate()
                _, said = broker.communicate(timeout=PATIENCE)
                assert "Traceback" not in said


def network_of(process: psutil.Process) -> int:
    """Return a process among those of a run that is in the run's network."""
    own = Path("/proc/self/ns/net").readlink()
    for child in process.children(recursive=True):
        with suppress(OSError):
            if Path(f"/proc/{child.pid}/ns/net").readlink() != own:
                return int(child.pid)
    raise AssertionError


@contextmanager
def watched(run: subprocess.Popen[str]) -> Iterator[None]:
    """Watch a run's network and this one's: only where the first is one of loopback alone does anything go."""
    pid = network_of(psutil.Process(run.pid))
    with sniffing(pid) as inside, sniffing(os.getpid(), [*OUTSIDE, SEEN]) as outside:
        yield
        packets = inside.packets()
        assert {packet.interface for packet in packets} == {"lo"}
        assert len(packets) > 100
        assert [one for one in packets if not ipaddress.ip_address(one.to).is_loopback] == []
        assert outside.packets() == []
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"x", (SEEN, 9))  # so would one have been that went out
        assert {one.to for one in outside.packets()} == {SEEN}


def worst(here: Scene) -> str:
    """Let the agent do its worst, watched; return all that it and its run print."""
    orders = {
        "thief": here.services["thief"].url,
        "around": {name: here.services[name].url for name in SERVED},
        "sockets": [str(path) for path in (here.place / "state").rglob("*.sock")],
        "database": f"127.0.0.1:{here.services['thief'].port}",
    }
    here.services["documents"].stored["q3-notes"] = json.dumps({"injected": orders}).encode()
    resources = [word for name in SERVED for word in ("-r", name)]
    with here.start("run", "-q", "--depth", "2", *resources, "--", sys.executable, "worst_agent.py") as run:
        assert run.stdin is not None
        assert run.stdout is not None
        first = run.stdout.readline()
        assert '"ready"' in first, run.communicate(timeout=PATIENCE)
        with watched(run) if os.getuid() == 0 else nullcontext():
            out, err = run.communicate("go\n", timeout=300)
    assert run.returncode == 0, err
    return first + out + err


@pytest.mark.slow
@pytest.mark.attack("LAU-02")
@pytest.mark.attack("DST-03")
@pytest.mark.parametrize("who", [os.getuid(), NOBODY] if os.getuid() == 0 else [os.getuid()])
def test_an_agent_that_obeys_a_document_gets_nothing_out_by_its_proxy(who: int, tmp_path: Path) -> None:
    try:
        subprocess.run([*COMMAND, "--version"], cwd="/", capture_output=True, check=True, env={}, **as_user(who))
    except (PermissionError, subprocess.CalledProcessError):
        pytest.skip("nobody may not execute this interpreter, or not read what it runs")
    with scene(tmp_path, who) as here:
        said = worst(here)
        events = [json.loads(line) for line in said.splitlines() if line.startswith('{"event"')]
        assert [one for one in events if one["event"] == "failed"] == []
        tried = {one["what"] for one in events if one["event"] == "tried"}
        assert tried == {"the proxy", "sockets", "the kernel", "echoes"}
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
