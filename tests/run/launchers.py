"""A launcher that hands over what it likes, and what is to be seen of its run."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from remit.core.task import Grant
from remit.errors import RemitError
from remit.run import handover, offer
from remit.run.handover import Message
from tests.run.rig import House, opening

CLOSED = {"state": "closed", "revoked": 0, "outstanding": [], "residue": 0, "recorded": True}
NUMBERS = itertools.count()  # of sockets, so that no name is used twice
SANDBOX = {"isolation": "namespace", "folder": "/run/remit"}


class Launcher:
    """A launcher of the operator's, or inside the run of another, that binds what it likes."""

    def __init__(self, house: House, outer: Launcher | None = None) -> None:
        self.asks = house.control if outer is None else outer.path("channel")
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(20)
        self.sock.connect(str(house.handover if outer is None else outer.path("launch")))
        self.folder = house.folder
        self.names: list[str] = []
        self.bound: list[socket.socket] = []

    def path(self, name: str) -> Path:
        """Return where a listener of this run is."""
        return Path(self.bound[self.names.index(name)].getsockname())

    def begin(self, request: Mapping[str, object]) -> Message:
        """Ask for a run; return its offer, or the refusal as a hand-over would have it."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(self.asks))
            try:
                return offer.begin(sock, request)
            except RemitError as error:
                return handover.problem(error)

    def redeem(self, request: Mapping[str, object]) -> Message:
        """Ask for a run and show its ticket; return the offer."""
        offered = self.begin(request)
        handover.raise_problem(offered)
        handover.raise_problem(self.ask({"ticket": offered["ticket"]}))
        return offered

    def ask(self, message: Mapping[str, object], descriptors: list[int] | None = None) -> Message:
        handover.send(self.sock, message, descriptors or [])
        heard = handover.receive(self.sock)
        assert heard is not None
        return heard[0]

    def bind(self, answer: Message) -> list[str]:
        """Bind what an answer names, on free ports and in our own folder."""
        listeners = answer["listeners"]
        assert isinstance(listeners, list)
        for listener in listeners:
            self.bound.append(self._bound(listener))
        self.names = [listener["name"] for listener in listeners]
        return self.names

    def _bound(self, listener: Mapping[str, str]) -> socket.socket:
        if "port" in listener:
            return socket.create_server(("127.0.0.1", 0))
        kind = socket.SOCK_SEQPACKET if listener["name"] == "launch" else socket.SOCK_STREAM
        sock = socket.socket(socket.AF_UNIX, kind)
        sock.bind(str(self.folder / str(next(NUMBERS))))
        sock.listen()
        return sock

    def launch(self, request: Mapping[str, object], **more: object) -> tuple[Message, Message]:
        """Go through the whole hand-over; return both answers."""
        granted = self.redeem({**SANDBOX, **request, **more})
        names = self.bind(granted)
        ready = self.ask({"bound": names}, [sock.fileno() for sock in self.bound])
        return granted, ready

    def again(self, ready: Message, place: Path) -> Message:
        """Hand over anew what was handed over, at a socket; return the answer."""
        self.sock.close()
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(20)
        self.sock.connect(str(place))
        redeemed = self.ask({"ticket": ready["ticket"]})
        if "error" in redeemed:
            return redeemed
        return self.ask({"bound": self.names}, [sock.fileno() for sock in self.bound])

    def end(self) -> None:
        for sock in (self.sock, *self.bound):
            sock.close()


@contextmanager
def launcher(house: House, outer: Launcher | None = None) -> Iterator[Launcher]:
    """Connect as a launcher, the operator's or one inside a run; leave in the end."""
    made = Launcher(house, outer)
    try:
        yield made
    finally:
        made.end()


def code(answer: Message) -> object:
    error = answer["error"]
    assert isinstance(error, dict)
    return error["code"]


def grant_of(house: House, answer: Message) -> Grant:
    grant_id = str(answer["grant"])
    return house.broker._tasks.task_of(grant_id).grant(grant_id)


def is_closed(house: House, answer: Message) -> bool:
    return house.broker._tasks.task_of(str(answer["grant"])).head.closed


@contextmanager
def attached(house: House, **more: object) -> Iterator[tuple[Launcher, Launcher]]:
    """Launch a run, and one inside it that keeps duplicates of what it passed."""
    with launcher(house) as outer:
        granted, _ = outer.launch(opening(), **more)
        with launcher(house, outer) as inner:
            inner.launch({"grant": granted["grant"]})
            yield outer, inner


def answers(house: House) -> bool:
    """Whether the broker's loop answers at once."""
    done = asyncio.run_coroutine_threadsafe(asyncio.sleep(0), house.loop)
    try:
        done.result(5)
    except TimeoutError:
        return False
    return True


def connect(sock: socket.socket) -> socket.socket:
    """Connect to a listening socket of any family and kind."""
    client = socket.socket(sock.family, sock.type)
    client.settimeout(20)
    client.connect(sock.getsockname())
    return client
