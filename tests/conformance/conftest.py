"""One broker with the upstreams behind it, and what the suite says of each, alone and through the gateway."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path

import pytest

from tests.conformance import suite
from tests.conformance.suite import HERE, Statuses
from tests.live.idp import NODE, PEERS
from tests.live.terminal import COMMAND, Terminal, configure

REVISIONS = ("2025-11-25", "2026-07-28")
UPSTREAMS: Mapping[str, list[str]] = {
    "python": [sys.executable, "-W", "ignore", str(HERE / "everything.py")],
    "typescript": [str(NODE), str(PEERS / "everything.mjs"), str(HERE / "everything.json")],
}
ACTIONS = (
    "completion/complete", "elicitation/create", "prompts/get", "resources/read", "resources/subscribe", "roots/list",
    "sampling/createMessage", "tools/call",
)  # fmt: skip
ALL = {"type": "mcp", "actions": ACTIONS, "tools": "any", "prompts": "any", "resources": ["**"]}
BOUND = ",".join([*(f"actions={action}" for action in ACTIONS), "tools=any", "prompts=any", "resources=**"])
WITHIN = 'exec "$@" --url "$REMIT_GATEWAY/$RESOURCE"'

Scores = Mapping[tuple[str, str, str], Statuses]  # of an upstream, a revision, and a way: "alone" or "gateway"


@contextmanager
def upstream(kind: str) -> Iterator[str]:
    """Serve an upstream; yield its URL."""
    with subprocess.Popen(UPSTREAMS[kind], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/mcp"
        finally:
            process.terminate()


@contextmanager
def broker(folder: Path, lines: list[str]) -> Iterator[Terminal]:
    """Serve a broker by its command."""
    configure(folder, lines)
    (folder / "work").mkdir()
    here = Terminal(folder, "https://idp.test", work=folder / "work")
    with here.start("up", "--json") as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            yield here
        finally:
            process.terminate()
            process.communicate(timeout=60)


def _scored(here: Terminal, urls: Mapping[str, str], kind: str, revision: str, way: str) -> Statuses:
    assert here.work is not None
    out = here.work / f"{kind}-{revision}-{way}"
    words = suite.command("server", "--requirements", revision, "-o", str(out))
    if way == "alone":
        suite.run([*words, "--url", urls[kind]])
        return suite.statuses(out)
    detail = json.dumps({**ALL, "resource": kind})
    binds = [f"--bind={path}" for path in (PEERS, HERE)]
    run = [*COMMAND, "run", "-q", "--as-owner", "-d", detail, *binds, f"--env=RESOURCE={kind}", "--"]
    suite.run([*run, "sh", "-c", WITHIN, "sh", *words], cwd=here.work, env=here.environ())
    return suite.statuses(out)


@pytest.fixture(scope="session")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Scores:
    """Run the suite against each upstream, alone and as an agent in a run has it."""
    with ExitStack() as stack:
        off = ["[listen]", 'api = "off"', 'gateway = "off"']
        here = stack.enter_context(broker(tmp_path_factory.mktemp("c"), off))
        urls = {kind: stack.enter_context(upstream(kind)) for kind in UPSTREAMS}
        for kind, url in urls.items():
            code, _, err = here.run("resource", "add", kind, f"mcp+{url}", "-b", BOUND)
            assert code == 0, err
        legs = list(product(UPSTREAMS, REVISIONS, ("alone", "gateway")))
        with ThreadPoolExecutor(4) as pool:
            return dict(zip(legs, pool.map(lambda leg: _scored(here, urls, *leg), legs), strict=True))
