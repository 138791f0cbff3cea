"""``[[signals]]``, read strictly: who is heard, of whom, and who is told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from remit.compose import signals
from remit.compose.signals import ConfiguredSignals
from remit.config import settings
from remit.config.settings import Settings
from remit.errors import InvalidRequestError, RemitError
from remit.sessions.events import EventIssuer
from remit.sessions.transmitter import EventSigner, EventStream
from tests.broker.world import OPERATOR, World
from tests.identity.issuing import URL, Clock, Site, issuer
from tests.support.signing import Ring

OTHER = "https://transmitter.test"
HUMANS = {URL: EventIssuer(issuer(), frozenset({"remit"}), about=URL)}
SHOWN = "a-token-that-nobody-can-guess-0123456789"
BROKER = "http://127.0.0.1:8470"


@pytest.fixture
def token(tmp_path: Path) -> str:
    """Return the path of a token file."""
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_text(SHOWN)
    return str(path)


def configured(table: object, *issuers: str) -> Settings:
    """Return settings with a table of signals beside issuers of humans."""
    humans = [{"issuer": url, "client_id": "remit"} for url in (URL, *issuers)]
    return settings.read(settings.places({"REMIT_STATE_DIR": "/nowhere"}), {"humans": humans, "signals": table})


def read(*rows: object) -> ConfiguredSignals:
    """Read tables beside one issuer of humans."""
    return signals.read(configured(list(rows)), HUMANS, Clock(), Site())


def test_issuers_of_humans_are_heard_without_being_named() -> None:
    found = read()
    assert found.sources == HUMANS
    assert (found.tables, found.receivers) == ((), [])
    assert found.verified(Clock()) is not None
    assert ConfiguredSignals({}).verified(Clock()) is None


def test_an_issuer_of_humans_can_be_polled_too_and_under_another_audience(token: str) -> None:
    found = read({"issuer": URL, "audience": "stream-7", "poll": f"{URL}/poll", "token_file": token})
    source = found.sources[URL]
    assert (source.audiences, source.about, source.logouts) == (frozenset({"remit", "stream-7"}), URL, True)
    assert source.issuer is HUMANS[URL].issuer  # one cache of keys
    (polled,) = found.tables
    assert (polled.poll, str(polled.token_file)) == (f"{URL}/poll", token)


def test_another_transmitter_speaks_of_an_issuers_humans_and_sends_no_logout_tokens() -> None:
    source = read({"issuer": OTHER, "about": URL}).sources[OTHER]
    assert (source.audiences, source.about, source.logouts) == (frozenset({BROKER}), URL, False)
    source = read({"issuer": OTHER, "about": URL, "audience": ["a", "b"]}).sources[OTHER]
    assert source.audiences == {"a", "b"}


def test_receivers_are_pushed_to_or_poll_with_a_token(token: str) -> None:
    pushed, polls = read(
        {"receiver": "siem", "audience": "https://siem.test", "push": "https://siem.test/events"},
        {"receiver": "soc", "audience": "https://soc.test", "token_file": token},
    ).tables
    assert (pushed.receiver, pushed.audience, pushed.push, pushed.token_file) == (
        "siem", ("https://siem.test",), "https://siem.test/events", None,
    )  # fmt: skip
    assert (polls.push, str(polls.token_file)) == (None, token)


def test_a_token_that_a_receiver_shows_is_too_long_to_guess_and_one_that_is_shown_to_others_is_as_it_is(
    token: str,
) -> None:
    polls = {"receiver": "soc", "audience": "https://soc.test", "token_file": token}
    Path(token).write_text("x" * 31 + "\n")
    with pytest.raises(RemitError, match="fewer than 32 characters"):
        read(polls)
    (pushed,) = read({**polls, "push": "https://siem.test/events"}).tables
    assert pushed.token_file is not None
    Path(token).write_text("x" * 32 + "\n")
    (one,) = read(polls).receivers
    shown = one.authorization
    assert shown is not None
    assert shown() == "Bearer " + "x" * 32
    Path(token).write_text("short")  # read anew each time
    with pytest.raises(RemitError, match="fewer than 32 characters"):
        shown()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({}, "either an `issuer`"),
        ({"issuer": URL, "receiver": "siem"}, "either an `issuer`"),
        ({"issuer": URL, "secret": "s"}, "`signals.secret` is not a setting"),
        ({"issuer": URL, "push": "https://siem.test"}, "`signals.push` is not a setting"),
        ({"issuer": "http://login.test"}, "`signals.issuer`"),
        ({"issuer": 7}, "`signals.issuer`"),
        ({"issuer": OTHER}, "about an issuer of `humans`"),
        ({"issuer": OTHER, "about": "https://nobody.test"}, "about an issuer of `humans`"),
        ({"issuer": URL, "about": OTHER}, "about an issuer of `humans`"),
        ({"issuer": URL, "audience": 7}, "`signals.audience`"),
        ({"issuer": URL, "audience": [""]}, "`signals.audience`"),
        ({"issuer": URL, "poll": "http://login.test/poll"}, "`signals.poll`"),
        ({"issuer": URL, "token_file": "{token}"}, "with `poll`"),
        ({"issuer": URL, "poll": f"{URL}/poll", "token_file": "relative"}, "absolute path"),
        ({"issuer": URL, "poll": f"{URL}/poll", "token_file": "/nowhere/token"}, "cannot be read"),
        ({"receiver": "SIEM", "audience": "a", "push": "https://siem.test"}, "short name"),
        ({"receiver": "a/b", "audience": "a", "push": "https://siem.test"}, "short name"),
        ({"receiver": 7, "audience": "a", "push": "https://siem.test"}, "short name"),
        ({"receiver": "siem", "push": "https://siem.test"}, "name the receiver"),
        ({"receiver": "siem", "audience": ["a", "b"], "push": "https://siem.test"}, "name the receiver"),
        ({"receiver": "siem", "audience": "a"}, "must show a token"),
        ({"receiver": "siem", "audience": "a", "push": "http://siem.test"}, "`signals.push`"),
        ({"receiver": "siem", "audience": "a", "about": URL, "push": "https://siem.test"}, "`signals.about` is not"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_built(row: dict[str, object], said: str, token: str) -> None:
    filled = {name: token if value == "{token}" else value for name, value in row.items()}
    with pytest.raises(RemitError) as caught:
        read(filled)
    assert said in caught.value.detail


def test_what_is_there_twice_is_refused(token: str) -> None:
    for row in ({"issuer": URL}, {"receiver": "soc", "audience": "a", "token_file": token}):
        with pytest.raises(InvalidRequestError, match="twice"):
            read(row, dict(row))


def test_an_issuer_of_humans_speaks_of_no_other_issuers_humans() -> None:
    second = "https://second.test"
    with pytest.raises(InvalidRequestError, match="its own humans"):
        configured([{"issuer": URL, "about": second}], second)


@pytest.mark.parametrize("table", [{"issuer": URL}, "x", [7], [{"issuer": URL}] * 65])
def test_the_table_is_a_list_of_tables(table: object) -> None:
    with pytest.raises(InvalidRequestError, match="list of at most 64 tables"):
        configured(table)


def test_others_can_not_have_read_the_token(token: str) -> None:
    Path(token).chmod(0o644)
    with pytest.raises(RemitError, match="read or written by others"):
        read({"receiver": "soc", "audience": "a", "token_file": token})


# -- what is built of it --------------------------------------------------------------------------------------------


class Refusing(BaseHTTPRequestHandler):
    """A receiver and a transmitter that want nothing to do with us."""

    received: ClassVar[list[tuple[str, str | None]]] = []

    def do_POST(self) -> None:
        """Refuse."""
        self.rfile.read(int(self.headers["content-length"]))
        self.received.append((self.path, self.headers.get("authorization")))
        self.send_response(403)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def refusing() -> Iterator[str]:
    """Serve it; return its URL."""
    Refusing.received.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=lambda: server.serve_forever(0.05))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_without_receivers_nobody_is_told_and_without_issuers_nobody_is_asked() -> None:
    async def scene() -> None:
        broker = await World().ready()
        assert signals.rounds(read(), broker, Clock(), None) == ()
        assert signals.rounds(ConfiguredSignals({}), broker, Clock(), None) == ()

    asyncio.run(scene())


def test_there_is_a_round_for_each_that_is_asked_and_each_that_is_pushed_to(refusing: str, token: str) -> None:
    async def scene() -> None:
        world = World()
        broker = await world.ready()
        found = read(
            {"issuer": URL, "poll": f"{refusing}/poll", "token_file": token},
            {"receiver": "siem", "audience": "a", "push": f"{refusing}/siem", "token_file": token},
            {"receiver": "soc", "audience": "a", "token_file": token},
        )
        events = EventStream(broker.sessions)
        for one in found.receivers:
            await events.pending(one.name, 1)
        sender = EventSigner(events, BROKER, Ring(), found.receivers)
        rounds = signals.rounds(found, broker, Clock(), sender)
        assert len(rounds) == 2
        opened = await world.opened(broker)
        await broker.close(OPERATOR, broker._tasks.task_of(opened.id).id)
        for look in rounds:
            await look()
        assert [len(await events.pending(name, 9)) for name in ("siem", "soc")] == [1, 1]

    asyncio.run(scene())
    assert Refusing.received == [("/poll", f"Bearer {SHOWN}"), ("/siem", f"Bearer {SHOWN}")]
