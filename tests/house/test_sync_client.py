from __future__ import annotations

from tests.house.sync_client import SDK, blocking


def test_the_blocking_client_is_made_from_the_async_one() -> None:
    made = blocking((SDK / "aio.py").read_text("utf-8"))
    assert made == (SDK / "client.py").read_text("utf-8"), "run `make generate`"
