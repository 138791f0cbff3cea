"""A kind of a package of its own has its socket in runs served, as a kind that ships with remit."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from remit.compose import kinds, wiring
from remit.compose.authority import AuthorityRole
from remit.config import settings
from remit.core import scope
from remit.core.principal import Holder
from remit.errors import UnavailableError
from remit.kinds import spiffe
from remit.ports import Quota, Start
from remit.ports.broker import Notice
from remit.ports.kind import SocketAccess, SocketContext, SocketServer
from remit.ports.runs import RedeemedRun, RunListener
from remit.run.host import Run
from tests.support.one_process import Edges

HOLDER = Holder("task_1", "grt_1")
LISTENER = RunListener("agentbox", path="/run/remit/agentbox.sock")


@dataclass
class Agentbox:
    """Serves one socket, and remembers what it was told."""

    lent: SocketContext
    served: list[Holder] = field(default_factory=list)
    noticed_of: list[Notice] = field(default_factory=list)

    async def serve(self, sock: socket.socket, holder: Holder, start: Start | None, share: Quota) -> Callable[[], None]:
        del start, share
        self.served.append(holder)
        return sock.close

    def noticed(self, notice: Notice) -> None:
        self.noticed_of.append(notice)


@pytest.fixture
def edges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Edges]]:
    """Return what builds the edges of a broker that knows one kind more; its type is forgotten afterwards."""
    before = dict(scope._TYPES)

    def build(server: Callable[[SocketContext], SocketServer], name: str = "agentbox") -> Edges:
        kind = replace(spiffe.KIND, name="agentbox", access=SocketAccess(name, "AGENTBOX", server))
        monkeypatch.setitem(kinds.BUILT_IN, kind.name, kind)
        (tmp_path / "s").mkdir(mode=0o700)
        made = settings.read(settings.places({"REMIT_STATE_DIR": str(tmp_path / "s")}), {})
        return Edges(AuthorityRole(wiring.build(made)))

    yield build
    scope._TYPES.clear()
    scope._TYPES.update(before)


def test_a_run_reaches_what_the_kind_serves(edges: Callable[..., Edges]) -> None:
    async def scene() -> None:
        built = edges(Agentbox)
        server = built.edge.sockets["agentbox"]
        assert isinstance(server, Agentbox)
        assert server.lent.broker is built.application.broker
        run = Run(RedeemedRun("run_1", HOLDER, (LISTENER,), {}, None), {"gateway": 1, "agentbox": str(LISTENER.path)})
        with socket.socket(socket.AF_UNIX) as sock:
            close = await built.edge.serve_run(run, LISTENER, sock, None)
            assert server.served == [HOLDER]
            close()
            assert sock.fileno() == -1
        notice = Notice(grants=frozenset({"grt_1"}))
        built.edge.noticed(notice)
        assert server.noticed_of == [notice]
        await built.application.broker.stop()

    asyncio.run(scene())


def test_without_the_extra_that_it_needs_a_kind_has_no_socket(edges: Callable[..., Edges]) -> None:
    def missing(_: SocketContext) -> SocketServer:
        raise UnavailableError("the agentbox is not installed")

    async def scene() -> None:
        built = edges(missing)
        assert "agentbox" not in built.edge.sockets
        await built.application.broker.stop()

    asyncio.run(scene())


def test_no_kind_takes_the_socket_of_another(edges: Callable[..., Edges]) -> None:
    async def scene() -> None:
        built = edges(Agentbox, "workload")
        assert not isinstance(built.edge.sockets["workload"], Agentbox)
        await built.application.broker.stop()

    asyncio.run(scene())
