"""A broker whose models and `search` are the obedient one, and programs of other environments in runs."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from tests.frameworks.model import KEY, Seen, obedient
from tests.live.worst_agent import OUTSIDE
from tests.live.worst_scene import as_user
from tests.sdk.test_live import REMIT, _configured, broker
from tests.support.sniffer import watched

ROOT = Path(__file__).parents[2]
AGENTS = ROOT / "tests" / "frameworks" / "agents"
MODEL = "actions=POST,paths=/v1/**"
RESOURCES = {
    "openai": MODEL,
    "anthropic": MODEL,
    "gemini": "actions=POST,paths=/v1beta/**",
    "search": "actions=GET,paths=/v1/**",
}
WAITING = ["sh", "-c", 'echo ready; read -r line; exec "$0" "$@"']
QUIET = ["OPENAI_AGENTS_DISABLE_TRACING=1", "CREWAI_DISABLE_TELEMETRY=true", "OTEL_SDK_DISABLED=true"]
QUIET += [
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1",
    "LANGSMITH_TRACING=false",
    "CREWAI_TRACING_ENABLED=false",
    "PYTHONDONTWRITEBYTECODE=1",
]


@dataclass(frozen=True)
class Told:
    """What came of a run: what its program printed last, what reached the model, and who used what.

    ``uses`` has for each label of a grant the resources and what was decided.
    """

    answer: str
    paths: list[str]
    uses: dict[str, set[tuple[str, str]]]


@dataclass
class Rig:
    """A broker, and what reached the model behind it."""

    environ: dict[str, str]
    seen: Seen
    folder: Path
    who: int

    def remit(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run one command."""
        with self._start(*words) as process:
            out, err = process.communicate(stdin)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def _start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [REMIT, *words],
            env=self.environ,
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **as_user(self.who),
        )

    def agent(self, python: Path, name: str, *words: str, exercise: bool = False) -> Told:
        """Run one of ``agents/`` in a run whose own grant may only be delegated, or may be used, too."""
        self.seen.paths.clear()
        done = self.remit(*_run(python, name, *words, exercise=exercise))
        assert done.returncode == 0, done.stderr[-4000:]
        return Told(done.stdout.strip().splitlines()[-1], list(self.seen.paths), self.uses())

    def watched(self, python: Path, name: str, *words: str) -> str:
        """Run one of ``agents/`` with its network watched; return all that it and its run print."""
        self.seen.paths.clear()
        self.seen.requests.clear()
        with self._start(*_run(python, name, *words, before=WAITING)) as run:
            assert run.stdin is not None
            assert run.stdout is not None
            assert run.stdout.readline() == "ready\n", run.communicate()
            with watched(run.pid, OUTSIDE) if os.getuid() == 0 else nullcontext():
                out, err = run.communicate("go\n", timeout=300)
        assert run.returncode == 0, err[-4000:]
        return out + err

    def uses(self) -> dict[str, set[tuple[str, str]]]:
        """Return what the newest task's grants were used for."""
        tasks = json.loads(self.remit("tree", "--all", "--json").stdout)["tasks"]
        newest = max(tasks, key=lambda task: str(task["opened_at"]))
        found: dict[str, set[tuple[str, str]]] = {}
        labels = {grant["grant"]: grant["label"] or "the run" for grant in newest["grants"]}
        for line in self.remit("audit", "tail", "--all", "--json").stdout.splitlines():
            entry = json.loads(line)
            if entry["event"] == "resource.use" and entry["grant"] in labels:
                decided = entry["code"] or entry["decision"]
                found.setdefault(labels[entry["grant"]], set()).add((entry["resource"], decided))
        return found


def _run(python: Path, name: str, *words: str, exercise: bool = False, before: list[str] | None = None) -> list[str]:
    told = [f"--env={item}" for item in [f"PYTHONPATH={ROOT / 'src'}:{ROOT}", *QUIET]]
    binds = ["--bind", str(ROOT), "--bind", str(python.parents[1])]
    held = [word for resource in RESOURCES for word in ("-r", resource)]
    held += [] if exercise else ["--no-exercise"]
    request = ["-p", name, *held, "--depth", "3", "--fan-out", "8"]
    command = [*(before or []), str(python), str(AGENTS / f"{name}.py"), *words]
    return ["run", "-q", *request, *binds, *told, "--", *command]


@contextmanager
def rigged(folder: Path, who: int | None = None) -> Iterator[Rig]:
    """Start all of it, as a user."""
    user = os.getuid() if who is None else who
    environ = _configured(folder) | {"HOME": str(folder)}
    (folder / "project").mkdir()
    if user != os.getuid():
        subprocess.run(["chown", "-R", str(user), str(folder)], check=True)
    with obedient() as seen, broker(environ, **as_user(user)):
        rig = Rig(environ, seen, folder / "project", user)
        for name, bound in RESOURCES.items():
            provider = [] if name == "search" else ["--provider", name]
            words = ["resource", "add", name, seen.address, *provider, "-b", f"{bound},args=any", "--secret"]
            added = rig.remit(*words, stdin=KEY)
            assert added.returncode == 0, added.stderr
        yield rig
