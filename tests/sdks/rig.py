"""SDKs of providers, as they are installed, in runs of their own; providers are doubles on loopback."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

import psutil

from tests.live.terminal import COMMAND, PATIENCE, Terminal, configure
from tests.peers import absent
from tests.servers.double import Asked, Json, providers
from tests.servers.rig import BOUND, KEY, NODE, _holders

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"
PYTHON = HERE.parents[1] / ".venv-frameworks" / "openai-3"
CHOICE = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hello"}}
USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
CHAT = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [CHOICE], "usage": USAGE}
SPOKEN = {"role": "assistant", "content": [{"type": "text", "text": "hello"}]}
CANDIDATES = {
    "candidates": [{"content": {"role": "model", "parts": [{"text": "hello"}]}, "finishReason": "STOP", "index": 0}],
    "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2},
}
ANSWERS: dict[str, Json] = {
    "/v1/chat/completions": CHAT,
    "/openai/v1/chat/completions": CHAT,
    "/v1/messages": {**SPOKEN, "id": "1", "type": "message", "model": "m", "stop_reason": "end_turn"}
    | {"stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1}},
    "/v1beta/models/gemini-2.5-flash:generateContent": CANDIDATES,
    "/v1/models/gemini-2.5-flash:generateContent": CANDIDATES,
    "/v2/chat": {"id": "1", "finish_reason": "COMPLETE", "message": SPOKEN},
    "/model/amazon.nova-lite-v1%3A0/converse": {
        "output": {"message": {"role": "assistant", "content": [{"text": "hello"}]}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2},
        "metrics": {"latencyMs": 1},
    },
    "/v1/balance": {"object": "balance", "available": [], "pending": [], "livemode": False},
    "/api/auth.test": {"ok": True, "user": "me"},
    "/user": {"login": "me", "id": 1},
}
# Its hosts are of regions: a resource's destination says which. Here the destination is the double.
REGION = """
[bedrock]
replaces = true
title = "Amazon Bedrock in one region"
destination = "https://bedrock-runtime.us-east-1.amazonaws.com"
hosts = ["bedrock-runtime.us-east-1.amazonaws.com"]
key = { header = "Authorization", format = "Bearer {}" }
variables = ["AWS_BEARER_TOKEN_BEDROCK"]
shape = "ABSK<base64url:128>"
"""


@dataclass(frozen=True)
class Sdk:
    """An SDK: its package, its provider, and a program that is as its own documentation begins.

    ``base`` is the variable by which a run tells it where its provider is; ``sent`` how its key comes to the provider.
    """

    package: str  # of npm, if its program is of Node
    program: str
    provider: str
    base: str = ""
    said: str = "hello"
    sent: str = f"authorization: Bearer {KEY}"
    told: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """The version that is installed."""
        if self.program.endswith(".mjs"):
            return str(json.loads((MODULES / self.package / "package.json").read_text("utf-8"))["version"])
        [found] = PYTHON.glob(f"lib/python3.*/site-packages/{self.package.replace('-', '_')}-*.dist-info")
        return found.stem.partition("-")[2]

    @property
    def command(self) -> list[str]:
        """What runs its program, and once more without the variable, then waits."""
        by = NODE if self.program.endswith(".mjs") else PYTHON / "bin" / "python"
        programs = HERE / "programs"
        again = programs / f"again{Path(self.program).suffix}"
        return [str(by), str(again), str(programs / self.program), *filter(None, [self.base])]


@dataclass(frozen=True)
class Used:
    """What came of an SDK's programs: what they said, what their provider was asked, which process has the key."""

    said: list[str]
    asked: list[Asked]
    holders: list[str]
    error: str


@dataclass
class Rig:
    """A broker, and the doubles of providers."""

    here: Terminal
    address: str
    seen: list[Asked]
    added: set[str] = field(default_factory=set)

    def use(self, sdk: Sdk) -> Used:
        """Run an SDK's programs in a run of their own."""
        self._add(sdk.provider)
        self.seen.clear()
        told = [f"--env={item}" for item in ("PYTHONDONTWRITEBYTECODE=1", *sdk.told)]
        run = ["run", "-q", "-r", sdk.provider, "--bind", str(HERE), "--bind", str(PYTHON), *told, "--", *sdk.command]
        with subprocess.Popen(
            [*COMMAND, *run],
            cwd=self.here.work,
            env=self.here.environ(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            said = list(takewhile(lambda line: line != "done", map(str.strip, process.stdout)))
            first = psutil.Process(process.pid)
            holders = _holders([first, *first.children(recursive=True)])
            _, error = process.communicate(timeout=PATIENCE)
        return Used(said, list(self.seen), holders, error)

    def run(self, provider: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run what a page says, with this folder to be seen."""
        self._add(provider)
        self.seen.clear()
        run, *rest = words
        return self._remit(run, "-q", "--bind", str(HERE), *rest)

    def _add(self, provider: str) -> None:
        if provider in self.added:
            return
        self.added.add(provider)
        added = ["resource", "add", provider, self.address, "--provider", provider, "--bound", BOUND, "--secret"]
        done = self._remit(*added, stdin=KEY)
        assert done.returncode == 0, done.stderr

    def _remit(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *words],
            cwd=self.here.work,
            env=self.here.environ(),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )


@contextmanager
def rigged(folder: Path) -> Iterator[Rig]:
    """Start all of it; skip where the SDKs are not installed."""
    for place in (MODULES / ".package-lock.json", PYTHON / ".installed"):
        if not place.exists():
            absent(f"`{place.parent.relative_to(HERE.parents[1])}`", "say `make frameworks`")
    configure(folder, ["[listen]", 'api = "off"', 'gateway = "off"'])
    (folder / "config" / "remit" / "providers.toml").write_text(REGION, "utf-8")
    (folder / "work").mkdir()
    here = Terminal(folder, "https://idp.test", work=folder / "work")
    with providers(ANSWERS) as (address, seen), here.start("up", "--json") as broker:
        try:
            assert broker.stdout is not None
            assert broker.stdout.readline()
            yield Rig(here, address, seen)
        finally:
            broker.terminate()
            broker.communicate(timeout=PATIENCE)
