"""What the streams of the Workload API send, and how they end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from remit.core.task import Grant
from remit.kinds.spiffe.calls import WorkloadService
from remit.kinds.spiffe.svids import Known, Pulse, Svids
from tests.broker.world import OPERATOR, on_end
from tests.kinds.spiffe.mesh import STREAMS, Mesh, run


async def ending(stream: Any) -> Status:
    """Return the status with which a stream ends, whatever else it sends before."""
    try:
        while await stream.recv_message() is not None:
            pass
        await stream.recv_trailing_metadata()
    except GRPCError as error:
        return error.status
    return Status.OK


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_sends_again_when_the_authority_rotates(tmp_path: Path, name: str) -> None:
    async def body(mesh: Mesh) -> None:
        async with mesh.client(await mesh.opened()) as client, client.stream(name) as stream:
            first = await stream.recv_message()
            mesh.authority.rotate()
            assert await stream.recv_message() != first
            await stream.cancel()

    run(tmp_path, body)


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_ends_at_once_when_its_grant_is_revoked(tmp_path: Path, name: str) -> None:
    async def body(mesh: Mesh) -> None:
        root = await mesh.opened()
        grant = await mesh.delegated(root, "payer")
        async with mesh.client(grant) as client, client.stream(name) as stream:
            assert await stream.recv_message() is not None
            await mesh.broker.revoke(OPERATOR, root.id)
            assert await ending(stream) is Status.PERMISSION_DENIED

    run(tmp_path, body)


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_ends_with_the_time_of_its_grant(tmp_path: Path, name: str) -> None:
    async def body(mesh: Mesh) -> None:
        async with mesh.client(await mesh.opened()) as client, client.stream(name) as stream:
            assert await stream.recv_message() is not None
            mesh.later(3_600)
            await mesh.broker.sweep()
            assert await ending(stream) is Status.PERMISSION_DENIED

    run(tmp_path, body)


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_goes_on_when_others_end(tmp_path: Path, name: str) -> None:
    async def body(mesh: Mesh) -> None:
        root = await mesh.opened()
        reader, payer = [await mesh.delegated(root, name) for name in ("reader", "payer")]
        async with mesh.client(payer) as client, client.stream(name) as stream:
            first = await stream.recv_message()
            await mesh.broker.revoke(OPERATOR, reader.id)
            mesh.authority.rotate()
            assert await stream.recv_message() != first
            await stream.cancel()

    run(tmp_path, body)


class Busy:
    """A stream on which something happens while a message is under way."""

    def __init__(self, meanwhile: Callable[[], Awaitable[None]]) -> None:
        self.sent: list[object] = []
        self._meanwhile: Callable[[], Awaitable[None]] | None = meanwhile

    async def send_message(self, message: object) -> None:
        self.sent.append(message)
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is None:
            raise EOFError
        await meanwhile()


@pytest.mark.parametrize("name", ["x509_svid", "x509_bundles", "jwt_bundles"])
def test_what_changes_while_a_message_is_under_way_is_sent_as_well(tmp_path: Path, name: str) -> None:
    async def body(mesh: Mesh) -> None:
        call, pulse = service(mesh, await mesh.opened(), name)

        async def rotated() -> None:
            mesh.authority.rotate()

        mesh.authority.on_change(pulse.beat)
        stream = Busy(rotated)
        with pytest.raises(EOFError):
            await call(stream, None)
        assert stream.sent[0] != stream.sent[1]

    run(tmp_path, body)


@pytest.mark.parametrize("name", ["x509_svid", "x509_bundles", "jwt_bundles"])
def test_a_grant_that_ends_while_a_message_is_under_way_ends_the_stream(tmp_path: Path, name: str) -> None:
    async def body(mesh: Mesh) -> None:
        grant = await mesh.opened()
        call, pulse = service(mesh, grant, name)

        async def revoked() -> None:
            await mesh.broker.revoke(OPERATOR, grant.id)

        on_end(mesh.broker, lambda _: pulse.beat())
        with pytest.raises(Exception, match=r"ended|revoked") as caught:
            await call(Busy(revoked), None)
        assert not isinstance(caught.value, EOFError)

    run(tmp_path, body)


def service(mesh: Mesh, grant: Grant, name: str) -> tuple[Callable[[Any, Any], Awaitable[None]], Pulse]:
    clock, pulse = (lambda: mesh.now), Pulse()
    known = Known(mesh.trust)
    svids = Svids(mesh.broker, mesh.holder(grant), known, clock)
    return getattr(WorkloadService(mesh.broker, svids, known, pulse, clock), name), pulse
