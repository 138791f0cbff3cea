"""Sockets that linger, passed to the broker in every way there is: whoever closes the last copy waits for it."""

from __future__ import annotations

import errno
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from remit.process import kernel
from remit.run import handover, room
from tests.run.launchers import SANDBOX, answers, attached, code, connect, launcher
from tests.run.rig import READ, House, opening

PASS_RIGHTS = 83  # SO_PASSRIGHTS
LINGER = 10  # seconds; the broker is to answer within five
MOST = 253  # descriptors that Linux passes with one message (SCM_MAX_FD)
TRIES = 6


def refuses() -> bool:
    """Whether this kernel can refuse descriptors."""
    with socket.socket(socket.AF_UNIX) as sock, suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, PASS_RIGHTS, 0)
        return True
    return False


KNOWN = pytest.mark.skipif(not refuses(), reason="SO_PASSRIGHTS is there since Linux 6.16")


def fill(sock: socket.socket) -> None:
    """Give a connection more to send than its other end takes, and have it linger."""
    sock.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            sock.send(b"x" * 65_536)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, LINGER))


@contextmanager
def lingering(many: int = 1) -> Iterator[list[socket.socket]]:
    """Yield sockets that take ten seconds to close, whose other ends stay open."""
    with socket.create_server(("127.0.0.1", 0)) as server, ExitStack() as stack:
        made = []
        for _ in range(many):
            made.append(socket.create_connection(server.getsockname()))
            stack.enter_context(server.accept()[0])
            fill(made[-1])
        try:
            yield made
        finally:
            handover.discard([sock.detach() for sock in made if sock.fileno() != -1])


def nested(sock: socket.socket) -> socket.socket:
    """Return a unix socket in whose queue the last copy of another is."""
    outer, sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with sender, sock:
        socket.send_fds(sender, [b"x"], [sock.fileno()])
    return outer


@pytest.fixture(autouse=True)
def _listening(runs: House) -> None:
    runs.services.listens = True


def throw(house: House, client: socket.socket, socks: list[socket.socket], message: bytes = b"x") -> None:
    """Send descriptors and keep no copy, before the broker's loop can look: whoever has them last has to close them."""
    free, closer = threading.Event(), threading.Thread(target=_close, args=(socks,), daemon=True)
    house.loop.call_soon_threadsafe(free.wait)
    try:
        socket.send_fds(client, [message], [sock.fileno() for sock in socks])
    finally:
        closer.start()
        closer.join(0.5)  # another thread may have been first, and then it is this one that waits
        free.set()


def _close(socks: list[socket.socket]) -> None:
    for sock in socks:
        sock.close()


def still(house: House) -> None:
    """Look that the broker answers, often enough to see a close that comes late."""
    for _ in range(TRIES):
        assert answers(house)


# -- streams, which take no descriptors ---------------------------------------------------------------------------


@KNOWN
@pytest.mark.attack("LAU-09")
@pytest.mark.parametrize("inside", [False, True], ids=["run", "nested"])
def test_a_channel_takes_no_descriptors(runs: House, inside: bool) -> None:  # noqa: FBT001 - a parameter
    with attached(runs) as (outer, inner), lingering(TRIES) as socks:
        for sock in socks:
            with connect((inner if inside else outer).bound[2]) as client, pytest.raises(PermissionError):
                throw(runs, client, [sock])
        still(runs)


@KNOWN
@pytest.mark.attack("LAU-09")
def test_a_run_that_has_its_channel_take_descriptors_again_is_not_heard_there(runs: House) -> None:
    with attached(runs) as (_, inner), lingering(TRIES) as socks, ExitStack() as stack:
        inner.bound[2].setsockopt(socket.SOL_SOCKET, PASS_RIGHTS, 1)
        for sock in socks:
            client = stack.enter_context(connect(inner.bound[2]))
            with suppress(BrokenPipeError):  # it is hung up on at once
                throw(runs, client, [sock])
        still(runs)


@KNOWN
@pytest.mark.attack("LAU-09")
def test_what_was_sent_to_a_channel_before_it_was_handed_over_is_never_read(runs: House) -> None:
    with launcher(runs) as outer, lingering() as socks, ExitStack() as stack:
        granted, _ = outer.launch(opening())
        inner = stack.enter_context(launcher(runs, outer))
        names = inner.bind(inner.redeem({**SANDBOX, "grant": granted["grant"]}))
        early = stack.enter_context(connect(inner.bound[2]))
        throw(runs, early, socks)
        assert inner.ask({"bound": names}, [sock.fileno() for sock in inner.bound])["ready"] is True
        still(runs)


