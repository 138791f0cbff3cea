"""Requests and sockets that are not what they must be open nothing."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from remit.run import handover
from tests.run.launchers import SANDBOX, code, is_closed, launcher
from tests.run.rig import READ, House, listening, opening

MALFORMED: list[Mapping[str, object]] = [
    {},
    {"open": 7},
    {"grant": 7},
    {**opening(), "isolation": ""},
    {**opening(), "isolation": "perfect"},
    {**opening(), "isolation": ["namespace"]},
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
        assert code(one.begin({**SANDBOX, **wrong})) in {"invalid-request", "unknown-detail"}
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
        refusal = one.begin({**SANDBOX, **opening(ttl=ttl)})["error"]
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
        granted = one.redeem({**SANDBOX, **opening(READ)})
        names, sockets = spoil(one.bind(granted), one.bound)
        for sock in sockets:
            stack.callback(sock.close)
        assert code(one.ask({"bound": names}, [sock.fileno() for sock in sockets])) == "invalid-request"
        runs.until(lambda: is_closed(runs, granted))
        assert runs.services.open == []


def test_descriptors_that_are_no_sockets_are_refused(runs: House) -> None:
    with launcher(runs) as one, (runs.folder / "file").open("w") as file:
        names = one.bind(one.redeem({**SANDBOX, **opening(READ)}))
        assert code(one.ask({"bound": names}, [file.fileno()] * 3)) == "invalid-request"


def test_another_user_is_not_spoken_to(runs: House, tmp_path: Path) -> None:
    sock = listening(tmp_path / "foreign.sock", socket.SOCK_SEQPACKET)

    async def listen() -> None:
        runs.server.listen(sock, os.geteuid() + 1)

    runs.call(listen())
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.connect(str(tmp_path / "foreign.sock"))
        assert handover.receive(client) is None
