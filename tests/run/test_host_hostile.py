"""What a run does to the sockets that it handed over, and how many there may be, holds up nobody else."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import httpx
import pytest

from remit.run import handover, room
from remit.run.acceptor import Acceptor
from remit.run.registry import NESTED
from tests.run.launchers import CLOSED, SANDBOX, Launcher, answers, attached, code, connect, launcher
from tests.run.rig import READ, House, opening


def http(run: Launcher) -> httpx.Client:
    """Return a client on the channel of a run."""
    return httpx.Client(transport=httpx.HTTPTransport(uds=str(run.path("channel"))), base_url="http://remit")


def test_a_run_inside_a_run_is_served_like_any_other(runs: House) -> None:
    with attached(runs) as (outer, inner):
        with http(outer) as channel:
            grant = channel.get("/v1/self").json()["grant"]
        for sock, name in zip(inner.bound, ("gateway", "postgres:warehouse"), strict=False):
            with connect(sock) as client:
                assert client.recv(100).startswith(name.encode())
        with http(inner) as channel:
            assert channel.get("/v1/self").json()["grant"] == grant
        with launcher(runs, inner) as third:
            assert third.launch({"delegate": {"authorization_details": [READ]}})[1]["ready"] is True


@contextmanager
def taking(kept: socket.socket) -> Iterator[None]:
    """Accept on a duplicate of what was handed over, in threads, with the description's O_NONBLOCK cleared."""

    def take() -> None:
        with suppress(OSError):
            while True:
                kept.accept()[0].close()

    kept.settimeout(None)
    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        with suppress(OSError):  # the broker has done so
            kept.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


EACH = pytest.mark.parametrize("which", range(4), ids=["gateway", "postgres", "channel", "launch"])


@EACH
def test_a_run_that_takes_its_connections_first_holds_up_nobody(runs: House, which: int) -> None:
    with attached(runs) as (_, inner), taking(inner.bound[which]):
        for _ in range(100):
            connect(inner.bound[which]).close()
            assert answers(runs)


@EACH
def test_a_run_that_shuts_a_socket_down_is_ended_and_costs_nothing(runs: House, which: int) -> None:
    with attached(runs) as (_, inner):
        inner.bound[which].shutdown(socket.SHUT_RDWR)
        assert handover.receive(inner.sock) in (None, (CLOSED, []))
        runs.until(lambda: len(runs.services.open) == 3)
        before = time.process_time()
        assert not threading.Event().wait(0.5)
        assert time.process_time() - before < 0.25


@EACH
def test_a_run_that_ends_while_it_keeps_the_thread_waiting_leaves_no_thread(runs: House, which: int) -> None:
    with attached(runs) as (_, inner), taking(inner.bound[which]):
        for _ in range(100):
            connect(inner.bound[which]).close()
        inner.sock.close()
        outer_one = 1
        runs.until(lambda: sum(thread.name == "remit-acceptor" for thread in threading.enumerate()) == outer_one)


@pytest.mark.attack("LAU-12")
@pytest.mark.parametrize("said", [b"{}", b'{"end":false}', b'{"bound":[]}', b'{"open":{}}', b"\xff", b"[]"], ids=str)
def test_a_launcher_that_goes_on_talking_is_hung_up_on_at_its_first_word(runs: House, said: bytes) -> None:
    """Nothing but the end is due, and a loop that read on as long as there is something would do nothing else."""
    with attached(runs) as (_, inner):
        many = 0
        with suppress(BrokenPipeError, ConnectionResetError):
            inner.sock.setblocking(False)
            with suppress(BlockingIOError):
                while many < 10_000:
                    inner.sock.send(said)
                    many += 1
        runs.until(lambda: len(runs.services.open) == 3)
        assert answers(runs)


@pytest.mark.attack("LAU-12")
def test_a_flood_on_many_conversations_leaves_the_loop_a_turn_after_each_message(runs: House) -> None:
    with launcher(runs) as outer, ExitStack() as stack:
        outer.launch(opening())
        over = threading.Event()

        def flood() -> None:
            while not over.is_set():
                with launcher(runs, outer) as one, suppress(OSError):
                    one.sock.settimeout(1)
                    while not over.is_set():
                        one.sock.send(b"{}")

        threads = [threading.Thread(target=flood) for _ in range(8)]
        for thread in threads:
            thread.start()
            stack.callback(thread.join)
        stack.callback(over.set)
        for _ in range(50):
            assert answers(runs)


def test_a_launcher_whose_conversation_is_ended_before_it_begins_is_hung_up_on(runs: House) -> None:
    """Its task is cancelled in the very round of the loop that made it, so that nothing in it ever runs."""
    sock, client = (socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2))
    sock.bind(str(runs.folder / "late.sock"))
    sock.listen()

    async def scene() -> None:
        close = runs.server.listen(sock, os.geteuid())
        client.connect(sock.getsockname())
        asyncio.get_running_loop().call_later(0, close)  # timers come after what is ready to be read

    with client:
        runs.call(scene())
        runs.until(lambda: sock.fileno() == -1 and not runs.server.busy)
        assert client.recv(1) == b""
    gc.collect()  # a socket that nobody closed would be complained of here


def test_a_run_cannot_make_the_broker_linger(runs: House) -> None:
    with attached(runs) as (_, inner):
        inner.bound[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 1_000))
        lingering: list[bytes] = []
        peer, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        peer.setblocking(False)

        def look(peer: socket.socket) -> None:
            lingering.append(peer.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
            peer.close()

        async def watch() -> Acceptor:
            acceptor = Acceptor(lambda: None, peer)
            acceptor.add(inner.bound[0].dup(), look)
            return acceptor

        acceptor = runs.call(watch())
        while not lingering:
            connect(inner.bound[0]).close()
        runs.loop.call_soon_threadsafe(acceptor.leave)
        assert lingering[0][:4] == bytes(4)
        ours.close()


def test_launches_inside_a_task_are_counted_together_however_they_are_chained(
    runs: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "RUNS_OF_A_TASK", 3)
    with launcher(runs) as outer, ExitStack() as stack:
        granted, _ = outer.launch(opening())
        last = outer
        for _ in range(3):
            last = stack.enter_context(launcher(runs, last))
            last.launch({"grant": granted["grant"]})
        one_more = stack.enter_context(launcher(runs, last))
        assert code(one_more.begin({**SANDBOX, "grant": granted["grant"]})) == "limit"
        heard = handover.receive(one_more.sock)
        assert heard is not None
        assert code(heard[0]) == "limit"
        stack.enter_context(launcher(runs)).launch(opening())  # the operator's are not held up


def test_the_places_of_runs_that_ended_are_free_again(runs: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "RUNS_OF_A_TASK", 1)
    with launcher(runs) as outer:
        granted, _ = outer.launch(opening())
        for _ in range(3):
            with launcher(runs, outer) as inner:
                inner.launch({"grant": granted["grant"]})
                inner.ask({"end": True})
            runs.until(lambda: len(runs.server._conversations) == 1)


def test_runs_are_nested_only_so_deep(runs: House) -> None:
    with launcher(runs) as outer, ExitStack() as stack:
        granted, _ = outer.launch(opening())
        last = outer
        for _ in range(NESTED - 1):
            last = stack.enter_context(launcher(runs, last))
            last.launch({"grant": granted["grant"]})
        deeper = stack.enter_context(launcher(runs, last))
        assert code(deeper.begin({**SANDBOX, "grant": granted["grant"]})) == "limit"
