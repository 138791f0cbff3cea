"""Envoy, as it is shipped, takes SVIDs and bundles from a run's socket by SDS and does mutual TLS with them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.live import envoys
from tests.live.mesh_town import DOMAIN, PATIENCE, REMIT, Town, founded
from tests.peers import absent

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """Found a town for all of these tests."""
    if not envoys.PROGRAM.exists():
        absent("`envoy`", "make test installs it")
    with founded(tmp_path_factory.mktemp("town")) as found:
        yield found


@contextmanager
def envoy(town: Town, grant: str, folder: Path, config: dict[str, Any]) -> Iterator[None]:
    """Have an Envoy in a run of a grant until the block ends."""
    told = folder / f"{config['node']['id']}.json"
    told.write_text(json.dumps(config), "utf-8")
    program = [sys.executable, envoys.__file__, str(told), str(envoys.PROGRAM)]
    command = [
        REMIT,
        "run",
        "--quiet",
        "-g",
        grant,
        "--bind",
        f"{folder}:rw",
        "--bind",
        envoys.__file__,
        "--",
        *program,
    ]
    with subprocess.Popen(command, env=town.environ, cwd=town.project) as process:
        try:
            yield
        finally:
            process.terminate()
            process.wait(PATIENCE)


def seen(folder: Path, done: Callable[[httpx.Response], bool]) -> httpx.Response:
    """Ask the service through the agent's Envoy until the answer is what is waited for."""
    end = time.monotonic() + PATIENCE
    while True:
        if _listens(folder / "agent.sock"):
            with _at(folder / "agent.sock") as web:
                answer = web.get("http://service/")
            if done(answer):
                return answer
        assert time.monotonic() < end


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock, suppress(OSError):
        sock.connect(str(path))
        return True
    return False


def _at(path: Path) -> httpx.Client:
    return httpx.Client(transport=httpx.HTTPTransport(uds=str(path)))


def stats(folder: Path, name: str) -> dict[str, str]:
    """Return what an Envoy counts."""
    with _at(folder / f"{name}-admin.sock") as web:
        told = web.get("http://admin/stats", params={"filter": "sds|ssl"}).text.splitlines()
    return {each.partition(": ")[0]: each.partition(": ")[2] for each in told}


def _is(status: int, answer: httpx.Response) -> bool:
    return answer.status_code == status


def paid(answer: httpx.Response) -> bool:
    return answer.status_code == 200


def test_an_agents_svid_is_presented_renewed_and_worth_nothing_after_a_revoke(town: Town, tmp_path: Path) -> None:
    agent = town.opened("-r", "mesh:ttl=6")
    with ExitStack() as stack:
        stack.enter_context(envoy(town, town.opened(), tmp_path, envoys.service(tmp_path, "ROOTCA")))
        stack.enter_context(envoy(town, agent, tmp_path, envoys.agent(tmp_path, f"spiffe://{DOMAIN}/", "ALL")))
        first = seen(tmp_path, paid)
        assert first.headers["x-peer-id"] == town.remit("show", agent)["agent"]
        serial = first.headers["x-peer-serial"]
        second = seen(tmp_path, lambda answer: answer.headers.get("x-peer-serial", serial) != serial)
        assert second.headers["x-peer-id"] == first.headers["x-peer-id"]
        told = stats(tmp_path, "agent")
        assert [told[f"sds.{name}.update_rejected"] for name in ("default", "ALL")] == ["0", "0"]
        town.remit("revoke", agent)
        assert seen(tmp_path, lambda answer: not paid(answer)).status_code == 503  # Envoy is left with what it had
        assert stats(tmp_path, "agent")["sds.default.control_plane.connected_state"] == "0"
        refused = [
            value for name, value in stats(tmp_path, "service").items() if name.endswith(".ssl.fail_verify_error")
        ]
        assert sum(map(int, refused)) > 0


def test_a_peer_of_another_trust_domain_is_believed_by_its_own_bundle_alone(town: Town, tmp_path: Path) -> None:
    for number, (trust, status) in enumerate([(f"spiffe://{DOMAIN}", 200), ("spiffe://prod.test", 503)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        with ExitStack() as stack:
            stack.enter_context(envoy(town, town.opened(), folder, envoys.service(folder, "ROOTCA")))
            stack.enter_context(envoy(town, town.opened(), folder, envoys.agent(folder, "spiffe://", trust)))
            seen(folder, partial(_is, status))


def test_a_rotation_of_the_authority_reaches_envoys_and_breaks_nothing(town: Town, tmp_path: Path) -> None:
    with ExitStack() as stack:
        stack.enter_context(envoy(town, town.opened(), tmp_path, envoys.service(tmp_path, "ROOTCA")))
        stack.enter_context(envoy(town, town.opened(), tmp_path, envoys.agent(tmp_path, "spiffe://", "ROOTCA")))
        serial = seen(tmp_path, paid).headers["x-peer-serial"]
        signing = town.remit("keys", "list")["rings"]["spiffe"][0]["kid"]
        town.remit("keys", "revoke", "spiffe", signing)  # nothing of before verifies any more
        seen(tmp_path, lambda answer: answer.headers.get("x-peer-serial", serial) != serial)


def test_a_service_that_resumes_sessions_believes_an_svid_beyond_its_end(town: Town, tmp_path: Path) -> None:
    """What `docs/explanation/limits.md` warns of: resumption verifies no certificate, whoever made it."""
    agent = town.opened("-r", "mesh:ttl=2")
    with ExitStack() as stack:
        stack.enter_context(envoy(town, town.opened(), tmp_path, envoys.service(tmp_path, "ROOTCA", resumes=True)))
        stack.enter_context(envoy(town, agent, tmp_path, envoys.agent(tmp_path, "spiffe://", "ROOTCA")))
        seen(tmp_path, paid)
        end = max(datetime.fromisoformat(each["expires_at"]) for each in town.remit("revoke", agent)["outstanding"])
        seen(tmp_path, lambda answer: paid(answer) and datetime.now(UTC) > end + timedelta(seconds=1))
        assert int(stats(tmp_path, "agent")["cluster.service.ssl.session_reused"]) > 0
