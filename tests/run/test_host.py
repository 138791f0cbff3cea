"""The broker's side, as a launcher of any intention meets it."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from remit.core.principal import Holder
from remit.core.request import GrantRequest
from remit.core.task import Grant
from remit.run import handover, host
from remit.run.acceptor import Acceptor
from remit.run.handover import Message
from tests.broker.world import OPERATOR, STRANGER, details
from tests.grant_requests import changed
from tests.run.rig import READ, TABLE, House, opening

CLOSED = {"state": "closed", "revoked": 0, "outstanding": [], "residue": 0, "recorded": True}
SANDBOX = {"posture": {"isolation": "namespace"}, "folder": "/run/remit"}


class Launcher:
    """A launcher that binds what it likes."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(20)
        self.sock.connect(str(path))
        self.folder = folder
        self.bound: list[socket.socket] = []

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
        return [listener["name"] for listener in listeners]

    def _bound(self, listener: Mapping[str, str]) -> socket.socket:
        if "port" in listener:
            return socket.create_server(("127.0.0.1", 0))
        kind = socket.SOCK_SEQPACKET if listener["name"] == "launch" else socket.SOCK_STREAM
        sock = socket.socket(socket.AF_UNIX, kind)
        sock.bind(str(self.folder / f"{len(self.bound)}-{id(self)}"))
        sock.listen()
        return sock

    def launch(self, request: Mapping[str, object], **more: object) -> tuple[Message, Message]:
        """Go through the whole hand-over; return both answers."""
        granted = self.ask({**SANDBOX, **request, **more})
        handover.raise_problem(granted)
        names = self.bind(granted)
        ready = self.ask({"bound": names}, [sock.fileno() for sock in self.bound])
        return granted, ready

    def end(self) -> None:
        for sock in (self.sock, *self.bound):
            sock.close()


@contextmanager
def launcher(house: House, path: Path | None = None) -> Iterator[Launcher]:
    """Connect as a launcher; leave in the end."""
    made = Launcher(path or house.socket, house.folder)
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


def test_a_task_is_opened_for_a_run_and_its_listeners_are_served(runs: House) -> None:
    with launcher(runs) as one:
        granted, ready = one.launch(opening())
        assert ready["ready"] is True
        assert not is_closed(runs, granted)
        with socket.create_connection(one.bound[0].getsockname()) as client:
            assert client.recv(100) == f"gateway {granted['grant']}\n".encode()


def test_the_environment_names_the_ports_that_were_bound(runs: House) -> None:
    with launcher(runs) as one:
        _, ready = one.launch(opening())
        environment = ready["environment"]
        assert isinstance(environment, dict)
        assert environment["REMIT_GATEWAY"] == f"http://127.0.0.1:{one.bound[0].getsockname()[1]}"


def test_end_of_file_closes_the_task_that_was_opened_for_the_run(runs: House) -> None:
    with launcher(runs) as one:
        granted, _ = one.launch(opening())
    runs.until(lambda: is_closed(runs, granted))
    runs.until(lambda: not runs.services.open)


@pytest.mark.attack("REV-08")
def test_a_run_that_ends_while_its_task_cannot_be_read_leaves_no_grant(runs: House) -> None:
    async def unread() -> None:
        heads = runs.broker._tasks
        heads.forget(str(granted["task"]))
        heads._read_later(str(granted["task"]))  # as after a commit that failed, on a medium that cannot be read either

    with launcher(runs) as one:
        granted, _ = one.launch(opening())
        runs.call(unread())
    runs.until(lambda: not runs.services.open)
    runs.world.later(1)
    runs.call(runs.broker.sweep())
    runs.until(lambda: is_closed(runs, granted))


def test_saying_that_it_ended_is_answered_when_the_authority_has_ended(runs: House) -> None:
    with launcher(runs) as one:
        granted, _ = one.launch(opening())
        assert one.ask({"end": True})["state"] == "closed"
        assert is_closed(runs, granted)


def test_a_launcher_that_leaves_half_way_leaves_nothing_open(runs: House) -> None:
    with launcher(runs) as one:
        granted = one.ask({**SANDBOX, **opening()})
    runs.until(lambda: is_closed(runs, granted))


def test_a_run_under_a_grant_that_was_there_ends_without_it(runs: House) -> None:
    with launcher(runs) as outer:
        granted, _ = outer.launch(opening())
        with launcher(runs) as inner:
            inner.launch({"grant": granted["grant"]})
        runs.until(lambda: len(runs.services.open) == 3)
        assert not grant_of(runs, granted).revoked