def test_a_kernel_that_cannot_refuse_descriptors_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_PASS_RIGHTS", 4_095)  # which no kernel knows
    with socket.socket(socket.AF_UNIX) as sock:
        kernel.refuse_descriptors(sock)
        assert not kernel.takes_descriptors(sock)


def test_another_error_than_that_is_one() -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        kernel.refuse_descriptors(sock)


THROW = """
import json, os, socket, struct
server = socket.create_server(("127.0.0.1", 0))
sock = socket.create_connection(server.getsockname())
kept, _ = server.accept()
sock.setblocking(False)
try:
    while True: sock.send(b"x" * 65536)
except BlockingIOError: pass
def of(call):
    try: call()
    except OSError as error: return error.errno
said = {"linger": of(lambda: sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 10)))}
channel = socket.socket(socket.AF_UNIX)
channel.connect(os.environ["REMIT_SOCKET"])
said["channel"] = of(lambda: socket.send_fds(channel, [b"x"], [sock.fileno()]))
print(json.dumps(said), flush=True)
os._exit(0)  # closing it would take its time here, too
"""


@pytest.mark.live
@pytest.mark.attack("LAU-09")
def test_a_process_in_a_run_cannot_make_a_socket_linger(runs: House) -> None:
    done = runs.python(THROW)
    assert f'"linger": {errno.ENOPROTOOPT}' in done.stdout, done.stderr


@KNOWN
@pytest.mark.live
@pytest.mark.attack("LAU-09")
@pytest.mark.parametrize("unsandboxed", [False, True])
def test_a_process_in_a_run_cannot_pass_a_descriptor_over_its_channel(
    runs: House,
    unsandboxed: bool,  # noqa: FBT001 - a parameter
) -> None:
    done = runs.python(THROW, unsandboxed=unsandboxed)
    assert f'"channel": {errno.EPERM}' in done.stdout, done.stderr
    still(runs)


# -- hand-overs, which take some ----------------------------------------------------------------------------------


@pytest.mark.attack("LAU-10")
@pytest.mark.parametrize("deep", [False, True], ids=["plain", "in the queue of another"])
def test_a_request_with_descriptors_holds_up_nobody(runs: House, deep: bool) -> None:  # noqa: FBT001 - a parameter
    with launcher(runs) as outer, lingering() as socks, ExitStack() as stack:
        outer.launch(opening())
        inner = stack.enter_context(launcher(runs, outer))
        sent = [nested(socks[0])] if deep else socks
        throw(runs, inner.sock, sent, handover.encode({"ticket": "x"}))
        still(runs)


@pytest.mark.attack("LAU-10")
def test_as_many_descriptors_as_linux_passes_hold_up_nobody(runs: House) -> None:
    with launcher(runs) as outer, lingering(2) as socks, ExitStack() as stack:
        outer.launch(opening())
        inner = stack.enter_context(launcher(runs, outer))
        names = inner.bind(inner.redeem({**SANDBOX, "delegate": {"authorization_details": [READ]}}))
        many = [inner.bound[0].dup() for _ in range(MOST - 2)]
        throw(runs, inner.sock, [socks[0], *many, socks[1]], handover.encode({"bound": names}))
        still(runs)


@pytest.mark.attack("LAU-10")
def test_descriptors_with_a_later_message_hold_up_nobody_and_end_the_run(runs: House) -> None:
    with attached(runs) as (_, inner), lingering() as socks:
        throw(runs, inner.sock, socks, handover.encode({"end": False}))
        still(runs)
        runs.until(lambda: len(runs.services.open) == 3)


