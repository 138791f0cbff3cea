"""Runs on the real edges and the broker's own loop: what a run inside a run hands over is served like the rest."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest
import uvloop
from msgspec import structs

from remit.config import settings
from remit.config.sections import ListenSection
from remit.core import scope
from remit.core.principal import Operator
from remit.core.secret import Secret
from remit.errors import LimitError
from remit.ports import Resource
from remit.run import handover, offer
from remit.run.handover import Message
from tests.support.one_process import served

DETAIL = {"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/v1/**"], "args": "any"}
OPENING = {"open": {"purpose": "try", "ttl": 60, "depth": 1, "fan_out": 1, "authorization_details": [DETAIL]}}
WHERE = {"isolation": "namespace", "folder": "/run/remit"}


def ask(sock: socket.socket, message: Mapping[str, object], descriptors: tuple[int, ...] = ()) -> Message:
    handover.send(sock, message, descriptors)
    heard = handover.receive(sock)
    assert heard is not None
    handover.raise_problem(heard[0])
    return heard[0]


def launch(
    stack: ExitStack, path: Path, folder: Path, request: Mapping[str, object]
) -> tuple[str, list[socket.socket]]:
    """Ask on a socket for a run and hand over what it has; return its grant and its listening sockets."""
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(str(path))
        granted = offer.begin(asking, {**WHERE, **request})
    sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    sock.settimeout(20)
    nested = granted["handover"] == "/run/remit/launch.sock"  # as the run sees it
    sock.connect(str(path.with_name("launch") if nested else granted["handover"]))
    ask(sock, {"ticket": granted["ticket"]})
    listeners = granted["listeners"]
    assert isinstance(listeners, list)
    bound = [stack.enter_context(listening(item, folder)) for item in listeners]
    ask(sock, {"bound": [item["name"] for item in listeners]}, tuple(each.fileno() for each in bound))
    return str(granted["grant"]), bound


def listening(listener: Mapping[str, object], folder: Path) -> socket.socket:
    if "port" in listener:
        return socket.create_server(("127.0.0.1", 0))
    kind = socket.SOCK_SEQPACKET if listener["name"] == "launch" else socket.SOCK_STREAM
    sock = socket.socket(socket.AF_UNIX, kind)
    sock.bind(str(folder / str(listener["name"])))
    sock.listen()
    return sock


def test_a_run_inside_a_run_reaches_gateway_and_control_plane(tmp_path: Path) -> None:
    found = settings.read(settings.places({"REMIT_STATE_DIR": str(tmp_path / "s")}), {})
    made = structs.replace(found, listen=ListenSection("off", "off"))

    async def scene() -> None:
        async with served(made) as edges:
            operator: Operator = edges.application.operator
            resource = Resource("search", "http", "http://127.0.0.1:1", scope.parse([DETAIL]), None, {})
            await edges.application.broker.put_resource(operator, resource, Secret("k-0123456789abcdef"))
            with ExitStack() as stack:
                outer = await asyncio.to_thread(launch, stack, made.places.control, tmp_path / "1", OPENING)
                port = tmp_path / "1" / "channel"
                inner = await asyncio.to_thread(launch, stack, port, tmp_path / "2", {"grant": outer[0]})
                transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "2" / "channel"))
                async with httpx.AsyncClient(transport=transport, base_url="http://remit") as channel:
                    assert (await channel.get("/v1/self")).json()["grant"] == outer[0]
                async with httpx.AsyncClient() as web:
                    base = f"http://127.0.0.1:{inner[1][0].getsockname()[1]}"
                    denied = await web.get(f"{base}/other/v1/x")
                assert denied.status_code == 403

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scene())


MESH = {"type": "spiffe", "resource": "mesh", "actions": ["x509"]}
PASS_RIGHTS = 83  # SO_PASSRIGHTS, since Linux 6.16


def streams() -> dict[str, int]:
    """Return the unix sockets on which this process accepts streams, and whether they take descriptors."""
    found: dict[str, int] = {}
    for path in Path("/proc/self/fd").iterdir():
        if not (path.is_symlink() and str(path.readlink()).startswith("socket:")):
            continue
        with suppress(OSError), socket.socket(fileno=os.dup(int(path.name))) as sock:
            listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            if listens and (sock.family, sock.type) == (socket.AF_UNIX, socket.SOCK_STREAM):
                found[Path(sock.getsockname()).name] = sock.getsockopt(socket.SOL_SOCKET, PASS_RIGHTS)
    return found


@pytest.mark.attack("LAU-09")
def test_no_socket_of_a_broker_takes_descriptors_but_those_for_hand_overs(tmp_path: Path) -> None:
    found = settings.read(settings.places({"REMIT_STATE_DIR": str(tmp_path / "s")}), {})
    made = structs.replace(found, listen=ListenSection("off", "off"))
    request = {**OPENING["open"], "authorization_details": [DETAIL, MESH]}

    async def scene() -> None:
        async with served(made) as edges:
            if not taken(made.places.control):
                pytest.skip("SO_PASSRIGHTS is there since Linux 6.16")
            operator: Operator = edges.application.operator
            for resource in (
                Resource("search", "http", "http://127.0.0.1:1", scope.parse([DETAIL]), None, {}),
                Resource("mesh", "spiffe", "spiffe://remit.local", scope.parse([MESH]), None, {}),
            ):
                await edges.application.broker.put_resource(operator, resource, None)
            with ExitStack() as stack:
                outer = await asyncio.to_thread(launch, stack, made.places.control, tmp_path / "1", {"open": request})
                port = tmp_path / "1" / "channel"
                await asyncio.to_thread(launch, stack, port, tmp_path / "2", {"grant": outer[0]})
                assert streams() == {made.places.control.name: 0, "channel": 0, "workload": 0}

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scene())


def taken(path: Path) -> bool:
    """Whether this kernel knows the option."""
    with socket.socket(socket.AF_UNIX) as sock, suppress(OSError):
        sock.connect(str(path))
        sock.getsockopt(socket.SOL_SOCKET, PASS_RIGHTS)
        return True
    return False


DEEP = {"open": {"purpose": "try", "ttl": 60, "depth": 0, "fan_out": 0, "authorization_details": [DETAIL]}}
FEW = 256  # descriptors of all runs


@pytest.mark.attack("LAU-11")
def test_a_run_that_hands_its_own_grant_over_without_end_leaves_the_others_their_part(tmp_path: Path) -> None:
    found = settings.read(settings.places({"REMIT_STATE_DIR": str(tmp_path / "s")}), {})
    made = structs.replace(found, listen=ListenSection("off", "off"))

    async def scene() -> None:
        async with served(made) as edges:
            operator: Operator = edges.application.operator
            resource = Resource("search", "http", "http://127.0.0.1:1", scope.parse([DETAIL]), None, {})
            await edges.application.broker.put_resource(operator, resource, Secret("k-0123456789abcdef"))
            edges.edge.gateway.quota.free = FEW
            with ExitStack() as stack:
                greedy = await asyncio.to_thread(launch, stack, made.places.control, tmp_path / "1", DEEP)
                other = await asyncio.to_thread(launch, stack, made.places.control, tmp_path / "2", DEEP)
                runs = await asyncio.to_thread(launch_until_refused, stack, greedy, tmp_path)
                assert 0 < runs < 64
                await asyncio.to_thread(open_connections, stack, greedy[1][:2])
                assert edges.edge.gateway.quota.free >= FEW // 2 - 1
                base = f"http://127.0.0.1:{other[1][0].getsockname()[1]}"
                async with httpx.AsyncClient() as web:
                    answers = [(await web.get(f"{base}/other/v1/x")).status_code for _ in range(20)]
                assert answers == [403] * 20
                transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "2" / "channel"))
                async with httpx.AsyncClient(transport=transport, base_url="http://remit") as channel:
                    assert (await channel.get("/v1/self")).json()["grant"] == other[0]
            await until(lambda: not edges.edge.handover.busy and edges.edge.gateway.quota.free == FEW)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scene())


def launch_until_refused(stack: ExitStack, mine: tuple[str, list[socket.socket]], folder: Path) -> int:
    """Launch runs of a run's own grant until one is refused; return how many there are."""
    port = Path(mine[1][-1].getsockname()).with_name("channel")
    for number in range(100):
        try:
            launch(stack, port, folder / f"more-{number}", {"grant": mine[0]})
        except (LimitError, ConnectionError):  # refused, perhaps before it has asked
            return number
    return 100


def open_connections(stack: ExitStack, listening: list[socket.socket]) -> None:
    """Open connections, more than are taken."""
    for sock in listening:
        for _ in range(FEW):
            client = stack.enter_context(socket.socket(sock.family, sock.type))
            client.connect(sock.getsockname())
            with suppress(OSError):
                client.sendall(b"GET ")  # it is not idle


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds."""
    for _ in range(2_000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError
