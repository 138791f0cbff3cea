"""How an agent's process comes by its keys, and what it may do with them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.dojo import grants
from benchmarks.dojo.grants import Call, Tools
from examples.demo.house import House
from remit.sdk import Bounds, verbs

NOBODY = 65_534
PROGRAM = "/usr/bin/python3"  # a run sees nothing of a virtual environment
DEBUG = (
    "whoami",
)  # what careless servers have beside their own tools: granted, so that it is not the grant that withholds
Json = dict[str, Any]
Grant = Callable[[Sequence[Call], str], dict[str, list[Tools]]]


@dataclass(frozen=True, slots=True)
class Arrangement:
    """``grant``: what is granted under remit; without it keys are in the environment, or in a vault."""

    name: str
    title: str
    grant: Grant | None = None
    redacts: bool = False
    vault: bool = False


ACTING = (
    Arrangement("none", "no control: keys in the environment"),
    Arrangement("tools", "remit: the tools that the task needs", grants.by_tool),
    Arrangement("words", "remit: these, arguments bound where the prompt has their value", grants.by_words),
    Arrangement("arguments", "remit: these, each argument bound that is no text", grants.by_argument),
)
LEAKING = (
    Arrangement("environment", "keys in the environment"),
    Arrangement("redacted", "the same, what passes the model redacted", redacts=True),
    Arrangement("vault", "keys fetched from a vault at each use", vault=True),
    Arrangement("remit", "remit: arguments bound", grants.by_argument),
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where it is measured: a broker that has the keys, what AgentDojo's world said of itself, the agent's folder."""

    house: House
    about: Json
    folder: Path

    @contextmanager
    def started(
        self, how: Arrangement, task: Json, more: Sequence[str] = ()
    ) -> Iterator[tuple[Json, Callable[[], None]]]:
        """Yield how the agent's process is started for a user task, and what ends the task."""
        keys: Mapping[str, str] = self.about["keys"]
        told = "".join(f"{_label(kit)}_API_KEY={key}\n" for kit, key in keys.items())
        (self.folder / ".env").write_text("" if how.vault else told)  # from where the environment has them
        if how.grant is None:
            yield self._without(how), lambda: None
            return
        granted = grants.details(how.grant([Call(**one) for one in task["calls"]], task["prompt"]), more)
        with self.house.client() as client:
            opened = client.run(verbs.open_task("AgentDojo", granted, Bounds("2h", depth=1, fan_out=9)))
            command = self.house.command("run", "-q", "-g", opened.grant, "--", PROGRAM, "hands.py")
            start = {"command": command, "environ": dict(self.house.environment), "folder": str(self.folder)}

            def end() -> None:
                client.run(verbs.close(opened.task))

            try:
                yield start, end
            finally:
                end()

    def _without(self, how: Arrangement) -> Json:
        keys: Mapping[str, str] = self.about["keys"]
        environ = {"PATH": os.defpath, "HOME": str(self.folder)}
        environ |= {f"{_label(kit)}_BASE_URL": f"{self.about['address']}/{kit}/mcp" for kit in keys}
        if how.vault:
            environ |= {"VAULT_URL": self.about["vault"]["url"], "VAULT_TOKEN": self.about["vault"]["token"]}
        else:
            environ |= {f"{_label(kit)}_API_KEY": key for kit, key in keys.items()}
        user = {"user": NOBODY} if os.getuid() == 0 else {}
        redact = {"redact": list(keys.values())} if how.redacts else {}
        return {"command": [PROGRAM, "hands.py"], "environ": environ, "folder": str(self.folder), **user, **redact}


def _label(kit: str) -> str:
    return kit.replace("-", "_").upper()