def test_a_delegated_grant_ends_with_its_run_and_its_parent_stays(runs: House) -> None:
    with launcher(runs) as outer:
        granted, _ = outer.launch(opening())
        wish = {"parent": granted["grant"], "authorization_details": [READ], "label": "reader"}
        with launcher(runs) as inner:
            child, _ = inner.launch({"delegate": wish})
            assert (grant_of(runs, child).parent, grant_of(runs, child).label) == (granted["grant"], "reader")
        runs.until(lambda: grant_of(runs, child).revoked)
        assert not grant_of(runs, granted).revoked


def test_inside_a_run_the_parent_is_the_runs_own_grant(runs: House) -> None:
    with launcher(runs) as outer:
        granted, _ = outer.launch(opening())
        with launcher(runs, Path(outer.bound[-1].getsockname())) as inner:
            child, _ = inner.launch({"delegate": {"authorization_details": [READ]}})
            assert grant_of(runs, child).parent == granted["grant"]


def test_a_run_ends_the_runs_launched_inside_it(runs: House) -> None:
    with launcher(runs) as outer:
        granted, _ = outer.launch(opening())
        inner = Launcher(Path(outer.bound[-1].getsockname()), runs.folder)
        inner.launch({"delegate": {"authorization_details": [READ]}})
        outer.sock.close()
        runs.until(lambda: is_closed(runs, granted))
        runs.until(lambda: not runs.services.open)
        assert handover.receive(inner.sock) is None
        inner.end()


@pytest.mark.parametrize(
    ("request_", "wanted"),
    [
        (opening(), "denied"),
        ({"delegate": {"parent": "grt_unknown", "authorization_details": [READ]}}, "not-found"),
        ({"grant": "grt_unknown"}, "not-found"),
        ({"delegate": {"authorization_details": [{**READ, "actions": ["GET", "DELETE"]}]}}, "attenuation"),
        ({"delegate": {"authorization_details": [READ], "ttl": 100_000}}, "invalid-request"),
    ],
)
def test_a_run_gets_no_more_than_it_has(runs: House, request_: Mapping[str, object], wanted: str) -> None:
    with launcher(runs) as outer:
        outer.launch(opening())
        with launcher(runs, Path(outer.bound[-1].getsockname())) as inner:
            assert code(inner.ask({**SANDBOX, **request_})) == wanted


@contextmanager
def attached(house: House, **more: object) -> Iterator[tuple[Launcher, Launcher]]:
    """Launch a run, and one inside it that keeps duplicates of what it passed."""
    with launcher(house) as outer:
        granted, _ = outer.launch(opening(), **more)
        with launcher(house, Path(outer.bound[-1].getsockname())) as inner:
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


def test_a_run_inside_a_run_is_served_like_any_other(runs: House) -> None:
    with attached(runs) as (_, inner):
        for sock, name in zip(inner.bound, ("gateway", "postgres:warehouse", "channel"), strict=False):
            with connect(sock) as client:
                assert client.recv(100).startswith(name.encode())
        with launcher(runs, Path(inner.bound[-1].getsockname())) as third:
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
        over, port = threading.Event(), Path(outer.bound[-1].getsockname())

        def flood() -> None:
            while not over.is_set():
                with launcher(runs, port) as one, suppress(OSError):
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
        close = runs.server.listen(sock, OPERATOR)
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
    monkeypatch.setattr(host, "RUNS_OF_A_TASK", 3)
    with launcher(runs) as outer, ExitStack() as stack:
        granted, _ = outer.launch(opening())
        last = outer
        for _ in range(3):
            last = stack.enter_context(launcher(runs, Path(last.bound[-1].getsockname())))
            last.launch({"grant": granted["grant"]})
        one_more = stack.enter_context(launcher(runs, Path(last.bound[-1].getsockname())))
        heard = handover.receive(one_more.sock)
        assert heard is not None
        assert code(heard[0]) == "limit"
        stack.enter_context(launcher(runs)).launch(opening())  # the operator's are not held up


def test_the_places_of_runs_that_ended_are_free_again(runs: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "RUNS_OF_A_TASK", 1)
    with launcher(runs) as outer:
        granted, _ = outer.launch(opening())
        for _ in range(3):
            with launcher(runs, Path(outer.bound[-1].getsockname())) as inner:
                inner.launch({"grant": granted["grant"]})
                inner.ask({"end": True})
            runs.until(lambda: len(runs.server._conversations) == 1)


