"""The processes of a real broker: what each reaches and sees."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.cli.test_broker import REMIT
from tests.identity.spire import Domain
from tests.identity.workload_api import Agent

CONFIG = """
[listen]
api = "off"
gateway = "off"

[[trust_domains]]
name = "{name}"
workload_api = "{url}"
allow = ["spiffe://{name}/**"]
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    config = tmp_path / "config" / "remit"
    config.mkdir(parents=True)
    return {**os.environ, "XDG_CONFIG_HOME": str(config.parent), "REMIT_STATE_DIR": str(tmp_path / "state")}


def configured(environ: dict[str, str], text: str) -> None:
    (Path(environ["XDG_CONFIG_HOME"]) / "remit" / "config.toml").write_text(text, "utf-8")


@pytest.mark.live
def test_a_bundle_comes_from_an_agent_on_a_unix_socket(environ: dict[str, str], tmp_path: Path) -> None:
    domain, sockets = Domain("prod.example"), tmp_path / "agent"
    sockets.mkdir()
    with Agent(sockets / "agent.sock", (domain,)) as agent:
        configured(environ, CONFIG.format(name=domain.name, url=agent.url))
        with subprocess.Popen([REMIT, "up"], env=environ, stderr=subprocess.PIPE, text=True) as broker:
            assert broker.stderr is not None
            told = next((line.strip() for line in broker.stderr if "trust domain" in line), "")
            broker.terminate()
    assert told == f"trust domain {domain.name}: loaded"
