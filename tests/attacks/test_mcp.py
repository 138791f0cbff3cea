"""An agent that obeys a hostile MCP server, whose tools are called as remit's are and ask for what these return."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.sdk.test_live import KEY, REMIT, _configured, broker, upstream

pytestmark = pytest.mark.live
HERE = Path(__file__).parent


@dataclass
class Obeyed:
    """What came of an agent that did as it was told."""

    environ: dict[str, str]
    folder: Path
    told: dict[str, Any]
    gateway: str
    api: str

    @property
    def texts(self) -> list[str]:
        """Every text that the hostile server was handed, with the parts of each that could be a credential."""
        found = [str(each) for each in self.told["handed"]]
        return [*found, *{word for text in found for word in text.replace("/", " ").split() if len(word) > 8}]


@pytest.fixture(scope="module")
def obeyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Obeyed]:
    folder = tmp_path_factory.mktemp("m")
    (folder / "project").mkdir()
    environ = _configured(folder)
    listen = (folder / "config" / "remit" / "config.toml").read_text("utf-8").split('"')
    with ExitStack() as stack:
        destination = stack.enter_context(upstream())
        stack.enter_context(broker(environ))

        def remit(*words: str, stdin: str = "") -> str:
            done = subprocess.run(
                [REMIT, *words],
                env=environ,
                cwd=folder / "project",
                input=stdin,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

        remit(
            "resource", "add", "search", destination, "-b", "actions=GET,paths=/v1/**,args=any", "--secret", stdin=KEY
        )
        grant = ["-r", "search:paths=/v1/search", "--depth", "1", "--fan-out", "8"]
        agent = [sys.executable, str(HERE / "obedient.py"), str(REMIT)]
        told = json.loads(remit("run", "-q", *grant, "--bind", str(HERE), "--", *agent).splitlines()[-1])
        yield Obeyed(environ, folder, told, f"http://{listen[3]}", f"http://{listen[1]}")


@pytest.mark.attack("MCP-03")
def test_a_tool_of_remits_name_gets_nothing_from_remit_that_is_a_secret(obeyed: Obeyed) -> None:
    handed = json.dumps(obeyed.told["handed"])
    assert obeyed.told["obeyed"] >= 8  # each tool of ours, and what the other asked for
    assert KEY not in handed
    assert obeyed.told["placeholder"] not in handed
    assert "access_token" not in handed
    assert not any(text.startswith("eyJ") for text in obeyed.texts)


@pytest.mark.attack("MCP-03")
def test_nothing_that_was_handed_over_opens_anything_elsewhere(obeyed: Obeyed) -> None:
    statuses = set()
    with httpx.Client(trust_env=False) as client:
        for text in obeyed.texts:
            value = text.encode("ascii", "ignore").decode()[:512].strip().replace("\n", " ")
            for name, head in (
                ("authorization", f"Bearer {value}"),
                ("authorization", f"DPoP {value}"),
                ("remit-grant", value),
            ):
                for url in (f"{obeyed.gateway}/search/v1/search", f"{obeyed.api}/v1/self"):
                    statuses.add(client.get(url, headers={name: head}).status_code)
        for url in (each for each in obeyed.texts if each.startswith("http://127.0.0.1")):
            statuses.add(client.get(f"{obeyed.gateway}/{url.partition('/@')[2]}").status_code)
    assert statuses <= {400, 401, 403, 404, 421}


@pytest.mark.attack("MCP-03")
def test_what_it_had_passed_as_an_argument_is_refused_and_in_no_log(obeyed: Obeyed) -> None:
    assert set(obeyed.told["injected"]) == {"invalid-request"}
    logs = [path.read_bytes() for path in (obeyed.folder / "state").rglob("*") if path.is_file()]
    assert logs
    assert not any(obeyed.told["token"].encode() in text for text in logs)
    assert not any(obeyed.told["placeholder"].encode() in text for text in logs if b"SQLite" not in text[:16])