def test_runs_are_nested_only_so_deep(runs: House) -> None:
    with launcher(runs) as outer, ExitStack() as stack:
        granted, _ = outer.launch(opening())
        last = outer
        for _ in range(host.NESTED - 1):
            last = stack.enter_context(launcher(runs, Path(last.bound[-1].getsockname())))
            last.launch({"grant": granted["grant"]})
        deeper = stack.enter_context(launcher(runs, Path(last.bound[-1].getsockname())))
        assert code(deeper.ask({**SANDBOX, "grant": granted["grant"]})) == "limit"


@pytest.mark.parametrize(
    ("held", "weaker"), [("namespace", "host-net"), ("namespace", "unsandboxed"), ("host-net", "unsandboxed")]
)
def test_a_run_in_weaker_surroundings_than_its_grant_promises_is_refused(runs: House, held: str, weaker: str) -> None:
    with launcher(runs) as outer, launcher(runs) as other, launcher(runs) as child:
        granted, _ = outer.launch(opening(), posture={"isolation": held})
        refused = other.ask({**SANDBOX, "grant": granted["grant"], "posture": {"isolation": weaker}})
        assert code(refused) == "denied"
        wish = {"parent": granted["grant"], "authorization_details": [READ]}
        made, _ = child.launch({"delegate": wish}, posture={"isolation": weaker})
        assert grant_of(runs, made).posture.isolation == weaker


def attaching(house: House) -> list[tuple[str, str | None, str | None, str | None]]:
    """Return what the audit says of runs that were started on grants which were there."""
    events = house.call(house.world.events())
    return [(e.decision, e.grant, e.code, e.cause) for e in events if e.event == "grant.attach"]


def test_a_run_on_a_grant_that_was_there_is_recorded(runs: House) -> None:
    grant = runs.call(runs.world.opened(runs.broker))
    with launcher(runs) as outer:
        outer.launch({"grant": grant.id})
        with launcher(runs, Path(outer.bound[-1].getsockname())) as inner:
            inner.launch({"grant": grant.id})
    assert attaching(runs) == [
        ("allow", grant.id, None, f"by {OPERATOR.subject.sub}"),
        ("allow", grant.id, None, f"by {grant.id}"),
    ]


@pytest.mark.parametrize("bound", [{"jkt": "k" * 43}, {"x5t": "c" * 43}, {"attested": True}])
def test_no_run_is_started_on_a_grant_that_is_bound_or_attested(runs: House, bound: Mapping[str, object]) -> None:
    grant = runs.call(runs.world.opened(runs.broker, **bound))
    with launcher(runs) as one:
        assert code(one.ask({**SANDBOX, "grant": grant.id})) == "denied"
    with launcher(runs) as outer:
        root, _ = outer.launch(opening())
        made = changed(GrantRequest(details(READ)), bound)
        theirs = runs.call(
            runs.broker.delegate(Holder(str(root["task"]), str(root["grant"])), str(root["grant"]), made)
        )
        with launcher(runs, Path(outer.bound[-1].getsockname())) as inner:
            assert code(inner.ask({**SANDBOX, "grant": theirs.id})) == "denied"
    assert attaching(runs) == [
        ("deny", grant.id, "denied", f"by {OPERATOR.subject.sub}"),
        ("deny", root["grant"], "denied", f"under {theirs.id}"),
    ]


def test_the_owner_starts_no_run_on_the_grant_of_another_human(runs: House) -> None:
    grant = runs.call(runs.world.opened(runs.broker))
    path = runs.folder / "other.sock"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.bind(str(path))
    sock.listen()
    runs.call(listening(runs, sock))
    with launcher(runs, path) as one:
        assert code(one.ask({**SANDBOX, "grant": grant.id})) == "denied"
    assert attaching(runs) == [("deny", grant.id, "denied", f"under {grant.id}")]


async def listening(house: House, sock: socket.socket) -> None:
    """Listen for launchers of an owner of the state who opened none of its tasks."""
    house.server.listen(sock, STRANGER)


def test_a_grant_that_promises_no_surroundings_is_used_in_any(runs: House) -> None:
    grant = runs.call(runs.world.opened(runs.broker))
    with launcher(runs) as one:
        assert one.launch({"grant": grant.id}, posture={"isolation": "unsandboxed"})[1]["ready"] is True


