from __future__ import annotations

import asyncio

import pytest
from starlette.requests import Request

from remit.errors import UnavailableError
from remit.web.health import FRESH, Health

REQUEST = Request({"type": "http", "method": "GET", "path": "/healthz"})


class Authority:
    """Answers, or not, and counts who asks."""

    def __init__(self) -> None:
        self.asked, self.now, self.error = 0, 0.0, False
        self.free = asyncio.Event()
        self.free.set()

    async def ask(self) -> None:
        self.asked += 1
        if self.error:
            raise UnavailableError
        await self.free.wait()

    def health(self) -> Health:
        return Health(self.ask, lambda: self.now)


async def status(health: Health) -> int:
    try:
        return (await health.healthz(REQUEST)).status_code
    except UnavailableError as error:
        return error.status


def test_it_is_well_when_the_authority_answers_and_otherwise_not() -> None:
    async def main() -> list[int]:
        authority = Authority()
        health, found = authority.health(), []
        for error in (False, True, False):
            authority.error, authority.now = error, authority.now + FRESH
            found.append(await status(health))
        return found

    assert asyncio.run(main()) == [200, 503, 200]


def test_however_many_ask_the_authority_is_asked_once_in_a_while() -> None:
    async def main() -> None:
        authority = Authority()
        health = authority.health()
        authority.free.clear()
        many = [asyncio.create_task(status(health)) for _ in range(50)]
        await asyncio.sleep(0)
        many[0].cancel()  # who leaves takes nothing from the others
        authority.free.set()
        assert await asyncio.gather(*many[1:]) == [200] * 49
        authority.now = FRESH - 0.01
        assert (await status(health), authority.asked) == (200, 1)
        authority.now = FRESH
        assert (await status(health), authority.asked) == (200, 2)

    asyncio.run(main())


def test_an_authority_that_hangs_is_not_waited_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> int:
        authority = Authority()
        authority.free.clear()
        return await status(authority.health())

    monkeypatch.setattr("remit.web.health.PATIENCE", 0.01)
    assert asyncio.run(main()) == 503
