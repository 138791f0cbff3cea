"""A front of the tests' own: the name that a client calls the gateway by names the resource."""

from __future__ import annotations

import socket
from dataclasses import dataclass

import pytest

from remit.core.principal import Holder
from remit.errors import InvalidRequestError, MisdirectedError
from remit.gateway import canon
from remit.gateway.canon import RequestTarget
from remit.gateway.framing import Fields
from remit.gateway.fronts.discovery import Discovery
from remit.gateway.fronts.path import PathFront
from remit.gateway.server import Channel
from tests.gateway.rig import PLACEHOLDER, SECRET, Reply, Rig, Wire, http, play, rig

DOMAIN = b".gw.test"


@dataclass(slots=True)
class HostFront:
    """Takes `NAME.gw.test` for the resource NAME, and the path for that at the upstream."""

    bound_grant: str | None
    discovery: Discovery | None = None

    def check(self, fields: Fields) -> None:
        if not (fields.get(b"host") or b"").endswith(DOMAIN):
            raise MisdirectedError

    async def principal(self, method: str, raw: bytes, fields: Fields) -> Holder:  # noqa: ARG002 - it is never asked
        raise AssertionError

    def target(self, raw: bytes, fields: Fields) -> RequestTarget:
        path, asks, query = raw.partition(b"?")
        host = fields.get(b"host") or b""
        return canon.target(host.removesuffix(DOMAIN).decode(), path, query if asks else None)


async def sent(r: Rig, port: int, target: str, host: str, *lines: str) -> Reply:
    wire: Wire = await r.wire(port)
    await wire.send("\r\n".join([f"GET {target} HTTP/1.1", f"Host: {host}", *lines, "", ""]).encode())
    return await wire.reply()


async def listening(r: Rig) -> int:
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    await r.gateway.listen(sock, Channel(r.grant.id, {"api": PLACEHOLDER}), front=HostFront(r.grant.id))
    return int(sock.getsockname()[1])


def test_a_front_by_host_reaches_the_resource_it_names_with_its_credential() -> None:
    async def scene() -> None:
        async with rig(http(args="any")) as r:
            port = await listening(r)
            reply = await sent(r, port, "/v1/public/a?q=1", "api.gw.test", f"Authorization: Bearer {PLACEHOLDER}")
            assert reply.status == 200
            [seen] = r.upstream.seen
            assert (seen.target, seen.headers["authorization"]) == ("/v1/public/a?q=1", f"Bearer {SECRET}")
            [use] = await r.events("resource.use")
            assert (use.resource, use.decision) == ("api", "allow")

    play(scene)


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("/v1/private", "api.gw.test", 403),
        ("/v1/public/a", "other.gw.test", 403),
        ("/v1/public/a", "evil.test", 421),
        ("/v1/public/%2e%2e/x", "api.gw.test", 400),
        ("v1/public/a", "api.gw.test", 400),
    ],
)
def test_what_a_front_says_is_judged_as_ever(target: str, host: str, status: int) -> None:
    async def scene() -> None:
        async with rig(http()) as r:
            assert (await sent(r, await listening(r), target, host)).status == status
            assert r.upstream.seen == []

    play(scene)


def test_a_grant_inside_the_channels_is_named_by_header_at_any_front() -> None:
    async def scene() -> None:
        async with rig(http()) as r:
            port, child = await listening(r), await r.child(http(paths=["/v1/public/b"]))
            for path, status in (("/v1/public/b", 200), ("/v1/public/a", 403)):
                named = f"Remit-Grant: {child.id}"
                assert (await sent(r, port, path, "api.gw.test", named)).status == status

    play(scene)


def test_the_path_front_knows_its_own_names_alone() -> None:
    front = PathFront("grt_x", frozenset({b"gw"}))
    front.check(Fields(((b"host", b"gw"),), None, False, True, frozenset()))
    for host, error in ((b"other", MisdirectedError), (b"a b", InvalidRequestError), (b"", InvalidRequestError)):
        with pytest.raises(error):
            front.check(Fields(((b"host", host),), None, False, True, frozenset()))
