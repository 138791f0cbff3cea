"""The process that reaches targets, as it is composed: all of its protocol, and no key of the broker's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import pytest

from remit.compose.targets import serve_targets
from remit.config.settings import Settings
from remit.core import scope
from remit.core.secret import Secret
from remit.errors import InvalidRequestError, RemitError, UnavailableError
from remit.link.frames import pair
from remit.link.targets import TargetsLink
from remit.ports import Resource
from remit.ports.reports import LogLine
from remit.ports.targets import EngineKey
from tests.compose.test_workloads import made

SALES = {"type": "postgres", "resource": "sales", "actions": ["select"], "tables": ["a.b"]}
MESH = {"type": "spiffe", "resource": "mesh", "actions": ["x509"]}
DOMAIN = {"name": "prod.example", "allow": ["spiffe://prod.example/*"]}


def resource(raw: Mapping[str, object], destination: str) -> Resource:
    bound = scope.parse([raw])
    return Resource(bound[0].resource, bound[0].type, destination, bound, None, {})


class Reports:
    """What the authority hears of the worker."""

    def __init__(self) -> None:
        self.served = asyncio.Event()
        self.lines: asyncio.Queue[LogLine] = asyncio.Queue()

    async def started(self) -> None:
        self.served.set()

    async def failed(self, error: RemitError) -> None:
        raise error

    async def logged(self, lines: Sequence[LogLine]) -> None:
        for line in lines:
            self.lines.put_nowait(line)


def test_the_process_serves_its_protocol_until_the_link_ends() -> None:
    async def body() -> None:
        reports, (ours, theirs) = Reports(), pair()
        link = TargetsLink()
        gone = asyncio.Event()
        await link.connect(ours, reports, gone.set)
        settings = made({**DOMAIN, "workload_api": "unix:///nowhere/agent.sock"})
        serving = asyncio.create_task(serve_targets(settings, lambda: datetime.now(UTC), theirs))
        await reports.served.wait()
        sales = resource(SALES, "postgresql://remit@db.example/sales")
        traits = await link.targets.configure(EngineKey("sales", 0), sales, Secret("pw"))
        assert traits.bulk
        with pytest.raises(UnavailableError):
            await link.targets.bundle("prod.example")
        with pytest.raises(UnavailableError):
            await link.targets.fetch("http://127.0.0.1:1/jwks")
        logging.getLogger("remit.test").warning("a line")
        assert (await reports.lines.get()).text == "a line"
        link.close()
        await serving
        assert gone.is_set()

    asyncio.run(body())


def test_no_credential_of_the_brokers_own_keys_is_made_there() -> None:
    async def body() -> None:
        (ours, theirs), link = pair(), TargetsLink()
        await link.connect(ours, Reports(), lambda: None)
        settings: Settings = made()
        serving = asyncio.create_task(serve_targets(settings, lambda: datetime.now(UTC), theirs))
        mesh = resource(MESH, f"spiffe://{settings.identity.trust_domain}")
        with pytest.raises(UnavailableError, match="the broker's own keys"):
            await link.targets.configure(EngineKey("mesh", 0), mesh, None)
        with pytest.raises(InvalidRequestError):
            await link.targets.configure(EngineKey("sales", 0), resource(SALES, "postgresql://nobody"), None)
        link.close()
        await serving

    asyncio.run(body())