def test_a_run_inside_promises_no_more_than_the_run_around_it_whatever_its_grant_does(runs: House) -> None:
    grant = runs.call(runs.world.opened(runs.broker))
    with launcher(runs) as outer:
        outer.launch({"grant": grant.id}, posture={"isolation": "host-net"})
        with launcher(runs, Path(outer.bound[-1].getsockname())) as inner:
            child, _ = inner.launch({"delegate": {"authorization_details": [{**READ, "uses": 1}]}})
            assert grant_of(runs, child).posture.isolation == "host-net"


def test_a_run_cannot_use_the_grant_of_a_sibling_or_of_its_parent(runs: House) -> None:
    with launcher(runs) as outer, launcher(runs) as other:
        root, _ = outer.launch(opening())
        foreign, _ = other.launch(opening())
        port = Path(outer.bound[-1].getsockname())
        with launcher(runs, port) as first, launcher(runs, port) as second:
            one, _ = first.launch({"delegate": {"authorization_details": [READ]}})
            two, _ = second.launch({"delegate": {"authorization_details": [READ]}})
            for grant in (two["grant"], root["grant"], foreign["grant"]):
                with launcher(runs, Path(first.bound[-1].getsockname())) as thief:
                    assert code(thief.ask({**SANDBOX, "grant": grant})) == "not-found"
            assert one["grant"] != two["grant"]


def test_an_agent_cannot_claim_a_better_posture_than_what_surrounds_it(runs: House) -> None:
    with launcher(runs) as outer:
        outer.launch(opening(), posture={"isolation": "host-net"})
        with launcher(runs, Path(outer.bound[-1].getsockname())) as inner:
            child, _ = inner.launch({"delegate": {"authorization_details": [READ]}})
            assert grant_of(runs, child).posture.isolation == "host-net"


@pytest.mark.parametrize("isolation", ["namespace", "host-net", "unsandboxed"])
def test_the_posture_is_recorded(runs: House, isolation: str) -> None:
    with launcher(runs) as one:
        granted, _ = one.launch(opening(), posture={"isolation": isolation})
        posture = grant_of(runs, granted).posture
        assert (posture.isolation, posture.custody) == (isolation, "channel")


def test_how_far_a_grant_may_be_delegated_is_as_it_was_asked_for(runs: House) -> None:
    asked = opening(depth=1, fan_out=2, exercise=False, unattested=False, delegates=["spiffe://prod.test/ci/*"])
    with launcher(runs) as one:
        granted, _ = one.launch(asked)
        grant = grant_of(runs, granted)
        assert (grant.bounds.depth, grant.bounds.fan_out, grant.bounds.exercise, grant.bounds.unattested) == (
            1,
            2,
            False,
            False,
        )
        assert grant.delegates == ("spiffe://prod.test/ci/*",)


MALFORMED: list[Mapping[str, object]] = [
    {},
    {"open": 7},
    {"grant": 7},
    {**opening(), "posture": {}},
    {**opening(), "posture": {"isolation": "perfect"}},
    {**opening(), "posture": {"isolation": ["namespace"]}},
    {**opening(), "folder": "relative"},
    {**opening(), "folder": "/" + "x" * 200},
    {"open": {"authorization_details": [READ], "ttl": 60}},
    {"delegate": {"authorization_details": [READ]}},
    opening(ttl="60"),
    opening(ttl=-1),
    opening(depth=True),
    opening(depth=1.5),
    opening(exercise="no"),
    opening(unattested="no"),
    opening(delegates="*"),
    opening(delegates=[1]),
    opening(delegates=["spiffe://*"]),
    opening(label=7),
    opening(surprise=1),
    opening(authorization_details="all"),
]


@pytest.mark.parametrize("wrong", MALFORMED, ids=str)
def test_a_malformed_request_opens_nothing(runs: House, wrong: Mapping[str, object]) -> None:
    with launcher(runs) as one:
        assert code(one.ask({**SANDBOX, **wrong})) in {"invalid-request", "unknown-detail"}
        assert list(runs.broker._tasks) == []


def test_bytes_that_are_no_message_are_answered(runs: House) -> None:
    with launcher(runs) as one:
        one.sock.send(b"\xff\x00")
        heard = handover.receive(one.sock)
        assert heard is not None
        assert code(heard[0]) == "invalid-request"


@pytest.mark.parametrize("ttl", [28_801, 360_000_000])
def test_a_run_that_is_to_last_too_long_is_told_how_long_it_may(runs: House, ttl: int) -> None:
    with launcher(runs) as one:
        refusal = one.ask({**SANDBOX, **opening(ttl=ttl)})["error"]
    assert isinstance(refusal, dict)
    assert refusal["detail"] == "`ttl` must be from 1 second to 28800 seconds (8 hours)"


