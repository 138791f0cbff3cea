from __future__ import annotations

import socket
import threading
from urllib.parse import urlsplit

import httpx
import pytest

from remit.errors import LapsedError
from remit.sdk.login import Loopback


def answered(loopback: Loopback, *queries: str) -> list[httpx.Response]:
    """Send requests while the port waits, the last of which is the answer."""
    got: list[httpx.Response] = []

    def browse() -> None:
        with httpx.Client(trust_env=False) as browser:
            got.extend(browser.get(f"{loopback.redirect_uri}{query}") for query in queries)

    thread = threading.Thread(target=browse)
    thread.start()
    loopback.wait(20)
    thread.join(20)
    return got


def test_the_answer_is_told_to_be_closed_and_not_kept() -> None:
    with Loopback("s-1") as loopback:
        [page] = answered(loopback, "?code=c&state=s-1")
        assert loopback.answer == {"code": "c", "state": "s-1"}
    assert "You may close this page" in page.text
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    "query", ["", "?code=c", "?code=c&state=s-2", "?code=c&code=d&state=s-1", "x?code=c&state=s-1"]
)
def test_what_is_not_the_answer_is_turned_away_and_waited_past(query: str) -> None:
    with Loopback("s-1") as loopback:
        first, last = answered(loopback, query, "?code=right&state=s-1")
        assert loopback.answer == {"code": "right", "state": "s-1"}
    assert (first.status_code, last.status_code) == (400, 200)


def test_nothing_is_answered_twice() -> None:
    with Loopback("s-1") as loopback:
        answered(loopback, "?code=c&state=s-1")
        port = urlsplit(loopback.redirect_uri).port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port or 0), 5).close()


def test_an_answer_that_does_not_come_is_not_waited_for_any_longer() -> None:
    with Loopback("s-1") as loopback, pytest.raises(LapsedError) as refusal:
        loopback.wait(0.05)
    assert "--device" in (refusal.value.help or "")
