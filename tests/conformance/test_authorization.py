"""The suite's checks of an authorization server, at the broker's own: a client without details and proofs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from remit.core.secret import Secret
from remit.ports import Resource
from tests.broker.world import details
from tests.conformance import suite
from tests.live import idp
from tests.live.idp import Provider
from tests.live.test_clients import APP, Stage, stage
from tests.live.test_mcp_oauth import SCOPES, TOOLS
from tests.support.postgres_server import free_port

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    """Serve a real identity provider."""
    with idp.served() as found:
        yield found


async def visited(found: Stage, process: asyncio.subprocess.Process) -> None:
    """Let a human go where the suite sends a browser, and back."""
    assert process.stdout is not None
    async for line in process.stdout:
        url = line.decode().strip()
        if url.startswith(found.issuer):
            back = await asyncio.to_thread(found.human.visit, url)
            assert back.startswith("http://127.0.0.1:"), back
            async with httpx.AsyncClient(trust_env=False) as browser:
                (await browser.get(back)).raise_for_status()


def test_the_authorization_server_passes_every_check(tmp_path: Path, provider: Provider) -> None:
    async def main() -> None:
        async with stage(tmp_path, provider, SCOPES) as found:
            application = found.edges.application
            resource = Resource("search", "http", "http://127.0.0.1:9", details(TOOLS), None, {"bearer": True})
            await application.broker.put_resource(application.operator, resource, Secret("sk-0123456789abcdef"))
            assert application.settings.gateway is not None
            words = ("--resource", f"{application.settings.gateway.url}/search", "--client-id", APP)
            command = suite.command("authorization", "--url", found.issuer, "-o", str(tmp_path / "out"), *words)
            process = await asyncio.create_subprocess_exec(
                *command, "-p", str(free_port()), stdout=asyncio.subprocess.PIPE
            )
            async with asyncio.timeout(suite.PATIENCE):
                await visited(found, process)
                assert await process.wait() == 0

    asyncio.run(main())
    found = suite.statuses(tmp_path / "out")
    assert found.keys() >= {
        "authorization-code-grant authorization-code-grant",
        "authorization-server-metadata-endpoint authorization-server-metadata",
        "authorization-server-metadata-endpoint authorization-server-metadata-cimd",
    }
    assert {name: status for name, status in found.items() if status != "SUCCESS"} == {}
    passed = Counter(found.values())["SUCCESS"]
    assert suite.row("authorization server", f"{passed} pass, 0 fail") in suite.PAGE.read_text("utf-8")