Bound = tuple[list[str], list[socket.socket]]


def _swapped(names: list[str], sockets: list[socket.socket]) -> Bound:
    return names, [sockets[1], sockets[0], *sockets[2:]]  # the gateway in the place of the channel


def _missing(names: list[str], sockets: list[socket.socket]) -> Bound:
    return names, sockets[:-1]


def _more(names: list[str], sockets: list[socket.socket]) -> Bound:
    return names, [*sockets, sockets[0]]


def _renamed(names: list[str], sockets: list[socket.socket]) -> Bound:
    return [*names[:-1], "control"], sockets


def _connected(names: list[str], sockets: list[socket.socket]) -> Bound:
    return names, [socket.create_connection(sockets[0].getsockname()), *sockets[1:]]


def _public(names: list[str], sockets: list[socket.socket]) -> Bound:
    return names, [socket.create_server(("127.0.0.2", 0)), *sockets[1:]]


@pytest.mark.parametrize("spoil", [_swapped, _missing, _more, _renamed, _connected, _public])
def test_other_sockets_than_were_asked_for_are_refused_and_nothing_stays(
    runs: House, spoil: Callable[[list[str], list[socket.socket]], Bound]
) -> None:
    with launcher(runs) as one, ExitStack() as stack:
        granted = one.ask({**SANDBOX, **opening(READ)})
        names, sockets = spoil(one.bind(granted), one.bound)
        for sock in sockets:
            stack.callback(sock.close)
        assert code(one.ask({"bound": names}, [sock.fileno() for sock in sockets])) == "invalid-request"
        runs.until(lambda: is_closed(runs, granted))
        assert runs.services.open == []


def test_descriptors_that_are_no_sockets_are_refused(runs: House) -> None:
    with launcher(runs) as one, (runs.folder / "file").open("w") as file:
        names = one.bind(one.ask({**SANDBOX, **opening(READ)}))
        assert code(one.ask({"bound": names}, [file.fileno()] * 3)) == "invalid-request"


def test_another_user_is_not_spoken_to(runs: House, tmp_path: Path) -> None:
    path = tmp_path / "foreign.sock"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.bind(str(path))
    sock.listen()

    async def listen() -> None:
        runs.server.listen(sock, OPERATOR, os.geteuid() + 1)

    runs.call(listen())
    with launcher(runs, path) as one:
        assert handover.receive(one.sock) is None


def test_a_lease_that_cannot_be_ended_is_said_to_be_outstanding(runs: House) -> None:
    with launcher(runs) as one:
        granted, _ = one.launch(opening())
        grant = str(granted["grant"])
        holder = Holder(str(granted["task"]), grant)
        detail = grant_of(runs, granted).scope[1]
        runs.call(runs.broker.issue(holder, grant, detail))
        runs.world.target.fail.add("revoke")
        report = one.ask({"end": True})
        outstanding = report["outstanding"]
        assert isinstance(outstanding, list)
        assert (report["state"], outstanding[0]["kind"]) == ("unknown", "postgres")


def test_a_broker_that_starts_again_ends_what_its_runs_left(runs: House) -> None:
    with launcher(runs) as one:
        granted, _ = one.launch(opening())
        runs.call(runs.broker.end_channels())
        assert is_closed(runs, granted)


def test_what_was_not_made_for_a_run_outlives_a_restart(runs: House) -> None:
    async def left() -> Grant:
        return await runs.world.opened(runs.broker)

    grant = runs.call(left())
    runs.call(runs.broker.end_channels())
    assert not runs.broker._tasks.check(grant.id).grant.revoked


def test_a_delegated_run_is_ended_after_a_restart_and_its_task_stays(runs: House) -> None:
    grant = runs.call(runs.world.opened(runs.broker))
    with launcher(runs) as one:
        child, _ = one.launch({"delegate": {"parent": grant.id, "authorization_details": [{**READ, "uses": 1}]}})
        runs.call(runs.broker.end_channels())
        assert grant_of(runs, child).revoked
        assert not runs.broker._tasks.check(grant.id).grant.revoked


def test_closing_the_server_ends_every_run(runs: House) -> None:
    with launcher(runs) as one:
        granted, _ = one.launch(opening(READ, TABLE))
        assert runs.server.busy
        runs.call(runs.server.close())
        assert is_closed(runs, granted)
        assert not runs.server.busy
