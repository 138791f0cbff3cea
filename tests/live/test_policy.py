"""Policies over a broker that is a process: by command, by signal, and through a death in the middle of a reload."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from examples.demo.house import House, environment, program
from remit.sdk import Client, Place, verbs

pytestmark = [pytest.mark.live]

OPEN = '@id("all")\npermit (principal, action, resource);\n'
NO_MAIL = OPEN + '@id("no-mail")\nforbid (principal, action, resource == Resource::"mail");\n'
TASKS = 400
DETAIL = {"type": "http", "actions": ["GET"], "paths": ["/**"], "args": "any"}


class Home:
    """A configured state, its policies, and the broker on it when one runs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.env = folder, environment(folder)
        self.directory = folder / "policies"
        config = Path(self.env["XDG_CONFIG_HOME"], "remit", "config.toml")
        for made in (config.parent, Path(self.env["HOME"]), Path(self.env["TMPDIR"]), self.directory):
            made.mkdir(parents=True, mode=0o700)
        settings = f'[listen]\napi = "off"\ngateway = "off"\n[policy]\ndirectory = "{self.directory}"\n'
        config.write_text(settings)

    def write(self, text: str) -> None:
        (self.directory / "main.cedar").write_text(text)

    @contextmanager
    def up(self) -> Iterator[House]:
        """Run a broker until the block ends, or it is killed in it."""
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen([program(), "up", "--json"], env=self.env, stdout=subprocess.PIPE, stderr=log)
        assert process.stdout is not None
        try:
            assert process.stdout.readline(), (self.folder / "log").read_text()
            yield House(self.folder, self.env, process)
        finally:
            process.terminate()
            process.wait(20)
            process.stdout.close()

    def remit(self, *arguments: str, code: int = 0) -> Any:
        """Run a command; return its JSON."""
        command = [program(), *arguments, "--json"]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout)

    def client(self) -> Client:
        return Client(Place(self.folder / "state" / "run" / "control.sock"))

    def resources(self) -> None:
        with self.client() as client:
            for name in ("search", "mail"):
                bound = [{**DETAIL, "resource": name}]
                body = {"kind": "http", "destination": f"https://{name}.example", "bound": bound, "settings": {}}
                client.run(verbs.put_resource(name, {**body, "secret": "key-0123456789abcd"}))

    def open(self, name: str) -> str:
        return str(self.remit("open", "try", "-r", name)["task"])

    def closed(self) -> dict[str, bool]:
        with self.client() as client:
            return {item["task"]: item["closed"] for item in client.run(verbs.tasks())}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def eventually(what: Callable[[], bool]) -> None:
    """Look until something holds; a signal answers nothing."""
    end = time.monotonic() + 20
    while not what():
        assert time.monotonic() < end
        threading.Event().wait(0.05)


def test_a_reload_by_command_and_by_signal_ends_what_is_not_allowed_and_survives_bad_policies(home: Home) -> None:
    home.write(OPEN)
    with home.up() as house:
        home.resources()
        search, mail = home.open("search"), home.open("mail")
        before = home.remit("policy", "show")["version"]
        home.write(OPEN.replace("permit", "allow"))
        kept = home.remit("policy", "reload", code=1)
        assert (kept["reloaded"], kept["version"]) == (False, before)
        home.write(NO_MAIL)
        os.kill(house.process.pid, signal.SIGHUP)
        eventually(lambda: home.remit("policy", "show")["version"] != before)
        eventually(lambda: home.closed()[mail])
        assert home.closed() == {search: False, mail: True}
        home.write("nonsense")
        os.kill(house.process.pid, signal.SIGHUP)
        eventually(lambda: bool(home.remit("policy", "show")["problems"]))
        home.write(OPEN)
        assert home.remit("policy", "reload")["version"] == before
        home.open("mail")


def test_the_commands_without_a_broker_read_what_is_configured(home: Home) -> None:
    home.write(NO_MAIL)
    assert [item["id"] for item in home.remit("policy", "check")["policies"]] == ["all", "no-mail"]


def test_a_broker_killed_in_the_middle_of_a_reload_has_finished_it_when_it_serves_again(home: Home) -> None:
    home.write(OPEN)
    with home.up() as house:
        home.resources()
        with home.client() as client:
            for number in range(TASKS):
                wish = ["mail" if number % 2 else "search"]
                client.run(verbs.open_task("fill", wish, verbs.Bounds("1h", 0, 0, exercise=True)))
        home.write(NO_MAIL)
        reload = subprocess.Popen(
            [program(), "policy", "reload"], env=home.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        eventually(lambda: any(home.closed().values()))
        os.kill(house.process.pid, signal.SIGKILL)
        reload.wait(30)
    with home.up():
        closed = home.closed()
        live = [task for task, over in closed.items() if not over]
        assert len(live) == TASKS // 2
        told = [entry for entry in _entries(home) if entry["event"] == "task.close"]
        assert len(told) == TASKS // 2
        assert {entry["cause"].partition(": ")[2] for entry in told} == {"`no-mail` forbids `mail`"}


def _entries(home: Home) -> list[dict[str, Any]]:
    done = subprocess.run(
        [program(), "audit", "tail", "-n", "5000", "--json"], env=home.env, capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]