@pytest.mark.attack("LAU-10")
@pytest.mark.parametrize("said", [b"", handover.encode({"end": True})], ids=["gone", "says so"])
def test_a_run_whose_thread_is_kept_busy_ends_with_its_launcher_all_the_same(
    runs: House, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(room, "RUNS_OF_A_TASK", 0)
    with launcher(runs) as outer, lingering() as socks:
        granted, _ = outer.launch(opening())
        with launcher(runs, outer) as inner, suppress(BrokenPipeError):
            throw(runs, inner.sock, [nested(socks[0])])  # refused, and closed in the thread of the outer one
        if said:
            outer.sock.send(said)
            heard = handover.receive(outer.sock)
            assert heard is not None
            assert heard[0]["state"] == "closed"
        outer.sock.close()
        assert answers(runs)
        ended = time.monotonic() + LINGER / 2
        while not runs.broker._tasks.task_of(str(granted["grant"])).head.closed:
            assert time.monotonic() < ended
        runs.until(lambda: not runs.services.open)


@pytest.mark.attack("LAU-10")
def test_a_hand_over_that_is_refused_is_not_closed_by_the_loop(runs: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "RUNS_OF_A_TASK", 0)
    with launcher(runs) as outer, lingering(TRIES) as socks, ExitStack() as stack:
        outer.launch(opening())
        for sock in socks:
            inner = stack.enter_context(launcher(runs, outer))
            with suppress(BrokenPipeError):
                throw(runs, inner.sock, [sock])
        still(runs)


@pytest.mark.attack("LAU-10")
def test_a_launcher_that_leaves_messages_unread_holds_up_nobody(runs: House) -> None:
    with attached(runs) as (outer, inner), lingering(TRIES) as socks:
        outer.sock.close()  # ends the inner one, whose messages nobody reads any more
        for sock in socks:
            with suppress(BrokenPipeError, ConnectionResetError):
                throw(runs, inner.sock, [sock])
        still(runs)
        runs.until(lambda: not runs.services.open)
        still(runs)


@pytest.mark.attack("LAU-10")
def test_a_message_that_comes_when_the_launcher_has_been_given_up_holds_up_nobody(
    runs: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("remit.run.acceptor.PATIENCE", 0.0)
    with launcher(runs) as outer, lingering(TRIES) as socks, ExitStack() as stack:
        del outer
        for sock in socks:
            one = stack.enter_context(launcher(runs))
            with suppress(BrokenPipeError, ConnectionResetError):
                throw(runs, one.sock, [sock], handover.encode({"ticket": "x"}))
        still(runs)


@pytest.mark.attack("LAU-10")
def test_a_listener_that_has_become_a_connection_holds_up_nobody(runs: House) -> None:
    """A run that keeps a copy of what it passed can shut it down, connect it, fill it, and have the broker close it."""
    with attached(runs) as (_, inner), socket.create_server(("127.0.0.1", 0)) as server:
        kept, free = inner.bound[0], threading.Event()
        runs.loop.call_soon_threadsafe(free.wait)
        kept.shutdown(socket.SHUT_RDWR)
        kept.setblocking(True)
        kept.connect(server.getsockname())
        with server.accept()[0]:
            fill(kept)
            kept.close()
            inner.sock.close()
            free.set()
            still(runs)
            runs.until(lambda: len(runs.services.open) == 3)
            still(runs)


@pytest.mark.attack("LAU-10")
def test_descriptors_are_passed_on_only_as_far_as_they_are_due(runs: House) -> None:
    with launcher(runs) as one:
        names = one.bind(one.redeem({**SANDBOX, **opening()}))
        answer = one.ask({"bound": names}, [one.bound[0].fileno()] * MOST)
        assert code(answer) == "invalid-request"


@pytest.mark.skipif(sys.platform != "linux", reason="pidfds are Linux's")
def test_a_run_cannot_have_the_broker_make_a_descriptor_of_each_message(runs: House) -> None:
    """SO_PASSPIDFD and its kind are inherited from the listener, of which a run may keep a copy."""
    with attached(runs) as (_, inner):
        for option in (16, 76):
            inner.bound[-1].setsockopt(socket.SOL_SOCKET, option, 1)
        before = _open()
        for _ in range(8):
            with launcher(runs, inner) as thief:
                assert code(thief.ask({})) == "invalid-request"
        runs.until(lambda: len(runs.server._conversations) == 2)
        assert _open() <= before


def _open() -> list[Path]:
    return [path for path in Path("/proc/self/fd").iterdir() if "pidfd" in str(_target(path))]


def _target(path: Path) -> Path:
    with suppress(OSError):
        return path.readlink()
    return Path()
