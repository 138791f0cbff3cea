"""The kind and its engine keep remit's contracts; run by remit's own tests from an installed copy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_bytes
from typing import Any

import pytest
from toy_kind import KIND
from toy_kind.engine import CabinetEngine, opened

from remit.core import scope
from remit.core.scope import Detail
from remit.core.task import Plan
from remit.ports import Engine, Issued, Resource
from remit.ports.kind import LeaseRequest
from remit.testing import engine_contract as engines
from remit.testing import kind_contract as kinds

NOTHING_LENT: Any = None  # to a plan that needs nothing of the broker
GAPS = frozenset({"sessions", "outage", "renew", "bulk", "clean"})


def cabinet(folder: Path) -> Resource:
    scope.register(KIND.name, KIND.table)
    bound = scope.parse(
        [{"type": "toy", "resource": "desk", "actions": ["look", "take"], "drawers": ["/top"], "ttl": 600}]
    )
    return Resource("desk", "toy", f"toy://{folder}", bound, None, {})


@pytest.mark.parametrize("case", kinds.CASES, ids=lambda case: case.__name__)
def test_the_kind_keeps_the_contract(case: kinds.Case, tmp_path: Path) -> None:
    good = cabinet(tmp_path)
    refused = [replace(good, destination="toy://here"), replace(good, settings={"lock": "strong"})]
    kinds.kind_contract(case, kinds.KindUnderTest(KIND, good, refused))


class Cabinet:
    """The folder as a test sees it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.engine = folder, self._made(folder)

    def _made(self, folder: Path) -> Engine:
        return CabinetEngine(folder, self.now, token_bytes)

    def again(self) -> Engine:
        return self._made(self.folder)

    def plan(self, wanted: LeaseRequest) -> Plan:
        assert KIND.plan is not None
        return KIND.plan(cabinet(self.folder), NOTHING_LENT, wanted)

    def detail(self) -> Detail:
        return cabinet(self.folder).bound[0]

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def permits(self, issued: Issued) -> bool:
        return opened(self.folder, self._key(issued), "look", "/top", self.now())

    async def exceeds(self, issued: Issued) -> list[str]:
        tried = [("look", "/bottom"), ("burn", "/top")]
        return [f"{a} {d}" for a, d in tried if opened(self.folder, self._key(issued), a, d, self.now())]

    async def exists(self, name: str) -> bool:
        file = self.folder / name
        return file.exists() and bool(file.read_text())

    async def session(self, issued: Issued) -> engines.Session:
        raise NotImplementedError

    def outage(self) -> AbstractAsyncContextManager[None]:
        raise NotImplementedError

    def _key(self, issued: Issued) -> str:
        key = issued.credential["key"]
        return key if isinstance(key, str) else key.reveal()


@pytest.mark.parametrize("case", engines.CASES, ids=lambda case: case.__name__)
def test_the_engine_keeps_the_contract(case: engines.Case, tmp_path: Path) -> None:
    @asynccontextmanager
    async def target() -> AsyncIterator[engines.ObservedTarget]:
        yield Cabinet(tmp_path)

    engines.engine_contract(case, target, GAPS)
